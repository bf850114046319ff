"""Filling a vault from others: what is copied, from where, in which order, and what is said of the rest."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backends import retention
from backends.archive.layout import manifest_key, snapshot_prefix
from backends.archive.manifest import Manifest
from backends.archive.signing import load_signer, new_signing_key
from backends.archive.writer import begin_snapshot
from backends.catalog import record_attempt, record_check
from backends.config.schema import Config, Encryption, VaultConfig
from backends.errors import Cancelled, ConfigurationError, VaultError
from backends.model import Asset, Attempt, JobState, SnapshotInfo
from backends.operations import sync_plan
from backends.operations.leases import hold_vaults
from backends.operations.sync import plan_sync
from backends.progress import QuietJob
from backends.retention import Verdict
from backends.vault.base import Vault
from backends.vault.open import open_vault
from tests.contract.faulty import FaultyVault
from tests.sync_world import HOST, NOW, RECIPIENT, SyncWorld, is_whole


@pytest.fixture
def world(tmp_path: Path) -> SyncWorld:
    return SyncWorld(tmp_path)


class Listening(QuietJob):
    """Remembers what it is told, and can be told to stop."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.total: int | None = None
        self.done = 0
        self._left = stop_after

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        if name.startswith("copying") and unit == "bytes":
            self.total = total

    def advance(self, amount: int) -> None:
        self.done += amount

    def log(self, line: str) -> None:
        self.lines.append(line)

    def check_cancelled(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Cancelled


def object_path(world: SyncWorld, name: str, manifest: Manifest, number: int = 0) -> Path:
    entry = manifest.objects[number]
    return world.place / name / (entry.key or snapshot_prefix(manifest.id) + entry.name)


def test_what_is_lacking_is_copied_newest_first(world: SyncWorld) -> None:
    made = [world.back_up("one", age=age) for age in (1, 3)] + [world.back_up("two", age=2)]
    both = world.back_up("one", "two", "target", age=0.5)
    job = Listening()
    result = world.sync(job=job)
    newest_first = sorted((each.id for each in made), reverse=True)
    assert (result.state, result.in_part, result.vaults) == (JobState.DONE, False, ("target",))
    assert result.detail == "3 snapshots copied to target"
    assert result.bytes == sum(each.bytes for each in made) == job.total == job.done
    assert [line.removeprefix("copied ") for line in job.lines] == newest_first
    target = world.directory("target")
    assert sorted(is_whole(target)) == sorted([both.id, *newest_first])
    for manifest, name in zip(made, ("one", "one", "two"), strict=True):
        key = manifest_key(manifest.id)
        assert target.read(key).read() == world.directory(name).read(key).read(), "byte for byte"
    assert {info.vaults for info in world.catalog().snapshots()} >= {("one", "target"), ("target", "two")}
    again = world.sync()
    assert (again.detail, again.bytes, again.snapshot) == ("target lacks nothing", 0, None)


def test_the_plan_is_what_is_done(world: SyncWorld) -> None:
    first = world.back_up("one", asset=Asset.MEDIA, age=2, shared=["a", "b"])
    second = world.back_up("one", asset=Asset.MEDIA, age=1, refer=first.objects[1:], shared=["c"])
    world.back_up("one", age=1)
    plan = plan_sync(world.config, world.paths, [HOST], None, "target")
    assert not (world.place / "target").exists()
    assert [item.snapshot.asset for item in plan.items] == [Asset.DATABASE, Asset.MEDIA, Asset.MEDIA]
    media = {entry.key or manifest.id: entry.bytes for manifest in (first, second) for entry in manifest.objects}
    assert (plan.pairs[1].snapshots, plan.pairs[1].bytes) == (2, sum(media.values())), "shared objects count once"
    assert plan.fits
    result = world.sync(assets=[Asset.MEDIA])
    assert result.bytes == plan.pairs[1].bytes
    assert [pair.asset for pair in plan_sync(world.config, world.paths, [HOST], "one", "target").pairs] == [
        Asset.DATABASE
    ]


def test_one_source_can_be_named(world: SyncWorld) -> None:
    mine, other = world.back_up("one"), world.back_up("two", age=1)
    result = world.sync(source="two")
    assert (result.state, result.in_part) == (JobState.DONE, False)
    assert is_whole(world.directory("target")) == [other.id]
    assert mine.id not in str(result)


def test_records_come_along(world: SyncWorld) -> None:
    made = world.back_up("one", asset=Asset.SECRETS, age=1)
    one = [world.directory("one")]
    for hours, kind in enumerate(("unchanged", "verified", "drilled")):
        record_check(one, made.id, kind, NOW + timedelta(minutes=hours), True, {"restore_seconds": 5})  # type: ignore[arg-type]
    for number, asset in enumerate((Asset.SECRETS, Asset.SECRETS, Asset.MEDIA)):
        at = NOW + timedelta(minutes=number)
        record_attempt(one, Attempt(host=HOST, asset=asset, run="r", at=at, seconds=1, state=JobState.FAILED))
    world.sync(assets=[Asset.SECRETS])
    kinds = [
        json.loads(path.read_bytes())["kind"]
        for path in (world.place / "target" / snapshot_prefix(made.id) / "checks").iterdir()
    ]
    assert sorted(kinds) == ["drilled", "unchanged"], "a verification is of the vault that was read"
    assert len(list((world.place / "target/hosts" / HOST / "runs").iterdir())) == 2
    world.sync(assets=[Asset.SECRETS])
    assert len(list((world.place / "target/hosts" / HOST / "runs").iterdir())) == 2


@pytest.mark.parametrize("harm", ["flipped", "truncated", "deleted"])
@pytest.mark.parametrize("other", [True, False])
def test_damaged_copies_are_not_copied(world: SyncWorld, harm: str, other: bool) -> None:
    sound = world.back_up("one", age=3)
    made = world.back_up(*(["one", "two"] if other else ["one"]), data=b"z" * 3_000_000)
    path = object_path(world, "one", made)
    data = bytearray(path.read_bytes())
    if harm == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data if harm == "flipped" else data[:-7])
    if harm == "deleted":
        path.unlink()
    job = Listening()
    result = world.sync(job=job)
    seen_at_once = harm != "flipped"  # its length gives it away
    assert (result.state, result.in_part) == (JobState.DONE, not (seen_at_once and other))
    refused = sum(f"the copy of {made.id} in one was not copied" in line for line in job.lines)
    assert refused == (0 if seen_at_once else 1)
    assert sorted(is_whole(world.directory("target"))) == sorted([made.id, sound.id] if other else [sound.id])
    info = next(info for info in world.catalog().snapshots() if info.id == made.id)
    assert info.damaged == ("one",)
    assert info.verify_failed is not other
    assert bool(info.torn) is seen_at_once
    if other:
        assert result.bytes == job.done
        assert "target" in info.vaults
        assert not world.sync().in_part
    else:
        assert any(made.id in warning for warning in result.warnings)
        assert not [key for key in world.content("target") if made.id in key], "nothing half of it"


