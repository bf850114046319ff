"""Runs as processes: they outlive terminals, can be followed and cancelled from elsewhere, and are cleaned up after."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import MastovaultError
from backends.lab.lab import Lab
from backends.model import Asset, JobState, Secret
from backends.operations.fleet import refresh_vaults
from backends.runs.control import answer, cancel
from backends.runs.folder import folder_of, is_alive, read_request
from backends.runs.launch import start_run
from backends.runs.recover import LOST, recover
from backends.runs.view import RunView
from backends.runs.watch import RunsWatcher

HOST = "art"
SLOW = 400_000.0


@pytest.fixture
def paths(lab: Lab, tmp_path: Path) -> Paths:
    """The lab's fleet with a state and a vault of its own for each test."""
    text = lab.config_file.read_text()
    for number, line in enumerate([line for line in text.splitlines() if line.startswith("path = ")]):
        text = text.replace(line, f'path = "{tmp_path}/vault{number}"')
    config = tmp_path / "config.toml"
    config.write_text(text)
    return Paths(config, tmp_path / "state", tmp_path / "cache")


@pytest.fixture
def slow(lab: Lab) -> Iterator[None]:
    """A host at the end of a slow line, so that there is a middle to do something in."""
    server = lab.hosts[HOST].ssh
    before, server.rate = server.rate, SLOW
    yield
    server.rate = before


def until(watcher: RunsWatcher, run: str, wanted: Callable[[RunView], bool], seconds: float = 40) -> RunView:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for view in watcher.poll():
            if view.id == run and wanted(view):
                return view
        time.sleep(0.02)
    raise AssertionError([view for view in watcher.poll() if view.id == run])


def ended(view: RunView) -> bool:
    return not view.active


def copying(view: RunView) -> bool:
    return any(job.state is JobState.RUNNING and job.done > 0 and job.total for job in view.jobs)


