"""Prunes, good and bad: what must stay stays whole, what may go goes in the end, and nothing listed is ever torn."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.layout import HOSTS, manifest_key, snapshot_prefix
from backends.catalog import Catalog, record_check
from backends.config.schema import VaultConfig
from backends.model import Asset, JobResult, JobState
from backends.operations import prune
from backends.operations.leases import hold_vaults
from backends.operations.prune import plan_prune, prune_host
from backends.operations.prune_packs import Unsure, referred
from backends.progress import Job, QuietJob
from backends.vault.base import Vault, VaultLook
from backends.vault.directory import DirectoryVault
from backends.vault.open import open_vault
from tests.contract.append_only import AppendOnlyVault
from tests.contract.faulty import ANY, FaultyVault
from tests.contract.lagging import LaggingVault
from tests.contract.passing import PassingVault
from tests.contract.skewed import SkewedVault
from tests.sync_world import HOST, SyncWorld, is_whole

RUN = "20261123T000000Z-social-0000"
POLICY = {"last": 2, "after_backup": False}
ALL = tuple(Asset)


def age(place: Path, days: float = 3) -> None:
    """Let everything below a place be that old, as the vault's clock counts."""
    then = time.time() - days * 86400
    for path in place.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def fill(world: SyncWorld, *names: str) -> list[str]:
    """Four databases, four media that share packs two by two, secrets; returns what is to stay."""
    stay = []
    for days in (4, 3, 2, 1):
        made = world.back_up(*names, age=days, data=b"d" * 3000)
        stay += [made.id] if days < 3 else []
    for days in (4, 2):
        first = world.back_up(*names, asset=Asset.MEDIA, age=days, shared=[f"a{days}", f"b{days}"], data=b"m" * 900)
        last = world.back_up(*names, asset=Asset.MEDIA, age=days - 1, refer=first.objects[1:], data=b"i" * 500)
        stay += [first.id, last.id] if days == 2 else []
    stay.append(world.back_up(*names, asset=Asset.SECRETS, age=9).id)
    return sorted(stay)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyncWorld, list[str]]:
    world = SyncWorld(tmp_path_factory.mktemp("made"), ("one",), retention=POLICY)
    stay = fill(world, "one")
    age(world.place / "one")
    return world, stay


@pytest.fixture
def world(made: tuple[SyncWorld, list[str]], tmp_path: Path) -> SyncWorld:
    return fresh(made[0], tmp_path)


@pytest.fixture
def stay(made: tuple[SyncWorld, list[str]]) -> list[str]:
    return made[1]


def fresh(made: SyncWorld, place: Path) -> SyncWorld:
    shutil.copytree(made.place / "one", place / "one")
    return SyncWorld(place, ("one",), retention=POLICY)


@contextmanager
def through(made: Callable[[Vault], Vault]) -> Iterator[None]:
    """Open the vaults of a prune through a wrapper."""

    def opening(name: str, config: VaultConfig) -> Vault:
        return made(open_vault(name, config))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune, "open_vault", opening)
        yield


def run(world: SyncWorld, *assets: Asset, job: Job | None = None) -> list[JobResult]:
    jobs: dict[Asset, Job] = {asset: job or QuietJob() for asset in assets or ALL}
    return prune_host(world.config, world.paths, HOST, jobs, RUN)


def packs(world: SyncWorld) -> set[str]:
    return {path.name for path in (world.place / "one" / HOSTS / HOST / "media/packs").glob("*")}


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


def test_a_backup_and_a_prune_at_once(world: SyncWorld) -> None:
    """Backups take the lease as they do; whatever the order, nothing that is listed is torn."""
    made: list[str] = []

    def back_up() -> None:
        for number in range(6):
            with suppress(Exception), hold_vaults([world.directory("one")], HOST, Asset.MEDIA, "r2", wait=5):
                made.append(world.back_up("one", asset=Asset.MEDIA, age=-number / 1000, shared=[f"n{number}"]).id)

    thread = threading.Thread(target=back_up)
    thread.start()
    while thread.is_alive():
        run(world, Asset.MEDIA)
    thread.join()
    run(world, Asset.MEDIA)
    held = is_whole(world.directory("one"))
    assert set(made[-2:]) <= set(held)
    assert len(made) == 6


def faulty_prune(world: SyncWorld, stay: list[str], nth: int, *, after: bool, for_good: bool) -> FaultyVault:
    opened: list[FaultyVault] = []

    def faulty(vault: Vault) -> Vault:
        opened.append(FaultyVault(vault, ANY, nth, after=after, for_good=for_good))
        return opened[-1]

    with through(faulty):
        results = run(world, Asset.DATABASE, Asset.MEDIA)
    assert {result.state for result in results} <= {JobState.DONE, JobState.FAILED}
    assert set(stay) <= set(is_whole(world.directory("one")))
    return opened[0]


STEP = 1 if os.environ.get("MASTOVAULT_TEST_EVERY_STEP") else 8
"""Of the calls of a prune every eighth fails, in each way another eighth."""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, where to sync a file costs nothing."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as place:
        yield Path(place)


@pytest.mark.parametrize(("after", "for_good"), [(False, False), (False, True), (True, False), (True, True)])
def test_every_call_that_fails(made: tuple[SyncWorld, list[str]], memory: Path, after: bool, for_good: bool) -> None:
    original, stay = made
    nth, last = 1 + (2 * after + for_good) * STEP // 4, False
    while not last:
        place = memory / str(nth)
        place.mkdir()
        world = fresh(original, place)
        last = not faulty_prune(world, stay, nth, after=after, for_good=for_good).broken
        for path in (place / "one" / "leases").rglob("*.json"):  # another machine's would have to expire
            path.unlink()
        results = run(world)
        assert {(each.state, each.in_part) for each in results} == {(JobState.DONE, False)}, (nth, results)
        assert sorted(is_whole(world.directory("one"))) == stay, nth
        age(place / "one")
        run(world)
        assert packs(world) == {"a2.tar.age", "b2.tar.age"}, nth
        shutil.rmtree(place)
        nth += STEP


@pytest.mark.timeout(120)
def test_killed_at_any_moment(made: tuple[SyncWorld, list[str]], memory: Path) -> None:
    """200 prunes are killed; each goes on where the one before was, on one vault after another."""
    original, stay = made
    chance = random.Random(4)
    world, number, killed = fresh_in(original, memory / "0"), 0, 0
    while killed < 200:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                run(world, Asset.DATABASE, Asset.MEDIA)
            os._exit(0)
        time.sleep(chance.random() * 0.06)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        held = is_whole(world.directory("one"))
        assert set(stay) <= set(held), killed
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):  # it was through: begin anew
            assert sorted(held) == stay or set(stay) <= set(held)
            number += 1
            world = fresh_in(original, memory / str(number))
    for result in run(world):
        assert (result.state, result.in_part) == (JobState.DONE, False), result
    age(world.place / "one")
    run(world)
    assert sorted(is_whole(world.directory("one"))) == stay
    assert packs(world) == {"a2.tar.age", "b2.tar.age"}


def fresh_in(original: SyncWorld, place: Path) -> SyncWorld:
    place.mkdir()
    return fresh(original, place)


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
    from backends.archive.signing import load_signer, new_signing_key

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
