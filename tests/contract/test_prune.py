"""Prunes: what must stay stays whole, what may go goes, whoever else is at work."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.layout import HOSTS, manifest_key, snapshot_prefix
from backends.archive.reader import read_manifest
from backends.archive.signing import load_signer, new_signing_key
from backends.catalog import Catalog, record_check
from backends.errors import Cancelled
from backends.model import Asset, JobResult, JobState
from backends.operations import prune_plan
from backends.operations.leases import hold_vaults
from backends.operations.locks import hold
from backends.operations.prune import plan_prune, prune_after
from backends.operations.removal import Unsure, referred
from backends.progress import QuietJob
from backends.vault import lease
from backends.vault.base import Vault, VaultLook
from backends.vault.directory import DirectoryVault
from tests.contract.append_only import AppendOnlyVault
from tests.contract.faulty import FaultyVault
from tests.contract.lagging import LaggingVault
from tests.contract.passing import PassingVault
from tests.contract.skewed import SkewedVault
from tests.prune_world import POLICY, RUN, age, made, packs, run, stay, through, torn, world
from tests.sync_world import HOST, SyncWorld, is_whole

__all__ = ["made", "stay", "world"]


def test_what_goes_and_what_stays(world: SyncWorld, stay: list[str]) -> None:
    vault = world.directory("one")
    plan = plan_prune(world.config, world.paths, [HOST])
    assert {each.id for part in plan.parts for each in part.going}.isdisjoint(stay)
    before = sum(stored.bytes for stored in vault.list(HOSTS))
    results = run(world)
    assert {(result.state, result.in_part) for result in results} == {(JobState.DONE, False)}, results
    assert sorted(is_whole(vault)) == stay
    assert packs(world) == {"a2.tar.age", "b2.tar.age"}
    freed = before - sum(stored.bytes for stored in vault.list(HOSTS))
    manifests = freed - plan.bytes
    assert 0 < manifests < 20_000, "the plan counts objects, not manifests"
    assert sum(result.bytes for result in results) == pytest.approx(freed, abs=20_000)
    assert "removed 2 snapshots (2 from one)" in results[0].detail
    assert run(world)[0].detail == "nothing had to go"
    assert world.catalog().snapshots(HOST), "the catalogue knows"
    assert {each.id for each in world.catalog().snapshots(HOST)} == set(stay)


def test_a_host_that_is_not_configured_loses_nothing(world: SyncWorld) -> None:
    other = SyncWorld(world.place, ("one",), retention=POLICY, hosts={"other": {"address": "local"}})
    assert plan_prune(other.config, other.paths, ["social"]).count == 0


def test_the_youngest_leftovers_and_other_peoples_files_stay(world: SyncWorld, stay: list[str]) -> None:
    vault = world.directory("one")
    place = f"{HOSTS}{HOST}/database/20261101T000000Z-0000abcd/database.pgdump.age"
    old = f"{HOSTS}{HOST}/database/20261101T000000Z-0000abce/database.pgdump.age"
    unused = f"{HOSTS}{HOST}/media/packs/unused.tar.age"
    for key in (place, old, unused, "notes.txt", f"{HOSTS}{HOST}/database/notes.txt"):
        vault.put_new(key, b"x")
    (world.place / "one" / HOSTS / HOST / "database/.0123.part").write_bytes(b"torn")
    run(world)
    left = {stored.key for stored in vault.list()}
    assert {place, old, unused} <= left, "a run may be at work on them"
    age(world.place / "one")
    run(world)
    left = {stored.key for stored in vault.list()}
    assert not {place, old, unused} & left
    assert {"notes.txt", f"{HOSTS}{HOST}/database/notes.txt"} <= left
    assert not list((world.place / "one").rglob(".*.part"))
    assert sorted(is_whole(vault)) == stay


def test_old_records_of_attempts_go(world: SyncWorld) -> None:
    vault = world.directory("one")
    old, young = (f"{HOSTS}{HOST}/runs/{year}0101T000000Z-0000abcd.json" for year in (2020, datetime.now(UTC).year))
    for key in (old, young):
        vault.put_new(key, b"{}")
    age(world.place / "one" / HOSTS / HOST / "runs", 500)
    run(world)
    assert [stored.key for stored in vault.list(f"{HOSTS}{HOST}/runs/")] == [young]


def test_a_manifest_that_cannot_be_read_keeps_every_pack(world: SyncWorld) -> None:
    vault = world.directory("one")
    key = f"{HOSTS}{HOST}/media/20261101T000000Z-0000abcd/manifest.json"
    vault.put_new(key, b'{"format": 9, "id": "later"}')
    age(world.place / "one")
    before = packs(world)
    results = run(world)
    media = next(result for result in results if result.asset is Asset.MEDIA)
    assert (media.state, media.in_part) == (JobState.DONE, True)
    assert "packs stay in one" in media.warnings[0]
    assert packs(world) == before
    assert key in {stored.key for stored in vault.list()}
    with pytest.raises(Unsure, match="newer Mastovault"):
        referred(vault, HOST, ())


def test_a_changed_manifest_keeps_every_pack(world: SyncWorld) -> None:
    changed = world.back_up("one", asset=Asset.MEDIA, age=5, shared=["c5"])
    path = world.place / "one" / manifest_key(changed.id)
    path.write_text(path.read_text().replace("c5.tar.age", "c9.tar.age"))
    age(world.place / "one")
    before = packs(world)
    media = next(result for result in run(world) if result.asset is Asset.MEDIA)
    assert (media.state, media.in_part) == (JobState.DONE, True)
    assert "packs stay in one" in media.warnings[0]
    assert "was changed after it was written" in media.warnings[0]
    assert packs(world) == before, "whether it needs c5 nobody can tell"
    path.unlink()
    run(world)
    assert packs(world) == {"a2.tar.age", "b2.tar.age"}


def test_credentials_that_may_not_delete(world: SyncWorld) -> None:
    before = world.content("one")
    with through(lambda vault: AppendOnlyVault(vault, replaces=True)):
        results = run(world)
    assert world.content("one") == before
    assert (results[0].state, results[0].in_part) == (JobState.DONE, True)
    assert "may not delete" in results[0].warnings[0]


class Locked(PassingVault):
    """Everything is under an Object Lock."""

    until = datetime.now(UTC) + timedelta(days=30)

    def look(self) -> VaultLook:
        return VaultLook(object_lock="governance, 30 days")

    def locked_until(self, key: str) -> datetime | None:
        return self.until


def test_an_object_lock_is_kept(world: SyncWorld) -> None:
    before = set(is_whole(world.directory("one")))
    with through(Locked):
        assert {result.state for result in run(world)} == {JobState.DONE}
    assert set(is_whole(world.directory("one"))) == before
    assert packs(world) >= {"a4.tar.age", "a2.tar.age"}


@pytest.mark.parametrize("days", [-2, 2])
def test_a_clock_that_is_two_days_wrong(world: SyncWorld, stay: list[str], days: int) -> None:
    young = f"{HOSTS}{HOST}/media/packs/young.tar.age"
    world.directory("one").put_new(young, b"x")
    with through(lambda vault: SkewedVault(vault, timedelta(days=days))):
        run(world)
    held = set(is_whole(world.directory("one")))
    assert set(stay) <= held
    assert young in {stored.key for stored in world.directory("one").list()}, "judged by the vault's clock"


def test_a_listing_that_lags(world: SyncWorld, stay: list[str]) -> None:
    """A manifest that is not listed yet, of a snapshot whose packs are old: a very long run."""
    lagging = LaggingVault(world.directory("one"), 3600, prefix=HOSTS)
    with hold_vaults([lagging], HOST, Asset.MEDIA, RUN) as held:
        source = world.back_up("one", asset=Asset.MEDIA, age=0.5, shared=["late"])
        held.wrote(source.id)
    age(world.place / "one" / HOSTS)
    for stored in list(world.directory("one").list(f"{HOSTS}{source.id}/")):
        lagging.note(stored.key)
    assert manifest_key(source.id) not in {stored.key for stored in lagging.list()}
    with through(lambda _vault: lagging):
        run(world, Asset.MEDIA)
    assert source.id in is_whole(world.directory("one"))
    assert "late.tar.age" in packs(world)


def test_what_is_being_backed_up_is_left_alone(world: SyncWorld) -> None:
    before = world.content("one")
    with hold_vaults([world.directory("one")], HOST, Asset.DATABASE, "another-run"):
        result = run(world, Asset.DATABASE)[0]
    assert (result.state, result.exit_code) == (JobState.FAILED, 11)
    assert "another-run" in (result.error or "")
    assert world.content("one") == before


def test_two_machines_prune_at_once(world: SyncWorld, stay: list[str]) -> None:
    """They share nothing but the vault."""
    other = SyncWorld(world.place, ("one",), retention=POLICY)
    other.paths = type(other.paths)(world.place / "o.toml", world.place / "o-state", world.place / "o-cache")
    found: list[JobResult] = []
    threads = [threading.Thread(target=lambda its=its: found.extend(run(its))) for its in (world, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result.state is JobState.DONE or result.exit_code == 11 for result in found), found
    assert set(stay) <= set(is_whole(world.directory("one")))
    run(world)
    assert sorted(is_whole(world.directory("one"))) == stay


def test_a_backup_and_a_prune_at_once(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backup reuses the packs of the oldest snapshot, which goes next; nothing that is listed is torn."""
    monkeypatch.setattr(lease, "_FIRST_PAUSE", 0.01)
    vault = world.directory("one")
    made: list[str] = []

    def back_up() -> None:
        for number in range(6):
            with hold_vaults([vault], HOST, Asset.MEDIA, "r2", wait=10):
                oldest = next(each for each in is_whole(vault) if "/media/" in each)
                old = [entry for entry in read_manifest(vault, oldest).objects if entry.key]
                moment = -number / 1000
                made.append(world.back_up("one", asset=Asset.MEDIA, age=moment, shared=[f"n{number}"], refer=old).id)

    thread = threading.Thread(target=back_up)
    thread.start()
    while thread.is_alive():
        run(world, Asset.MEDIA)
        thread.join(0.03)
    run(world, Asset.MEDIA)
    held = is_whole(world.directory("one"))
    assert set(made[-2:]) <= set(held)
    assert len(made) == 6


