"""Whole commands in subprocesses: what a user types, what comes back, and the exit code."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest


def mastovault(
    home: Path, *arguments: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with a home, a state and a cache of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tui", *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "HOME": str(home),
            "MASTOVAULT_CONFIG": str(home / "config.toml"),
            "MASTOVAULT_STATE_DIR": str(home / "state"),
            "MASTOVAULT_CACHE_DIR": str(home / "cache"),
            **environment,
        },
        check=False,
    )


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence of a failed command; there must be no traceback and at most one next step under it."""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines
    assert lines[0].startswith("mastovault: ")
    assert len(lines) <= 2
    return lines[0]


def test_help_names_every_command(tmp_path: Path) -> None:
    done = mastovault(tmp_path, "--help")
    assert done.returncode == 0
    for name in ("status", "backup", "list", "host", "key", "config", "runs", "cancel", "demo"):
        assert f"  {name} " in done.stdout


def test_a_first_status_says_how_to_begin(tmp_path: Path) -> None:
    done = mastovault(tmp_path, "status")
    assert done.returncode == 0
    assert "Nothing is being backed up" in done.stdout
    assert json.loads(mastovault(tmp_path, "status", "--json").stdout)["hosts"] == []
    assert mastovault(tmp_path, "status", "--nagios").returncode == 3


def test_without_a_terminal_the_app_points_at_the_commands(tmp_path: Path) -> None:
    done = mastovault(tmp_path)
    assert done.returncode == 1
    assert "needs a terminal" in one_sentence(done)


def test_a_dumb_terminal_is_refused_with_a_sentence(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tui"],
            stdin=follower,
            stdout=follower,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env={**os.environ, "TERM": "dumb", "MASTOVAULT_CONFIG": str(tmp_path / "c.toml")},
            check=False,
        )
    finally:
        os.close(follower)
        os.close(leader)
    assert done.returncode == 1
    assert "TERM=dumb" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[hosts.a", "not valid TOML"),
        ("[goals]\ndatabse = '1h'\n", "line 2: the key goals.databse is unknown"),
        ("[goals]\ndatabase = 5\n", "line 2: goals.database: a duration"),
        ("[hosts.a]\naddress='x'\nvaults=['v']\n", "names the vault v, which is not configured"),
    ],
)
@pytest.mark.parametrize(
    "command", [("status",), ("list",), ("backup", "--all"), ("config", "check"), ("host", "list")]
)
def test_a_broken_configuration_stops_every_command(
    tmp_path: Path, text: str, says: str, command: tuple[str, ...]
) -> None:
    (tmp_path / "config.toml").write_text(text)
    done = mastovault(tmp_path, *command)
    assert done.returncode == 2
    assert says in one_sentence(done)
    assert done.stdout == ""


def test_a_backup_without_vault_or_recipient_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[hosts.a]\naddress='local'\n")
    done = mastovault(tmp_path, "backup", "a")
    assert done.returncode == 2
    assert one_sentence(done)
    done = mastovault(tmp_path, "config", "check")
    assert "no recipient" in done.stdout
    assert "no vault" in done.stdout


def test_wrong_usage_exits_2(tmp_path: Path) -> None:
    for arguments in (("nothing",), ("status", "--nothing"), ("list", "a/b"), ("status", "nobody")):
        assert mastovault(tmp_path, *arguments).returncode == 2, arguments


def test_a_new_key_insists_on_a_recovery_copy(tmp_path: Path) -> None:
    done = mastovault(tmp_path, "key", "new")
    assert done.returncode == 12
    assert "recovery copy" in one_sentence(done)
    assert not (tmp_path / "config.toml").exists()
    assert not (tmp_path / "identity.age").exists()

    stick = tmp_path / "stick" / "recovery.age"
    stick.parent.mkdir()
    done = mastovault(tmp_path, "key", "new", "--recovery-to", str(stick))
    assert done.returncode == 0, done.stderr
    identity = tmp_path / "identity.age"
    assert identity.stat().st_mode & 0o777 == 0o600
    assert stick.stat().st_mode & 0o777 == 0o600
    secret = next(line for line in identity.read_text().splitlines() if line.startswith("AGE-SECRET-KEY"))
    assert secret not in done.stdout + done.stderr
    assert (tmp_path / "config.toml").read_text().count("age1") >= 3

    assert "NOT CONFIRMED" in mastovault(tmp_path, "key", "show").stdout
    done = mastovault(tmp_path, "key", "check", "--confirm-custody", "--from", str(stick))
    assert done.returncode == 0, done.stderr
    assert "custody of the recovery copy confirmed today" in mastovault(tmp_path, "key", "show").stdout

    again = mastovault(tmp_path, "key", "new", "--recovery-to", str(tmp_path / "other"))
    assert again.returncode == 2
    assert "identity already" in one_sentence(again)

    copy = tmp_path / "copy.age"
    assert mastovault(tmp_path, "key", "export", str(copy)).returncode == 0
    assert copy.read_bytes() == identity.read_bytes()
    assert mastovault(tmp_path, "key", "export", str(copy)).returncode == 12

    identity.unlink()
    done = mastovault(tmp_path, "key", "check")
    assert done.returncode == 12
    assert one_sentence(done)


def test_hosts_are_added_and_forgotten(tmp_path: Path) -> None:
    assert mastovault(tmp_path, "host", "add", "one", "mastodon@127.0.0.1:1", "--no-probe").returncode == 0
    listed = json.loads(mastovault(tmp_path, "host", "list", "--json").stdout)
    assert listed["hosts"] == [
        {
            "host": "one",
            "address": "mastodon@127.0.0.1:1",
            "state": "unasked",
            "asked_at": None,
            "assets": ["database", "secrets", "media", "redis"],
        }
    ]
    assert mastovault(tmp_path, "host", "add", "one", "x", "--no-probe").returncode == 2
    assert mastovault(tmp_path, "host", "forget", "one").returncode == 1
    assert mastovault(tmp_path, "host", "forget", "one", "--confirm", "one").returncode == 0
    assert json.loads(mastovault(tmp_path, "host", "list", "--json").stdout)["hosts"] == []


def test_an_unreachable_host_is_not_saved(tmp_path: Path) -> None:
    done = mastovault(tmp_path, "host", "add", "gone", "mastodon@127.0.0.1:1")
    assert done.returncode == 1
    assert "gone" in one_sentence(done) or "127.0.0.1" in one_sentence(done)
    assert json.loads(mastovault(tmp_path, "host", "list", "--json").stdout)["hosts"] == []


def test_a_bug_is_one_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tui.cli.config
    from tui.cli.main import run

    def broken(*_arguments: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(tui.cli.config, "load", broken)
    monkeypatch.delenv("MASTOVAULT_DEBUG", raising=False)
    assert run(["--config", str(tmp_path / "config.toml"), "config", "check"]) == 1
    said = capsys.readouterr().err
    assert "internal error" in said
    assert "hunter2" not in said
    monkeypatch.setenv("MASTOVAULT_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run(["--config", str(tmp_path / "config.toml"), "config", "check"])
