"""Backing up a host: each way an asset can end, and that it ends alone."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from backends.archive.snapshot import SnapshotWriter
from backends.assets.base import BackupContext, Outcome, Plan
from backends.assets.registry import handler
from backends.catalog import Catalog
from backends.config.schema import HostConfig
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.errors import AssetFailed, Cancelled, ConnectionFailed, LoginRefused, MastovaultError
from backends.lab.lab import Lab
from backends.mastodon.installation import Installation
from backends.model import Asset, AssetObservation, JobResult, JobState, Secret
from backends.operations import backup, line, link
from backends.operations.backup import back_up_host, plan
from backends.operations.locks import hold
from backends.progress import Job
from tests.integration.test_vault_disk import small_disk as small_disk
from tests.runs_world import World, slow
from tests.servers.backup import WatchedJob


@pytest.fixture
def world(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(line, "_PAUSE", 0.01)
    return World(lab, tmp_path)


def run(
    world: World, *assets: Asset, host: str = "social", at: datetime | None = None, job: Job | None = None
) -> list[JobResult]:
    wanted = assets or tuple(Asset)
    watched = job or WatchedJob()
    heard: list[JobResult] = []
    results = back_up_host(
        world.config, world.paths, host, wanted, dict.fromkeys(wanted, watched), "run", at=at, on_result=heard.append
    )
    assert sorted(heard, key=str) == sorted(results, key=str)
    return results


@dataclass
class Fake:
    """An asset that fails as it is told to."""

    asset: Asset
    acts: list[Callable[[BackupContext, SnapshotWriter], Outcome]] = field(default_factory=list)
    tries: int = 0
    name: ClassVar[str] = "fake"

    def probe(self, connection: Connection, installation: Installation) -> AssetObservation:
        raise AssertionError("not asked for")

    def plan_backup(self, connection: Connection, installation: Installation) -> Plan:
        raise AssetFailed("no plan for this one", "Do something else.")

    def back_up(self, context: BackupContext, writer: SnapshotWriter) -> Outcome:
        self.tries += 1
        writer.write("dump.rdb", io.BytesIO(b"begun"), compress=True)
        return self.acts.pop(0)(context, writer)


def fake(
    monkeypatch: pytest.MonkeyPatch, asset: Asset, *acts: Callable[[BackupContext, SnapshotWriter], Outcome]
) -> Fake:
    made = Fake(asset, list(acts))
    monkeypatch.setattr(backup, "handler", lambda wanted: made if wanted is asset else handler(wanted))
    return made


def fine(context: BackupContext, writer: SnapshotWriter) -> Outcome:
    return Outcome()


def raising(error: BaseException) -> Callable[[BackupContext, SnapshotWriter], Outcome]:
    def act(context: BackupContext, writer: SnapshotWriter) -> Outcome:
        raise error

    return act


def by_asset(results: Sequence[JobResult]) -> dict[Asset, JobResult]:
    return {result.asset: result for result in results}


def attempts(world: World) -> list[tuple[Asset, JobState]]:
    return [(attempt.asset, attempt.state) for attempt in Catalog(world.paths.cache_dir).attempts()]


def test_one_failure_hides_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, Asset.SECRETS, raising(AssetFailed("it cannot be read", "Look at its mode.")))
    results = by_asset(run(world))
    assert list(results) == list(Asset)
    failed = results.pop(Asset.SECRETS)
    assert (failed.state, failed.error, failed.next_step) == (JobState.FAILED, "it cannot be read", "Look at its mode.")
    assert failed.exit_code == 1
    assert {result.state for result in results.values()} == {JobState.DONE}
    assert all(result.vaults == ("local", "offsite") and result.seconds > 0 for result in results.values())
    assert not any("/secrets/" in name for name in world.files())
    catalog = Catalog(world.paths.cache_dir)
    recorded = {attempt.asset: attempt for attempt in catalog.attempts("social")}
    assert recorded[Asset.SECRETS].error == "it cannot be read"
    assert recorded[Asset.DATABASE].snapshot == results[Asset.DATABASE].snapshot
    assert {snapshot.vaults for snapshot in catalog.snapshots()} == {("local", "offsite")}


def test_a_bug_in_one_asset_is_one_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, Asset.MEDIA, raising(KeyError("hunter2")))
    results = by_asset(run(world, Asset.MEDIA, Asset.REDIS))
    assert results[Asset.REDIS].state is JobState.DONE
    assert results[Asset.MEDIA].error == "an internal error stopped this job (KeyError)"
    said = capsys.readouterr().err
    assert "test_backup.py" in said
    assert "hunter2" not in said


def test_a_lost_connection_is_tried_again_and_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(context: BackupContext, writer: SnapshotWriter) -> Outcome:
        context.job.warn("half of it is missing")
        world.lab.cut_connections("social")
        context.connection.has("sh")
        raise AssertionError("the connection is cut")

    made = fake(monkeypatch, Asset.REDIS, lose, lose, fine)
    job = WatchedJob()
    result = run(world, Asset.REDIS, job=job)[0]
    assert (result.state, result.in_part, made.tries) == (JobState.DONE, False, 3)
    assert sum("starting this asset again" in line for line in job.lines) == 2
    assert len({name.split("/")[3] for name in world.files()}) == 1
    fake(monkeypatch, Asset.REDIS, lose, lose, lose)
    failed = run(world, Asset.REDIS)[0]
    assert failed.state is JobState.FAILED
    assert failed.error


def test_what_cannot_pass_on_its_own_is_tried_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake(monkeypatch, Asset.REDIS, raising(AssetFailed("no")))
    assert run(world, Asset.REDIS)[0].state is JobState.FAILED
    assert made.tries == 1


def test_a_host_that_is_away_fails_all_with_one_sentence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(name: str, host: HostConfig, *, ask: line.Ask | None) -> Connection:
        asked.append(name)
        return open_connection(name, host, ask=ask)

    monkeypatch.setattr(link, "open_connection", counted)
    world.lab.stop_host("art")
    try:
        results = run(world, host="art")
    finally:
        world.lab.start_host("art")
    assert {result.state for result in results} == {JobState.FAILED}
    assert len({result.error for result in results}) == 1
    assert len(asked) == line.ATTEMPTS
    assert len(attempts(world)) == 4


def test_a_login_or_host_key_failure_has_its_own_sentence(world: World, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.touch()
    world.host("social", known_hosts=str(known))
    result = run(world, Asset.REDIS)[0]
    assert "SHA256:" in (result.error or "")
    assert result.next_step
    world.host("art", identity_file=str(known))
    assert run(world, Asset.REDIS, host="art")[0].state is JobState.FAILED


def test_warnings_make_it_in_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(context: BackupContext, writer: SnapshotWriter) -> Outcome:
        context.job.warn("\x1b[31mone file could not be read")
        return Outcome()

    fake(monkeypatch, Asset.REDIS, warn)
    result = run(world, Asset.REDIS)[0]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert result.warnings == ("�[31mone file could not be read",)
    snapshot = Catalog(world.paths.cache_dir).snapshots()[0]
    assert snapshot.in_part


def test_one_vault_away_is_in_part_and_both_is_a_failure(world: World) -> None:
    place = world.vaults["offsite"]
    place.rmdir()
    place.write_text("not a directory")
    job = WatchedJob()
    result = run(world, Asset.REDIS, job=job)[0]
    assert (result.state, result.in_part, result.vaults) == (JobState.DONE, True, ("local",))
    assert "offsite" in result.warnings[0]
    assert any("offsite" in line for line in job.lines)
    local = world.vaults["local"]
    local.rename(local.with_name("away"))
    local.write_text("not a directory")
    results = run(world)
    assert {result.state for result in results} == {JobState.FAILED}


def test_a_vault_that_fills_up_half_way(world: World, small_disk: Path) -> None:
    world.change(vaults={"offsite": {"type": "directory", "path": str(small_disk / "vault")}})
    results = by_asset(run(world, Asset.MEDIA, Asset.REDIS))
    media = results[Asset.MEDIA]
    assert (media.state, media.in_part, media.vaults) == (JobState.DONE, True, ("local",))
    assert "no room left" in media.warnings[0]
    assert results[Asset.REDIS].vaults == ("local", "offsite")
    assert not list(small_disk.rglob("*.tar*"))
    world.host("social", vaults=["offsite"])
    alone = run(world, Asset.MEDIA)[0]
    assert alone.state is JobState.FAILED
    assert "no room left" in (alone.error or "")
    assert not list(small_disk.rglob("*.part"))


def test_unchanged_secrets_keep_their_snapshot(world: World) -> None:
    first = run(world, Asset.SECRETS)[0]
    second = run(world, Asset.SECRETS)[0]
    assert (second.state, second.snapshot) == (JobState.DONE, first.snapshot)
    snapshot = Catalog(world.paths.cache_dir).snapshots(asset=Asset.SECRETS)
    assert [each.id for each in snapshot] == [first.snapshot]
    assert snapshot[0].checked_at
    # A vault that lacks it gets a new copy.
    for path in sorted(world.vaults["offsite"].glob("hosts/social/secrets/**/*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    third = run(world, Asset.SECRETS)[0]
    assert third.snapshot not in {None, first.snapshot}


def test_what_a_provider_keeps_is_skipped(world: World) -> None:
    result = run(world, Asset.MEDIA, host="club")[0]
    assert result.state is JobState.SKIPPED
    assert result.warnings
    assert result.warnings[0]
    assert attempts(world) == []
    assert world.files() == []


def test_a_lock_names_its_holder_and_is_no_attempt(world: World) -> None:
    with hold(world.paths.state_dir, "social", Asset.REDIS, "20261122T000000Z-00000001"):
        results = by_asset(run(world, Asset.REDIS, Asset.SECRETS))
    assert results[Asset.SECRETS].state is JobState.DONE
    locked = results[Asset.REDIS]
    assert (locked.state, locked.exit_code) == (JobState.FAILED, 11)
    assert "20261122T000000Z-00000001" in (locked.error or "")
    assert attempts(world) == [(Asset.SECRETS, JobState.DONE)]
    assert run(world, Asset.REDIS)[0].state is JobState.DONE


def test_cancelled_means_stopped_and_removed(world: World) -> None:
    def cancel(step: str, done: int) -> None:
        if step == "copying files" and done > 100_000:
            threading.Thread(target=job.cancel).start()

    job = WatchedJob(cancel)
    with slow(world.lab, "social"):
        results = run(world, Asset.MEDIA, Asset.REDIS, job=job)
    assert [result.state for result in results] == [JobState.CANCELLED] * 2
    assert world.files() == []
    assert attempts(world) == [(Asset.REDIS, JobState.CANCELLED), (Asset.MEDIA, JobState.CANCELLED)]


def test_an_error_after_a_cancel_is_the_cancel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = WatchedJob()

    def end(context: BackupContext, writer: SnapshotWriter) -> Outcome:
        job.cancel()
        raise ConnectionFailed("the channel was closed")

    fake(monkeypatch, Asset.REDIS, end)
    assert run(world, Asset.REDIS, job=job)[0].state is JobState.CANCELLED


def test_history_can_be_made(world: World) -> None:
    at = datetime.now(UTC) - timedelta(days=3)
    result = run(world, Asset.REDIS, at=at)[0]
    assert result.snapshot
    assert at.strftime("%Y%m%dT%H%M%SZ") in result.snapshot
    catalog = Catalog(world.paths.cache_dir)
    assert abs(catalog.snapshots()[0].at - at) < timedelta(seconds=1)
    assert abs(catalog.attempts()[0].at - at) < timedelta(seconds=1)


def test_a_cache_that_cannot_be_used_is_no_reason_for_no_backup(world: World) -> None:
    world.paths.cache_dir.write_text("not a directory")
    job = WatchedJob()
    result = run(world, Asset.REDIS, job=job)[0]
    assert result.state is JobState.DONE
    assert any("note:" in line for line in job.lines)
    assert world.files()


@pytest.mark.parametrize("change", [{"encryption": {"recipients": []}}, {"vaults": {}}])
def test_what_is_missing_in_the_configuration(world: World, change: dict[str, dict[str, object]]) -> None:
    if "vaults" in change:
        text = world.paths.config_file.read_text()
        world.paths.config_file.write_text(text[: text.index("[vaults")] + '[hosts.social]\naddress = "local"\n')
    else:
        world.change(**change)
    results = run(world)
    assert {(result.state, result.exit_code) for result in results} == {(JobState.FAILED, 2)}
    assert all(result.next_step for result in results)


def test_plans_show_what_cannot_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, Asset.REDIS)
    plans = {each.asset: each for each in plan(world.config, "social", list(Asset))}
    assert plans[Asset.REDIS].blocked == "no plan for this one"
    assert any("pg_dump" in step.command for step in plans[Asset.DATABASE].steps)
    assert world.files() == []
    with pytest.raises(MastovaultError):
        plan(world.config, "nosuch", [Asset.REDIS])


def test_passwords_are_asked_for_once_and_refused_ones_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    kept: list[line.Ask] = []

    def ask(prompt: str) -> Secret | None:
        asked.append(prompt)
        return Secret(f"answer {len(asked)}")

    def refuse(*_: object, ask: line.Ask) -> None:
        kept.append(ask)
        raise ConnectionFailed("away")

    monkeypatch.setattr(link, "open_connection", refuse)
    made = link.Link("social", world.config.hosts["social"])
    with pytest.raises(ConnectionFailed):
        made.get(lambda line: None, lambda seconds: None, ask)
    first, second, third = kept
    assert first("Password") == second("Password") == Secret("answer 1")
    assert second("Password") == third("Password") == Secret("answer 2")
    assert first("Passphrase") == Secret("answer 3")
    assert asked == ["Password", "Password", "Passphrase"]
    with pytest.raises(ConnectionFailed, match="away"):
        made.get(lambda line: None, lambda seconds: None, ask)
    assert len(kept) == line.ATTEMPTS


def test_a_cancelled_job_does_not_answer_for_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, ask: line.Ask) -> None:
        raise LoginRefused("nobody typed a password")

    def cancelled(seconds: float) -> None:
        raise Cancelled

    monkeypatch.setattr(link, "open_connection", refuse)
    made = link.Link("social", world.config.hosts["social"])
    with pytest.raises(Cancelled):
        made.get(lambda line: None, cancelled, None)
    with pytest.raises(LoginRefused):
        made.get(lambda line: None, lambda seconds: None, None)