def test_a_damaged_copy_is_judged_in_its_own_vault(tmp_path: Path) -> None:
    world = SyncWorld(tmp_path, ("one", "two"), retention={"last": 1, "after_backup": False})
    older = world.back_up("one", "two", age=2)
    newer = world.back_up("one", "two", age=1)
    vault: Vault = world.directory("one")
    assert record_check([vault], newer.id, "verified", datetime.now(UTC), False, {}) == {}
    run(world, Asset.DATABASE)
    assert is_whole(world.directory("one")) == [older.id], "there the older one is the last good one"
    assert is_whole(world.directory("two")) == [newer.id]


def test_what_somebody_put_there_stays(tmp_path: Path) -> None:

    ours, theirs = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    signers = {"us": new_signing_key(ours)}
    new_signing_key(theirs)
    world = SyncWorld(tmp_path, ("one",), retention={"last": 1, "after_backup": False}, signers=signers)
    kept = world.back_up("one", age=3, sign=load_signer(ours))
    gone = world.back_up("one", age=4, sign=load_signer(ours))
    planted = [world.back_up("one", age=number / 10, sign=load_signer(theirs)).id for number in range(3)]
    run(world, Asset.DATABASE)
    held = is_whole(world.directory("one"))
    assert set(held) == {kept.id, *planted}
    assert gone.id not in held
    assert snapshot_prefix(gone.id) not in "".join(stored.key for stored in world.directory("one").list())