def test_a_damaged_copy_in_the_target_is_mended(world: SyncWorld) -> None:
    made = world.back_up("one", "target", asset=Asset.MEDIA, shared=["a"])
    path = object_path(world, "target", made, 1)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\0")
    record_check([world.directory("target")], made.id, "verified", NOW, False, {"whole": True})
    plan = plan_sync(world.config, world.paths, [HOST], None, "target")
    assert [item.repair for item in plan.items] == [True]
    result = world.sync(assets=[Asset.MEDIA])
    assert (result.state, result.bytes) == (JobState.DONE, made.objects[1].bytes)
    assert path.read_bytes() == good
    (info,) = world.catalog().snapshots()
    assert (info.vaults, info.damaged) == (("one", "target"), ())


@pytest.mark.parametrize("harm", ["truncated", "deleted", "grown"])
def test_a_torn_copy_in_the_target_is_mended_without_a_verification(world: SyncWorld, harm: str) -> None:
    made = world.back_up("one", "target", asset=Asset.MEDIA, shared=["a"])
    path = object_path(world, "target", made, 1)
    good = path.read_bytes()
    if harm == "deleted":
        path.unlink()
    else:
        path.write_bytes(good[:-1] if harm == "truncated" else good + b"more")
    plan = plan_sync(world.config, world.paths, [HOST], None, "target")
    assert [item.repair for item in plan.items] == [True]
    result = world.sync(assets=[Asset.MEDIA])
    assert result.state is JobState.DONE
    assert path.read_bytes() == good
    (info,) = world.catalog().snapshots()
    assert (info.vaults, info.damaged, info.torn) == (("one", "target"), (), "")


def test_only_trusted_snapshots_unless_asked(world: SyncWorld, tmp_path: Path) -> None:
    public = new_signing_key(tmp_path / "key.pem")
    signed = world.back_up("one", age=1, sign=load_signer(tmp_path / "key.pem"))
    unsigned = world.back_up("one", age=2)
    config = world.config.model_copy(update={"signers": {"ops": public}})
    job = Listening()
    result = world.sync(job=job, config=config)
    assert is_whole(world.directory("target")) == [signed.id]
    assert (result.state, result.in_part) == (JobState.DONE, False)
    assert f"not copied: {unsigned.id}: it is not signed: nobody can tell who wrote it" in job.lines
    assert "1 left out" in result.detail
    world.sync(config=config, everything=True)
    assert len(is_whole(world.directory("target"))) == 2


