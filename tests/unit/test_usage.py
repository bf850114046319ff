"""What vaults hold and how it grew; how a vault is, in a word; and which vault holds which snapshot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.archive.layout import manifest_key
from backends.catalog import record_check
from backends.catalog.usage import DAYS, VaultUsage, filled, full_at, growth, together
from backends.config.schema import DirectoryVault as DirectoryConfig
from backends.config.schema import VaultConfig
from backends.errors import VaultError
from backends.model import Asset, Trust, utc_now
from backends.operations.fleet import refresh_vaults
from backends.operations.storage import CopyState, StorageState, copies, storage
from backends.vault import open as opening
from backends.vault.base import StoredObject, Vault, VaultLook
from tests.contract.lagging import LaggingVault
from tests.contract.passing import PassingVault
from tests.sync_world import HOST, NOW, RECIPIENT, SyncWorld


@pytest.fixture
def world(tmp_path: Path) -> SyncWorld:
    return SyncWorld(tmp_path)


def test_bytes_by_host_and_asset(world: SyncWorld) -> None:
    first = world.back_up("one", "two", asset=Asset.MEDIA, age=2, shared=["a", "b"])
    second = world.back_up("one", asset=Asset.MEDIA, age=1, refer=first.objects[1:])
    database = world.back_up("one", age=40)
    record_check([world.vaults["one"]], database.id, "verified", NOW, True, {"whole": True})
    catalog = world.catalog()
    status = catalog.refresh_vault(world.vaults["one"])
    catalog.refresh_vault(world.vaults["two"])
    usage = catalog.usage("one")
    assert [(each.asset, each.snapshots) for each in usage.assets] == [(Asset.MEDIA, 2), (Asset.DATABASE, 1)]
    stored = {found.key: found.bytes for found in world.vaults["one"].list(f"hosts/{HOST}/media/")}
    assert usage.assets[0].bytes == sum(stored.values()), "shared packs count once"
    assert usage.bytes == usage.days[-1] == status.bytes == sum(each.bytes for each in usage.assets) + usage.other
    assert (usage.verified_at, usage.drilled_at) == (NOW, None)
    assert (usage.oldest, usage.newest) == (database.started_at, second.started_at)
    assert usage.growth > 0
    assert usage.full_at is None or usage.full_at > utc_now()
    every = catalog.usage(None)
    assert every.bytes == usage.bytes + catalog.usage("two").bytes
    assert every.assets[0].bytes > usage.assets[0].bytes
    assert catalog.usage("unknown") == VaultUsage(vault="unknown")
    assert together([]) == VaultUsage(vault="")


def test_days_before_the_cache_come_from_the_snapshots(world: SyncWorld) -> None:
    old = world.back_up("one", age=40)
    world.back_up("one", asset=Asset.MEDIA, age=3, shared=["a"], data=b"m" * 100_000)
    catalog = world.catalog()
    catalog.refresh_vault(world.vaults["one"])
    days = catalog.usage("one").days
    assert len(days) == DAYS
    assert old.bytes < days[0] == days[20] < 30_000
    assert days[20] + 200_000 < days[-1], "a pack came with the first snapshot that refers to it"
    world.vaults["one"].delete(manifest_key(old.id))
    world.vaults["one"].delete(manifest_key(old.id).replace("manifest.json", "object.age"))
    catalog.refresh_vault(world.vaults["one"])
    later = catalog.usage("one", utc_now() + timedelta(days=3)).days
    assert later[:-4] == days[3:-1], "what was there is not forgotten when it is pruned"
    assert later[-4] == later[-1] < days[-1]


@given(st.dictionaries(st.integers(0, 100), st.integers(0, 1 << 50)), st.integers(0, 100))
def test_every_day_has_a_total(known: dict[int, int], today: int) -> None:
    days = filled(known, today)
    assert len(days) == DAYS
    for back in range(DAYS):
        before = [day for day in known if day <= today - back]
        assert days[-1 - back] == (known[max(before)] if before else 0)


@given(st.lists(st.integers(0, 1 << 50), max_size=DAYS), st.integers(-(1 << 30), 1 << 30))
def test_growth_is_the_slope(days: list[int], more: int) -> None:
    rate = growth(days)
    assert -(1 << 51) <= rate <= 1 << 51
    steady = [5 * 10**12 + more * day for day in range(DAYS)]
    assert growth(steady) == pytest.approx(more, abs=0.01)
    assert growth([7]) == growth([]) == growth([0, 0, 7]) == 0


def test_when_it_is_full() -> None:
    assert full_at(1000, 100.0, NOW) == NOW + timedelta(days=10)
    for free, rate in ((None, 1.0), (10, 0.0), (10, -1.0), (1 << 60, 1e-9)):
        assert full_at(free, rate, NOW) is None


class Odd(PassingVault):
    """As the test says."""

    free: int | None = None
    looks = 0

    def free_bytes(self) -> int | None:
        return self.free

    def look(self) -> VaultLook:
        Odd.looks += 1
        return VaultLook(versioning="on", object_lock="governance, 30 days", note="n\x1bote")

    def exclusive(self) -> bool:
        raise VaultError("may not be asked")


def test_how_a_vault_is(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.back_up("one", "two", age=1)
    price = DirectoryConfig(type="directory", path=world.place / "one", price_per_gb_month=0.5, currency="EUR")
    config = world.config.model_copy(update={"vaults": {**world.config.vaults, "one": price}})
    catalog = world.catalog()
    assert [row.state for row in storage(config, catalog, NOW)] == [StorageState.UNASKED] * 3

    def rows(free: int | None = None) -> dict[str, tuple[StorageState, str]]:
        def made(name: str, its: VaultConfig) -> Vault:
            vault = Odd(world.directory(name))
            vault.free = free
            return vault

        monkeypatch.setattr(opening, "open_vault", made)
        refresh_vaults(config, catalog)
        return {row.name: (row.state, row.said) for row in storage(config, catalog, utc_now())}

    Odd.looks = 0
    assert rows()["one"] == (StorageState.OK, "")
    rows()
    assert Odd.looks == 2, "asked once a day, and not where there is no vault yet"
    (one, _, _) = storage(config, catalog, utc_now())
    assert one.status.checked_at is not None
    assert (one.status.versioning, one.status.object_lock, one.status.exclusive) == ("on", "governance, 30 days", None)
    assert one.status.note == "n\N{REPLACEMENT CHARACTER}ote"
    assert one.status.recipients == (RECIPIENT,)
    assert (one.kind, one.hosts, one.currency) == ("directory", (HOST,), "EUR")
    assert one.price == pytest.approx(0.5 * one.status.bytes / 1e9)
    newer = world.back_up("one")
    record_check([world.vaults["one"]], newer.id, "verified", NOW, False, {"whole": True})
    assert rows()["one"][0] is StorageState.DAMAGED
    assert rows()["two"] == (StorageState.BEHIND, "it lacks the newest snapshot of social/database")
    assert rows(free=1000)["one"][0] is StorageState.FULL
    assert rows(free=100 * 1024 * 1024)["one"][0] in {StorageState.DAMAGED, StorageState.LOW}
    (world.place / "two").rename(world.place / "gone")
    assert rows()["two"][0] is StorageState.AWAY


def test_copies_by_vault(world: SyncWorld) -> None:
    both = world.back_up("one", "two", "target", age=2)
    mine = world.back_up("one", age=1)
    record_check([world.vaults["two"]], both.id, "verified", NOW, False, {"whole": True})
    path = world.place / "target" / manifest_key(both.id)
    path.write_bytes(path.read_bytes().replace(b'"rows": 3', b'"rows": 4'))
    refresh_vaults(world.config, world.catalog())
    newest, older = copies(world.config, world.catalog(), HOST)
    assert (newest.snapshot.id, newest.trust) == (mine.id, Trust.UNCHECKED)
    states = [[copy.state for copy in each.vaults] for each in (newest, older)]
    assert states == [
        [CopyState.HELD, CopyState.LACKING, CopyState.LACKING],
        [CopyState.HELD, CopyState.DAMAGED, CopyState.ALTERED],
    ]
    assert (older.held, older.offsite) == (1, 0)
    assert copies(world.config, world.catalog(), "unknown") == ()


def test_a_vault_that_hangs_holds_nobody_up(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.back_up("one", "two")
    refresh_vaults(world.config, world.catalog())
    let_go = threading.Event()

    class Hanging(PassingVault):
        def list(self, prefix: str = "") -> Iterator[StoredObject]:
            let_go.wait(20)
            yield from self.inner.list(prefix)

    def opened(name: str, config: VaultConfig) -> Vault:
        vault = world.directory(name)
        return Hanging(vault) if name == "one" else vault

    monkeypatch.setattr(opening, "open_vault", opened)
    try:
        refresh_vaults(world.config, world.catalog(), patience=0.5)
        one, two, _ = storage(world.config, world.catalog(), utc_now())
        assert (one.state, one.said) == (StorageState.AWAY, "it has not answered for 0 seconds")
        assert one.status.snapshots == 1, "what was known of it stays"
        assert two.status.error == ""
        assert [info.id for info in world.catalog().snapshots()] == [made.id]
    finally:
        let_go.set()


def test_listings_that_lag(world: SyncWorld) -> None:
    """What was committed is seen before it is listed, and stays when a listing does not show it."""
    older = world.back_up("one", age=1)
    clock = [0.0]
    vault = LaggingVault(world.directory("one"), 60.0, now=lambda: clock[0])
    catalog = world.catalog()
    clock[0] = 100.0
    assert catalog.refresh_vault(vault).snapshots == 1
    newer = world.back_up("two")
    for found in world.directory("two").list("hosts/"):
        with vault.open_upload(found.key) as upload:
            upload.write(world.directory("two").read(found.key).read())
            upload.commit()
    assert catalog.refresh_vault(vault).snapshots == 1
    assert catalog.refresh_vault(vault, also=[newer.id]).snapshots == 2
    assert catalog.refresh_vault(vault).snapshots == 2, "still not listed, and still there"
    assert catalog.manifest(newer.id) == newer
    clock[0] = 200.0
    assert catalog.refresh_vault(vault).snapshots == 2
    vault.delete(manifest_key(older.id))
    clock[0] = 300.0
    assert catalog.refresh_vault(vault).snapshots == 1
    assert datetime.now(UTC) > newer.started_at