def test_the_cache_is_of_the_vault(world: SyncWorld) -> None:
    """Pruned on the word of a fresh look, not on that of an old cache."""
    catalog = Catalog(world.paths.cache_dir)
    catalog.refresh_vault(DirectoryVault("one", world.place / "one"))
    newest = world.back_up("one", age=0.1)
    run(world, Asset.DATABASE)
    assert newest.id in is_whole(world.directory("one"))


def both(place: Path, last: int = 1) -> SyncWorld:
    """Two vaults that hold nothing yet."""
    return SyncWorld(place, ("one", "two"), retention={"last": last, "after_backup": False})


def test_secrets_stay_for_a_database_that_only_another_vault_holds(tmp_path: Path) -> None:
    world = both(tmp_path)
    fitting = world.back_up("one", asset=Asset.SECRETS, age=9, run="r9")
    database = world.back_up("two", age=8, run="r8")
    for days in (3, 2):
        world.back_up("one", "two", asset=Asset.SECRETS, age=days, run=f"r{days}")
    run(world)
    assert fitting.id in is_whole(world.directory("one"))
    assert database.id in is_whole(world.directory("two"))
    gone = world.back_up("two", age=0.5, run="r0")
    run(world)
    run(world, Asset.SECRETS)  # which nobody needs any more
    assert fitting.id not in is_whole(world.directory("one"))
    assert gone.id in is_whole(world.directory("two"))