def remote_commands(lab: Lab) -> list[str]:
    """The commands that run in the host's tree right now."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cwd").readlink().is_relative_to(lab.hosts[HOST].home):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_gone(lab: Lab, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while (left := remote_commands(lab)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def stored(paths: Paths) -> list[str]:
    return sorted(
        str(path)
        for vault in paths.config_file.parent.glob("vault*")
        for path in vault.rglob("*")
        if path.is_file() and "/runs/" not in str(path) and path.parent != vault
    )


def test_a_run_backs_everything_up_and_is_seen_from_elsewhere(lab: Lab, paths: Paths) -> None:
    run = start_run(paths, kind="backup", host="social", assets=list(Asset))
    view = until(RunsWatcher(paths.state_dir), run, ended)
    assert [result.state for result in view.results] == [JobState.DONE] * 4
    assert [job.state for job in view.jobs] == [JobState.DONE] * 4
    assert not view.lost
    watcher = RunsWatcher(paths.state_dir)
    watcher.poll()
    lines, since = watcher.log(run)
    assert any("pg_dump" in line.text for line in lines)
    assert watcher.log(run, since=since)[0] == []
    assert {line.job for line in watcher.log(run, job="redis")[0]} == {"redis"}
    folder = folder_of(paths.state_dir, run)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "output.log").read_text() == ""


@pytest.mark.usefixtures("slow")
def test_cancel_ends_the_remote_command_and_leaves_nothing(lab: Lab, paths: Paths) -> None:
    run = start_run(paths, kind="backup", host=HOST, assets=[Asset.MEDIA, Asset.REDIS])
    watcher = RunsWatcher(paths.state_dir)
    until(watcher, run, copying)
    assert remote_commands(lab)
    request = read_request(folder_of(paths.state_dir, run))
    assert request
    assert Path(request.control).stat().st_mode & 0o777 == 0o600
    cancel(paths.state_dir, run)
    view = until(watcher, run, ended)
    assert [result.state for result in view.results] == [JobState.CANCELLED] * 2
    wait_gone(lab)
    assert stored(paths) == []
    assert not Path(request.control).exists()
    with pytest.raises(MastovaultError, match="does not answer"):
        cancel(paths.state_dir, run)


@pytest.mark.usefixtures("slow")
def test_one_job_can_be_cancelled_alone(lab: Lab, paths: Paths) -> None:
    run = start_run(paths, kind="backup", host=HOST, assets=[Asset.MEDIA, Asset.REDIS])
    watcher = RunsWatcher(paths.state_dir)
    until(watcher, run, copying)
    with pytest.raises(MastovaultError, match="no such job"):
        cancel(paths.state_dir, run, "database")
    cancel(paths.state_dir, run, "media")
    view = until(watcher, run, ended)
    assert {result.asset: result.state for result in view.results} == {
        Asset.MEDIA: JobState.CANCELLED,
        Asset.REDIS: JobState.DONE,
    }


@pytest.mark.usefixtures("slow")
def test_kill_9_is_shown_as_what_it_is_and_cleaned_up(lab: Lab, paths: Paths) -> None:
    run = start_run(paths, kind="backup", host=HOST, assets=[Asset.MEDIA])
    watcher = RunsWatcher(paths.state_dir)
    view = until(watcher, run, copying)
    os.kill(view.pid, signal.SIGKILL)
    view = until(watcher, run, ended)
    assert view.lost
    assert view.results == ()
    wait_gone(lab)
    config = load(paths.config_file)
    assert recover(paths, config) == [run]
    assert recover(paths, config) == []
    view = until(watcher, run, lambda view: bool(view.results))
    assert view.lost
    assert view.results[0].error == LOST
    assert [path for path in stored(paths) if "manifest" in path] == []
    catalog = Catalog(paths.cache_dir)
    refresh_vaults(config, catalog)
    assert catalog.snapshots() == []
    attempts = catalog.attempts(HOST, Asset.MEDIA)
    assert [(attempt.state, attempt.error) for attempt in attempts] == [(JobState.FAILED, LOST)]
    again = start_run(paths, kind="backup", host=HOST, assets=[Asset.REDIS])
    assert until(watcher, again, ended).results[0].state is JobState.DONE


@pytest.mark.usefixtures("slow")
def test_closing_the_terminal_leaves_the_backup_going(lab: Lab, paths: Paths) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tui", "--config", str(paths.config_file), "backup", f"{HOST}/media"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={**os.environ, **paths.environment()},
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    ) as command:
        os.close(follower)
        watcher = RunsWatcher(paths.state_dir)
        end = time.monotonic() + 30
        while not (views := watcher.poll()) and time.monotonic() < end:
            time.sleep(0.05)
        run = views[0].id
        until(watcher, run, copying)
        # The last descriptor of the terminal closes: the kernel hangs up on everything in its session.
        os.close(leader)
        assert command.wait(20) != 0
    lab.hosts[HOST].ssh.rate = None
    view = until(watcher, run, ended)
    assert view.results[0].state is JobState.DONE


@pytest.mark.usefixtures("slow")
def test_the_second_run_of_an_asset_says_who_is_first(lab: Lab, paths: Paths) -> None:
    first = start_run(paths, kind="backup", host=HOST, assets=[Asset.MEDIA])
    watcher = RunsWatcher(paths.state_dir)
    until(watcher, first, copying)
    command = [sys.executable, "-m", "tui", "backup", f"{HOST}/media"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **paths.environment()}, check=False
    )
    assert done.returncode == 11
    assert first in done.stdout
    cancel(paths.state_dir, first)
    until(watcher, first, ended)


@pytest.mark.usefixtures("slow")
def test_ctrl_c_cancels_and_exits_130(lab: Lab, paths: Paths) -> None:
    command = [sys.executable, "-m", "tui", "backup", f"{HOST}/media", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **paths.environment()}
    ) as process:
        watcher = RunsWatcher(paths.state_dir)
        end = time.monotonic() + 30
        while not any(copying(view) for view in watcher.poll()) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert '"result": "cancelled"' in output.splitlines()[-1]
    assert stored(paths) == []


def test_a_run_asks_and_is_answered_over_its_socket(lab: Lab, paths: Paths, tmp_path: Path) -> None:
    key = tmp_path / "id_encrypted"
    host = lab.hosts["social"]
    config = load(lab.config_file).hosts["social"]
    assert config.identity_file
    key.write_bytes(config.identity_file.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "opensesame", "-f", str(key)], check=True)
    text = paths.config_file.read_text()
    section, rest = text.split("[hosts.art]")
    paths.config_file.write_text(section.replace(str(config.identity_file), str(key)) + "[hosts.art]" + rest)

    run = start_run(paths, kind="backup", host=host.name, assets=[Asset.REDIS])
    watcher = RunsWatcher(paths.state_dir)
    view = until(watcher, run, lambda view: bool(view.questions))
    assert "assphrase" in view.questions[0].prompt
    answer(paths.state_dir, run, view.questions[0].id, Secret("opensesame"))
    view = until(watcher, run, ended)
    assert view.results[0].state is JobState.DONE
    for path in folder_of(paths.state_dir, run).iterdir():
        assert b"opensesame" not in path.read_bytes()

    silent = start_run(paths, kind="backup", host=host.name, assets=[Asset.REDIS], options={"interactive": False})
    view = until(watcher, silent, ended)
    assert view.results[0].state is JobState.FAILED
    assert "did not let" in (view.results[0].error or "")


def test_no_secret_is_in_any_argv_or_file_of_a_run(lab: Lab, paths: Paths) -> None:
    environment = (lab.hosts["social"].root / ".env.production").read_text()
    secrets = [
        line.split("=", 1)[1].strip("\"'").encode()
        for line in environment.splitlines()
        if line.split("=")[0] in {"DB_PASS", "REDIS_PASSWORD", "SECRET_KEY_BASE", "VAPID_PRIVATE_KEY"}
    ]
    assert len(secrets) >= 3
    run = start_run(paths, kind="backup", host="social", assets=list(Asset))
    watcher = RunsWatcher(paths.state_dir)
    seen: set[bytes] = set()
    while until(watcher, run, lambda view: True).active:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(path.read_bytes())
    assert any(b"pg_dump" in argv for argv in seen)
    for data in [*seen, *(path.read_bytes() for path in folder_of(paths.state_dir, run).iterdir())]:
        assert not any(secret in data for secret in secrets)


def test_a_vault_that_fills_up_half_way_lists_nothing_torn(lab: Lab, paths: Paths, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("the kernel does not let this root mount a tmpfs")
    try:
        text = paths.config_file.read_text().replace(f"{tmp_path}/vault0", str(small))
        paths.config_file.write_text(text)
        only = [line for line in text.splitlines() if line.startswith("vaults = ")]
        for line in set(only):
            text = text.replace(line, 'vaults = ["local"]')
        paths.config_file.write_text(text)
        run = start_run(paths, kind="backup", host="social", assets=[Asset.MEDIA, Asset.SECRETS])
        view = until(RunsWatcher(paths.state_dir), run, ended)
        results = {result.asset: result for result in view.results}
        assert results[Asset.MEDIA].state is JobState.FAILED
        assert "no room" in (results[Asset.MEDIA].error or "")
        assert results[Asset.MEDIA].next_step
        assert results[Asset.SECRETS].state is JobState.DONE
        assert not list(small.glob("hosts/social/media/**/*.age"))
        catalog = Catalog(paths.cache_dir)
        refresh_vaults(load(paths.config_file), catalog)
        assert [snapshot.asset for snapshot in catalog.snapshots()] == [Asset.SECRETS]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_one_vault_away_makes_a_backup_in_part(lab: Lab, paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "vault1").write_text("a file where the vault should be")
    done = subprocess.run(
        [sys.executable, "-m", "tui", "backup", "social/redis"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **paths.environment()},
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "in part" in done.stdout
    assert "lacks it" in done.stdout


def test_a_process_that_never_began_is_lost(paths: Paths) -> None:
    run = start_run(paths, kind="backup", host="social", assets=[Asset.REDIS], options={"interactive": False})
    request = read_request(folder_of(paths.state_dir, run))
    assert request
    from dataclasses import replace
    from datetime import timedelta

    never = replace(request, pid=0)
    assert is_alive(never, request.begun_at)
    assert not is_alive(never, request.begun_at + timedelta(minutes=1))
    # A pid that now belongs to somebody else is not the run.
    assert not is_alive(replace(request, pid=os.getpid(), started=1), request.begun_at)
    until(RunsWatcher(paths.state_dir), run, ended)