def test_a_manifest_that_was_changed_in_the_target(world: SyncWorld) -> None:
    made = world.back_up("one", "target")
    path = world.place / "target" / manifest_key(made.id)
    path.write_bytes(path.read_bytes().replace(b'"rows": 3', b'"rows": 4'))
    result = world.sync()
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert "another manifest" in result.warnings[0]


def test_what_the_next_prune_removes_is_not_copied(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [world.back_up("one", age=age) for age in (1, 2, 3)]

    def judge(
        snapshots: Sequence[SnapshotInfo], config: Config, host: str, now: datetime, **_: object
    ) -> list[Verdict]:
        assert all(info.vaults == ("target",) for info in snapshots)
        return [Verdict(snapshot=info, keep=info.id != made[1].id, why=("",)) for info in snapshots]

    monkeypatch.setattr(retention, "judge", judge)
    job = Listening()
    result = world.sync(job=job)
    assert sorted(is_whole(world.directory("target"))) == sorted([made[0].id, made[2].id])
    assert not result.in_part
    assert f"not copied: {made[1].id}: the next prune would remove it" in job.lines


def test_two_at_once(world: SyncWorld) -> None:
    world.back_up("one")
    world.back_up("target", age=9)
    with hold_vaults([world.directory("target")], HOST, Asset.DATABASE, "other", "copied", kind="sync"):
        result = world.sync()
    assert (result.state, result.exit_code) == (JobState.FAILED, 11)
    assert "run other" in str(result.error)
    assert world.sync().state is JobState.DONE
    assert len(is_whole(world.directory("target"))) == 2


def test_backups_go_on_meanwhile(world: SyncWorld) -> None:
    older = world.back_up("one", "target", asset=Asset.MEDIA, age=2, shared=["a"])
    lacking = world.back_up("one", asset=Asset.MEDIA, age=1, shared=["b"], refer=older.objects[1:])
    target = world.directory("target")
    with hold_vaults([target], HOST, Asset.MEDIA, "backup") as held:
        backup = begin_snapshot([target], host=HOST, asset=Asset.MEDIA, run="r2", recipients=[RECIPIENT])
        backup.write("index", io.BytesIO(b"x"), compress=False)
        backup.refer(older.objects[1:])
        assert world.sync(assets=[Asset.MEDIA]).state is JobState.DONE
        held.check(target)
        backup.commit({})
    assert sorted(is_whole(target)) == sorted([older.id, lacking.id, backup.id])


@pytest.mark.parametrize("after", [0, 3, 6, 9])
def test_cancel(world: SyncWorld, after: int) -> None:
    for age in (1, 2):
        world.back_up("one", age=age, data=b"q" * 3_000_000)
    result = world.sync(job=Listening(stop_after=after))
    assert (result.state, result.exit_code) == (JobState.CANCELLED, 130)
    held = is_whole(world.directory("target"))
    assert len(held) < 2
    assert not list((world.place / "target").rglob("*.part"))
    assert world.sync().state is JobState.DONE
    assert len(is_whole(world.directory("target"))) == 2


def test_a_source_that_goes_away(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [world.back_up("one", "two", age=age) for age in range(1, 8)]

    def opening(name: str, config: VaultConfig) -> Vault:
        vault = open_vault(name, config)
        return FaultyVault(vault, "read", 12, for_good=True) if name == "one" else vault

    monkeypatch.setattr(sync_plan, "open_vault", opening)
    result = world.sync()
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert sorted(is_whole(world.directory("target"))) == sorted(each.id for each in made)
    assert any("the vault one could not be read" in text for text in result.warnings)


def test_vaults_that_cannot_be_used(world: SyncWorld) -> None:
    world.back_up("one")
    for source, target in ((None, "nowhere"), ("nowhere", "target"), ("one", "one")):
        with pytest.raises(ConfigurationError):
            plan_sync(world.config, world.paths, [HOST], source, target)
    world.sync()
    (world.place / "target").rename(world.place / "unmounted")
    (world.place / "target").mkdir()
    with pytest.raises(VaultError):
        plan_sync(world.config, world.paths, [HOST], None, "target")
    result = world.sync()
    assert (result.state, result.exit_code) == (JobState.FAILED, 1)
    assert "any more" in str(result.error)
    only = world.config.model_copy(update={"vaults": {"one": world.config.vaults["one"]}})
    assert "no other vault" in str(world.sync("one", config=only).error)


def test_a_machine_without_any_key_can_sync(world: SyncWorld) -> None:
    """Nothing is decrypted or encrypted; a new vault says what the other one says of who can read it."""
    world.back_up("one")
    config = world.config.model_copy(update={"encryption": Encryption()})
    assert world.sync(config=config).state is JobState.DONE
    said = json.loads((world.place / "target" / "mastovault.json").read_bytes())
    assert said["recipients"] == [RECIPIENT]