def test_secrets_stay_for_a_database_whose_manifest_cannot_be_read(tmp_path: Path) -> None:
    world = both(tmp_path)
    fitting = world.back_up("one", asset=Asset.SECRETS, age=9, run="r9")
    database = world.back_up("one", age=8, run="r8")
    world.back_up("one", age=1, run="r1")
    world.back_up("one", asset=Asset.SECRETS, age=2, run="r2")
    (tmp_path / "one" / manifest_key(database.id)).write_bytes(b'{"format": 2}')
    plan = plan_prune(world.config, world.paths, [HOST])
    assert database.id in plan.notes[0]
    run(world)
    assert manifest_key(fitting.id) in {stored.key for stored in world.directory("one").list()}
    assert manifest_key(database.id) in {stored.key for stored in world.directory("one").list()}


def test_foreign_files_are_counted_and_stay(world: SyncWorld) -> None:
    vault = world.directory("one")
    foreign = {f"{HOSTS}{HOST}/{name}" for name in ("media/notes.txt", "media/packs/readme.md", "media/2026/a.age")}
    for key in foreign:
        vault.put_new(key, b"x")
    age(world.place / "one")
    result = run(world, Asset.MEDIA)[0]
    assert foreign <= {stored.key for stored in vault.list()}
    assert "3 files that Mastovault did not write stay" in result.detail


