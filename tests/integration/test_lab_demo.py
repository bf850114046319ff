"""`mastovault demo --headless`: its protocol, and that it leaves no process and no directory, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.embedded.keeper import marked
from backends.lab.directory import mark_of
from tui.cli.tour import tour

SSH = ("ssh", "-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR")


class Running:
    """A demo that is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self.process = process
        self.ready: dict[str, Any] = json.loads(process.stdout.readline())
        self.directory = Path(self.ready["config"]).parent
        self.mark = mark_of(self.directory)
        self.family = psutil.Process(process.pid).children(recursive=True)

    def begin(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command on the first host and wait until it has said something."""
        user, _, place = self.ready["hosts"][0]["address"].partition("@")
        client = self.directory / "client"
        process = subprocess.Popen(
            [
                *(*SSH, "-i", str(client / "id_ed25519"), "-o", f"UserKnownHostsFile={client / 'known_hosts'}"),
                *("-p", place.partition(":")[2], "-l", user, "127.0.0.1", command),
            ],
            stdout=subprocess.PIPE,
        )
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        return process

    def left(self) -> list[psutil.Process]:
        """What of it is still there after some patience."""
        _, alive = psutil.wait_procs(self.family, timeout=15)
        return [*alive, *(psutil.Process(pid) for pid in marked(self.mark))]


@contextmanager
def demo(*arguments: str, **options: Any) -> Iterator[Running]:
    with subprocess.Popen(
        [sys.executable, "-m", "tui", "demo", "--headless", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        **{"stdin": subprocess.DEVNULL, **options},
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def test_a_signal_stops_everything(tmp_path: Path) -> None:
    with demo("--hosts", "1", "--dir", str(tmp_path / "d")) as running:
        assert running.ready["event"] == "ready"
        assert [(host["host"], host["state"]) for host in running.ready["hosts"]] == [
            ("social", "online"),
            ("spare", "online"),
        ]
        command = running.begin("echo begun; setsid sleep 1000 & sleep 1000")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert running.process.stdout
        assert running.process.stdout.read() == ""
        assert not running.left()
        assert command.wait(10) != 0


def test_a_killed_lab_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    script = (
        "import json, signal, sys; from pathlib import Path;"
        "from backends.lab.lab import Lab; from tui.cli.demo import _event;"
        "lab = Lab(Path(sys.argv[1]), hosts=1, rows=10, temporary=True, services=True, spare=True).start();"
        "print(json.dumps(_event(lab)), flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        running = Running(process)
        assert len(running.family) >= 8
        command = running.begin("echo begun; setsid sleep 1000 & sleep 1000")
        process.kill()
        process.wait()
        assert not running.left()
        assert not directory.exists()
        command.wait(10)


def test_it_ends_with_the_process_that_follows_it() -> None:
    read, write = os.pipe()
    with demo("--hosts", "1", "--follow-stdin", stdin=read) as running:
        os.close(read)
        os.close(write)
        assert running.process.wait(20) == 0
        assert not running.left()
        assert not running.directory.exists()


def test_a_signal_during_the_set_up_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with subprocess.Popen(
        [sys.executable, "-m", "tui", "demo", "--headless", "--dir", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        process.stderr.readline()
        mark = mark_of(directory)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert not psutil.wait_procs(family, timeout=15)[1]
    assert not marked(mark)


def ended(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tui", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "letters").touch()
    done = ended("--headless", "--dir", str(tmp_path), timeout=30)
    assert done.returncode == 2
    assert "holds no lab" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert done.stdout == ""


def test_without_a_terminal_it_makes_its_round_by_commands(tmp_path: Path) -> None:
    place = tmp_path / "fleet"
    done = ended("--hosts", "1", "--no-spare", "--dir", str(place), timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    typed = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ mastovault ")]
    assert typed == ["status", "backup", "list", "restore", "verify", "drill", "status"]
    assert "2000 posts are gone" in done.stdout
    assert "  restored; Mastodon was down for" in done.stdout
    assert "rows equal; the secrets open it" in done.stdout
    assert [line.split()[7] for line in done.stdout.splitlines() if line.split()[2:4] == ["social", "database"]] == [
        "due",
        "verified",
    ]
    assert not marked(mark_of(place))


def test_the_round_ends_with_the_first_command_that_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASTOVAULT_CONFIG", "/nonexistent/config.toml")
    assert tour("nowhere", lambda: pytest.fail("nothing is lost where no backup was made")) != 0
    out, err = capfd.readouterr()
    assert [line.split()[2] for line in out.splitlines() if line.startswith("$ mastovault ")] == ["status", "backup"]
    assert "no host named nowhere is configured" in err
