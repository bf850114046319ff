"""Runs as processes on the lab: they outlive terminals, are followed, cancelled, killed and cleaned up after."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.catalog import Catalog
from backends.errors import MastovaultError
from backends.lab.lab import Lab
from backends.model import Asset, JobState
from backends.operations.fleet import load_fleet, refresh_vaults
from backends.runs import control
from backends.runs.events import LOST
from backends.runs.folder import SETTLED, read_request, runs_dir
from backends.runs.launch import start_run
from backends.runs.recover import recover
from tests.runs_world import World, alive, gone, kill, slow


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> World:
    return World(lab, tmp_path)


def start(world: World, *assets: Asset, host: str = "social", **options: object) -> str:
    return start_run(world.paths, kind="backup", host=host, assets=assets, options=options)


def test_a_run_backs_everything_up_and_says_how_it_ended(world: World) -> None:
    run = start(world, *Asset)
    view = world.until(lambda view: not view.active, run)
    assert [(result.asset, result.state) for result in view.results] == [(asset, JobState.DONE) for asset in Asset]
    assert [job.state for job in view.jobs] == [JobState.DONE] * 4
    assert view.ended_at
    assert view.who
    assert not view.lost
    assert not view.alive
    refresh_vaults(world.config, catalog := Catalog(world.paths.cache_dir))
    assert {snapshot.id for snapshot in catalog.snapshots("social")} == {result.snapshot for result in view.results}
    assert {attempt.run for attempt in catalog.attempts("social")} == {run}
    lines, _ = world.watcher.log(run, "database")
    assert any("pg_dump" in line.text for line in lines)
    folder = runs_dir(world.paths.state_dir) / run
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "output.log").read_text() == ""
    assert not (folder / "control.sock").exists()
    assert (folder / SETTLED).exists()


def test_a_run_outlives_the_terminal_that_began_it(world: World) -> None:
    with slow(world.lab, "social"):
        leader, follower = pty.openpty()
        command = world.start(
            "backup",
            "social/media",
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            # A new session takes the first terminal that it opens as its own: whoever closes it hangs all of it up.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(follower)
        view = world.copying()
        os.close(leader)
        assert command.wait(10) == -signal.SIGHUP
        assert world.until(lambda now: now.id == view.id).alive
        assert alive(view.pid)
        assert os.getsid(view.pid) == view.pid
    done = world.until(lambda now: not now.active, view.id)
    assert [result.state for result in done.results] == [JobState.DONE]


def test_sighup_to_the_run_itself_is_nothing(world: World) -> None:
    with slow(world.lab, "social"):
        start(world, Asset.MEDIA)
        view = world.copying()
        kill(view.pid, signal.SIGHUP)
    assert world.until(lambda now: not now.active).results[0].state is JobState.DONE


def test_cancel_stops_and_leaves_nothing(world: World) -> None:
    with slow(world.lab, "social", 100_000.0):
        run = start(world, Asset.MEDIA, Asset.REDIS)
        world.copying()
        control.cancel(world.paths.state_dir, run, "redis")
        waiting = world.until(lambda view: JobState.CANCELLED in {job.state for job in view.jobs})
        assert {job.asset: job.state for job in waiting.jobs} == {
            Asset.MEDIA: JobState.RUNNING,
            Asset.REDIS: JobState.CANCELLED,
        }
        began = time.monotonic()
        control.cancel(world.paths.state_dir, run[-8:])
        view = world.until(lambda view: not view.active)
        assert time.monotonic() - began < 8
    assert [result.state for result in view.results] == [JobState.CANCELLED] * 2
    assert world.files() == []
    with pytest.raises(MastovaultError, match="it has ended"):
        control.cancel(world.paths.state_dir, run)
    assert {attempt.state for attempt in Catalog(world.paths.cache_dir).attempts()} == {JobState.CANCELLED}


def test_sigterm_cancels_too(world: World) -> None:
    with slow(world.lab, "social", 100_000.0):
        run = start(world, Asset.MEDIA)
        view = world.copying()
        kill(view.pid, signal.SIGTERM)
        assert world.until(lambda view: not view.active).results[0].state is JobState.CANCELLED
    assert world.files() == []
    assert gone(view.pid)
    assert run == view.id


def test_cancel_reaches_a_run_whose_socket_is_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.0)
    with slow(world.lab, "social", 100_000.0):
        run = start(world, Asset.MEDIA)
        world.copying()
        request = read_request(runs_dir(world.paths.state_dir) / run)
        assert request
        Path(request.control).unlink()
        control.cancel(world.paths.state_dir, run)
        assert world.until(lambda view: not view.active).results[0].state is JobState.CANCELLED


def test_a_killed_run_is_shown_as_lost_and_cleaned_up(world: World) -> None:
    with slow(world.lab, "social", 400_000.0):
        run = start(world, Asset.SECRETS, Asset.MEDIA, Asset.REDIS)
        view = world.copying()
        kill(view.pid)
        lost = world.until(lambda now: now.lost)
        assert not lost.active
        assert [result.asset for result in lost.results] == [Asset.SECRETS]
        assert any("media" in name for name in world.files())
        code, out, _ = world.run("runs", "--json")
        assert code == 0
        assert json.loads(out)["runs"][0]["state"] == "lost"
        assert "LOST" in world.run("runs")[1]
    assert recover(world.paths, world.config) == [run]
    assert recover(world.paths, world.config) == []
    left = [name for name in world.files() if "/media/" in name and not name.endswith(".part")]
    assert left == []
    view = world.until(lambda now: now.ended_at is not None, run)
    assert view.lost
    assert {result.asset: (result.state, result.error) for result in view.results} == {
        Asset.SECRETS: (JobState.DONE, None),
        Asset.MEDIA: (JobState.FAILED, LOST),
        Asset.REDIS: (JobState.FAILED, LOST),
    }
    refresh_vaults(world.config, catalog := Catalog(world.paths.cache_dir))
    tries = {attempt.asset: attempt for attempt in catalog.attempts("social")}
    assert {asset: attempt.state for asset, attempt in tries.items()} == {
        Asset.SECRETS: JobState.DONE,
        Asset.MEDIA: JobState.FAILED,
        Asset.REDIS: JobState.FAILED,
    }
    rows = {row.asset: row for row in load_fleet(world.config, catalog, view.begun_at).assets if row.host == "social"}
    assert rows[Asset.MEDIA].score > 0


@contextmanager
def more_statuses(lab: Lab, host: str, count: int) -> Iterator[None]:
    """A host with more posts than it had, and after it with as many as before."""
    name = lab.hosts[host].database.name
    before = ",".join(lab.postgres.run_sql("SELECT id FROM statuses", name).split())
    try:
        lab.add_statuses(host, count)
        yield
    finally:
        # No foreign key is looked up for each row: nothing refers to the new ones.
        lab.postgres.run_sql(
            f"SET session_replication_role = replica; DELETE FROM statuses WHERE id NOT IN ({before})", name
        )


def test_the_next_run_cleans_up_after_a_killed_one(world: World) -> None:
    with more_statuses(world.lab, "social", 4000), slow(world.lab, "social", 60_000.0):
        run = start(world, Asset.DATABASE)
        view = world.at_step("database", "dumping")
        deadline = time.monotonic() + 20
        while not any("/database/" in name for name in world.files()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kill(view.pid)
        world.until(lambda now: now.lost)
    killed = {name.rsplit("/", 1)[0] for name in world.files()}
    code, results = world.results("social/redis")
    assert code == 0
    assert results["social/redis"]["result"] == "done"
    assert killed.isdisjoint(name.rsplit("/", 1)[0] for name in world.files())
    assert not [path for vault in world.vaults.values() for path in vault.rglob("*.part")]
    assert not (world.vaults["local"] / next(iter(killed))).exists()
    assert world.until(lambda now: now.ended_at is not None, run).lost


def test_a_vault_that_is_away_is_cleaned_when_it_is_back(world: World) -> None:
    with slow(world.lab, "social", 200_000.0):
        run = start(world, Asset.MEDIA)
        view = world.copying()
        kill(view.pid)
        world.until(lambda now: now.lost)
    away = world.vaults["offsite"].with_name("unmounted")
    world.vaults["offsite"].rename(away)
    world.vaults["offsite"].write_text("not a directory")
    assert recover(world.paths, world.config) == [run]
    assert not (runs_dir(world.paths.state_dir) / run / SETTLED).exists()
    world.vaults["offsite"].unlink()
    away.rename(world.vaults["offsite"])
    assert recover(world.paths, world.config) == []
    assert (runs_dir(world.paths.state_dir) / run / SETTLED).exists()
    assert not list(world.vaults["offsite"].rglob("*.tar.age"))
    assert len(list(world.vaults["local"].rglob("runs/*.json"))) == 1


def test_a_run_that_never_began_is_lost_not_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    run = start(world, Asset.REDIS)
    view = world.until(lambda now: now.lost, run)
    assert [job.state for job in view.jobs] == [JobState.QUEUED]
    assert recover(world.paths, world.config) == [run]


def test_two_runs_of_one_asset(world: World) -> None:
    with slow(world.lab, "social", 200_000.0):
        first = start(world, Asset.MEDIA)
        view = world.copying()
        code, results = world.results("social/media")
        assert code == 11
        error = results["social/media"]["error"]
        assert first in error
        assert str(view.pid) in error
        assert view.who in error
        # Another asset of that host is free.
        assert world.results("social/redis", "social/media")[0] == 1
        control.cancel(world.paths.state_dir, first)
        world.until(lambda now: not now.active, first)
    states = [attempt.state for attempt in Catalog(world.paths.cache_dir).attempts(asset=Asset.MEDIA)]
    assert states == [JobState.CANCELLED]
    assert world.results("social/media")[0] == 0


def test_no_more_runs_at_once_than_allowed(world: World) -> None:
    world.change(limits={"runs": 1})
    with slow(world.lab, "social", 200_000.0):
        first = start(world, Asset.MEDIA)
        world.copying()
        second = start(world, Asset.REDIS, host="art")
        third = start(world, Asset.REDIS, host="club")
        deadline = time.monotonic() + 20
        while not (lines := world.watcher.log(second)[0]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "waiting until another run has ended" in lines[0].text
        assert world.until(lambda now: True, second).jobs[0].state is JobState.QUEUED
        control.cancel(world.paths.state_dir, third)
        assert world.until(lambda now: not now.active, third).results[0].state is JobState.CANCELLED
        assert world.until(lambda now: True, first).active
    assert world.until(lambda now: not now.active, second).results[0].state is JobState.DONE


def test_ctrl_c_cancels_waits_and_says_130(world: World) -> None:
    with slow(world.lab, "social", 100_000.0):
        command = world.start("backup", "social/media", "--json")
        view = world.copying()
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=20)
        assert command.returncode == 130
        assert "cancelling" in err
    assert json.loads(out.splitlines()[-1])["results"][0]["result"] == "cancelled"
    assert gone(view.pid)
    assert world.files() == []


def test_ctrl_c_right_after_the_start_cancels_as_well(world: World) -> None:
    with slow(world.lab, "social", 20_000.0):
        command = world.start("backup", "social/media", "--json")
        view = world.until(lambda now: now.pid > 0)
        command.send_signal(signal.SIGINT)
        out, _ = command.communicate(timeout=30)
    assert command.returncode == 130
    assert json.loads(out.splitlines()[-1])["results"][0]["result"] == "cancelled"
    assert gone(view.pid)


def test_a_second_ctrl_c_waits_no_longer_and_the_run_still_cleans_up(world: World) -> None:
    with slow(world.lab, "social", 100_000.0):
        command = world.start("backup", "social/media")
        view = world.copying()
        kill(view.pid, signal.SIGSTOP)
        command.send_signal(signal.SIGTERM)
        assert command.stderr
        assert "cancelling" in command.stderr.readline()
        command.send_signal(signal.SIGINT)
        # Its run cannot even take the message now.
        assert command.wait(20) == 130
        assert alive(view.pid)
        kill(view.pid, signal.SIGCONT)
        assert world.until(lambda now: not now.active, view.id).results[0].state is JobState.CANCELLED
    assert world.files() == []


def test_cancel_and_follow_from_another_terminal(world: World) -> None:
    with slow(world.lab, "social", 100_000.0):
        run = start(world, Asset.MEDIA)
        world.copying()
        follower = world.start("runs", "--follow", run[-8:], "--json")
        assert follower.stdout
        assert json.loads(follower.stdout.readline())["state"] == "running"
        code, out, _ = world.run("cancel", run[-8:])
        assert code == 0
        assert run in out
        out, _ = follower.communicate(timeout=20)
    events = [json.loads(line) for line in out.splitlines()]
    assert follower.returncode == 130
    assert events[-1]["results"][0]["result"] == "cancelled"
    assert events[-2]["state"] == "cancelled"
    code, _, err = world.run("cancel", "nosuchrun")
    assert (code, "Traceback" in err) == (1, False)
    code, out, _ = world.run("runs", "--follow", run)
    assert code == 130
    assert "cancelled" in out


def test_a_long_state_directory_is_no_obstacle(lab: Lab, tmp_path: Path) -> None:
    deep = tmp_path / "a-state-directory-with-a-long-name" / ("x" * 60)
    deep.mkdir(parents=True)
    world = World(lab, deep)
    with slow(lab, "social", 100_000.0):
        run = start(world, Asset.MEDIA)
        view = world.copying()
        request = read_request(runs_dir(world.paths.state_dir) / run)
        assert request
        sock = Path(request.control)
        assert len(os.fsencode(sock)) < 108
        assert sock.stat().st_mode & 0o777 == 0o600
        assert sock.parent.stat().st_mode & 0o777 == 0o700
        control.cancel(world.paths.state_dir, run)
        world.until(lambda now: not now.active)
        assert not sock.parent.exists()
        run = start(world, Asset.MEDIA)
        view = world.copying()
        request = read_request(runs_dir(world.paths.state_dir) / run)
        assert request
        kill(view.pid)
        world.until(lambda now: now.lost)
    recover(world.paths, world.config)
    assert not Path(request.control).parent.exists()


def test_a_broken_configuration_ends_a_run_with_its_sentence(world: World) -> None:
    world.paths.config_file.write_text("[hosts.social]\naddress = 3\n")
    run = start(world, Asset.REDIS, Asset.DATABASE)
    view = world.until(lambda now: not now.active, run)
    assert [result.exit_code for result in view.results] == [2, 2]
    assert all("address" in (result.error or "") for result in view.results)
    code, _, err = world.run("backup", "social")
    assert code == 2
    assert "Traceback" not in err


def test_a_run_of_another_version_says_so(world: World) -> None:
    run = start_run(world.paths, kind="teleport", host="social", assets=[Asset.REDIS])
    view = world.until(lambda now: not now.active, run)
    assert "teleport" in (view.results[0].error or "")


def test_an_internal_error_still_ends_with_a_summary(world: World) -> None:
    world.paths.state_dir.mkdir()
    (world.paths.state_dir / "recover.lock").mkdir()
    run = start(world, Asset.REDIS)
    view = world.until(lambda now: not now.active, run)
    assert not view.lost
    assert "internal error" in (view.results[0].error or "")
    output = (runs_dir(world.paths.state_dir) / run / "output.log").read_text()
    assert "recover.py" in output
    assert "Is a directory" not in output


def test_no_secret_is_in_argv_environment_or_files_of_a_run(world: World) -> None:
    wanted = {
        value.encode()
        for name, value in world.lab.hosts["social"].settings.items()
        if "PASS" in name or "SECRET" in name
    }
    wanted = {value for value in wanted if len(value) > 8}
    assert wanted
    run = start(world, *Asset)
    seen: set[bytes] = set()
    while world.until(lambda now: True, run).active:
        for process in Path("/proc").glob("[0-9]*"):
            for what in ("cmdline", "environ"):
                try:
                    seen.add((process / what).read_bytes())
                except OSError:
                    continue
    for text in seen:
        # The lab's own PostgreSQL clients get their password in a protected environment: that one is allowed.
        assert not any(value in text.replace(b"PGPASSWORD=" + value, b"") for value in wanted)
    for path in (runs_dir(world.paths.state_dir) / run).iterdir():
        if path.is_file():
            assert not any(value in path.read_bytes() for value in wanted), path


def test_dry_run_and_wrong_targets(world: World) -> None:
    code, out, _ = world.run("backup", "social", "--dry-run", "--json")
    assert code == 0
    plans = json.loads(out)["plans"]
    assert [plan["asset"] for plan in plans] == list(Asset)
    assert all(step["what"] for plan in plans for step in plan["steps"])
    assert world.files() == []
    for arguments in (("nosuch",), ("social/nosuch",), ()):
        code, out, err = world.run("backup", *arguments)
        assert (code, out, "Traceback" in err) == (2, "", False)


def test_due_is_what_is_due(world: World) -> None:
    world.lab.stop_host("lan")
    assert world.results("social", "--due")[0] == 0
    code, results = world.results("social", "--due")
    # Secrets are compared with the host each time.
    assert (code, set(results)) == (0, {"social/secrets"})
    world.change(goals={"redis": "1s"})
    assert set(world.results("social/redis", "social/media", "--due")[1]) == {"social/redis"}
    assert world.run("backup", "social/media", "--due")[1] == "Nothing is due.\n"


def test_output_without_json_is_for_people(world: World) -> None:
    code, out, err = world.run("backup", "social/redis", "club/media")
    assert code == 0, err
    lines = out.splitlines()
    assert any(line.startswith("social/redis done") for line in lines)
    assert any(line.startswith("club/media skipped") for line in lines)
    assert "\x1b" not in out
    shown = subprocess.run(
        [sys.executable, "-m", "tui", "runs"], env=world.environment(), capture_output=True, text=True, check=True
    ).stdout
    assert len(shown.splitlines()) == 3