def test_a_plan_knows_of_object_locks(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    free = plan_prune(world.config, world.paths, [HOST])
    assert free.count > 0 < free.bytes
    monkeypatch.setattr(prune_plan, "open_vault", lambda name, _config: Locked(world.directory(name)))
    plan = plan_prune(world.config, world.paths, [HOST])
    assert (plan.count, plan.bytes) == (0, 0)
    why = [verdict.why for part in plan.parts for verdict in part.verdicts]
    assert sum("under an Object Lock until" in reason for reasons in why for reason in reasons) == free.count


class LockedPacks(PassingVault):
    """The lock of packs and checks ends later than that of the snapshots."""

    def look(self) -> VaultLook:
        return VaultLook(note="the settings may not be asked")

    def locked_until(self, key: str) -> datetime | None:
        return Locked.until if "/packs/" in key or "/checks/" in key else None


def test_what_nobody_needs_stays_for_its_own_lock(world: SyncWorld, stay: list[str]) -> None:
    directory: Vault = world.directory("one")
    going = next(each for each in is_whole(directory) if each not in stay)
    assert record_check([directory], going, "verified", datetime.now(UTC), True, {}) == {}
    with through(LockedPacks):
        results = run(world)
    assert sorted(is_whole(directory)) == stay
    assert packs(world) >= {"a4.tar.age", "b4.tar.age"}
    assert "under an Object Lock stay for now" in " ".join(result.detail for result in results)
    age(world.place / "one" / HOSTS)
    run(world)
    assert packs(world) == {"a2.tar.age", "b2.tar.age"}
    assert not list((world.place / "one" / HOSTS).rglob("checks"))


def test_a_restore_here_keeps_its_asset(world: SyncWorld) -> None:
    before = world.content("one")
    with hold(world.paths.state_dir, HOST, Asset.DATABASE, "r7", "restored"):
        result = run(world, Asset.DATABASE)[0]
    assert (result.state, result.exit_code) == (JobState.FAILED, 11)
    assert "being restored" in (result.error or "")
    assert world.content("one") == before


def test_nothing_goes_of_a_host_that_was_forgotten(world: SyncWorld) -> None:
    other = SyncWorld(world.place, ("one",), retention=POLICY, hosts={"other": {"address": "local"}})
    before = world.content("one")
    results = run(other)
    assert {(result.state, result.exit_code) for result in results} == {(JobState.FAILED, 2)}
    assert world.content("one") == before


def test_without_the_clock_of_the_vault_nothing_is_judged(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.Lease, "knows_time", False)
    before = world.content("one")
    result = run(world, Asset.DATABASE)[0]
    assert result.state is JobState.FAILED
    assert "has not shown its clock" in (result.error or "")
    assert world.content("one") == before


def test_what_a_sync_wrote_last_is_asked_for(world: SyncWorld) -> None:
    """It is not listed yet, and the cache has never seen it; the lease of the syncs alone remembers it."""
    lagging = LaggingVault(world.directory("one"), 3600, prefix=HOSTS)
    late = world.back_up("one", asset=Asset.MEDIA, age=0.5, shared=["late"])
    with hold_vaults([lagging], HOST, Asset.MEDIA, RUN, kind="sync") as held:
        held.wrote(late.id)
    age(world.place / "one" / HOSTS)
    lagging.note(manifest_key(late.id))
    assert manifest_key(late.id) not in {stored.key for stored in lagging.list()}
    with through(lambda _vault: lagging):
        run(world, Asset.MEDIA)
    assert late.id in is_whole(world.directory("one"))
    assert "late.tar.age" in packs(world)


def after(world: SyncWorld, vault: Vault, asset: Asset = Asset.DATABASE, *, refresh: bool = True) -> tuple[str, ...]:
    """Prune as a backup does which has just succeeded; what was logged."""
    said: list[str] = []
    catalog = world.catalog()
    if refresh:
        catalog.refresh_vault(vault)
    with hold_vaults([vault], HOST, asset, RUN) as held:
        result = prune_after(world.config, [vault], HOST, asset, held.leases, catalog, said.append, run=RUN)
    assert all(problem in " ".join(said) for problem in result.problems)
    return tuple(said)


def test_after_a_backup_its_asset_is_pruned(world: SyncWorld, stay: list[str]) -> None:
    said = after(world, world.directory("one"))
    left = is_whole(world.directory("one"))
    assert {each for each in left if "/database/" in each} == {each for each in stay if "/database/" in each}
    assert len([each for each in left if "/media/" in each]) == 4
    assert "removed 2 snapshots" in said[-1]


def test_after_a_backup_a_fault_is_a_note(world: SyncWorld) -> None:
    before = world.content("one")
    directory = world.directory("one")
    assert after(world, directory, refresh=False)[0].startswith("note: one was not pruned: not looked at yet")
    assert "may not delete in one" in after(world, AppendOnlyVault(directory, replaces=True))[0]
    with hold_vaults([directory], HOST, Asset.DATABASE, "r8", "copied", kind="sync"):
        assert "note: one is not pruned now" in after(world, directory)[0]
    broken = FaultyVault(directory, "delete", 1)
    assert "note: one was not pruned: delete failed" in " ".join(after(world, broken))
    assert world.content("one") == before


def test_after_a_backup_an_old_cache_decides_nothing(world: SyncWorld) -> None:
    """The look at the vault has failed: what the cache knows may be long past."""
    catalog = world.catalog()
    catalog.refresh_vault(world.directory("one"))
    assert catalog.refresh_vault(FaultyVault(world.directory("one"), "list", 1)).error
    before = world.content("one")
    assert "note: one was not pruned: list failed" in after(world, world.directory("one"), refresh=False)[0]
    assert world.content("one") == before


class Stop(QuietJob):
    """Cancelled after so many snapshots."""

    def __init__(self, count: int) -> None:
        self.left = count

    def advance(self, amount: int) -> None:
        self.left -= amount

    def check_cancelled(self) -> None:
        if self.left <= 0:
            raise Cancelled


def test_cancelled_between_two_snapshots(world: SyncWorld, stay: list[str]) -> None:
    result = run(world, Asset.DATABASE, job=Stop(1))[0]
    assert result.state is JobState.CANCELLED
    assert "removed 1 snapshot" in result.detail
    assert not torn(world), "what was begun is finished"
    assert set(stay) <= set(is_whole(world.directory("one")))
