"""Leases of those who read: a prune leaves their snapshots alone, backups go on, and who may not write reads anyway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, ClassVar

import pytest

from backends.archive.layout import HOSTS, MANIFEST
from backends.catalog import Catalog
from backends.errors import Locked, VaultDenied
from backends.model import Asset, JobState
from backends.operations import reading as module
from backends.operations import sync_plan
from backends.operations.leases import hold_vaults, name_of
from backends.operations.prune import prune_after
from backends.operations.reading import Reading, reading
from backends.vault.base import Vault
from backends.vault.lease import take_lease
from backends.vault.open import open_vault
from tests.contract.passing import PassingVault
from tests.prune_world import age, made, run, stay, through, world
from tests.sync_world import HOST, SyncWorld, is_whole

__all__ = ["made", "stay", "world"]
READER = "20261123T010000Z-social-0001"


def leases(vault: Vault) -> list[str]:
    """The objects of reading leases."""
    return [stored.key for stored in vault.list("leases/") if "/read/" in stored.key]


def database(world: SyncWorld) -> JobState:
    return next(result.state for result in run(world) if result.asset is Asset.DATABASE)


def test_a_prune_leaves_alone_what_is_read(world: SyncWorld, stay: list[str]) -> None:
    vault = world.directory("one")
    before = set(is_whole(vault))
    said: list[str] = []
    with reading(READER, "restored", said.append) as leases_of:
        leases_of.hold(vault, HOST, Asset.DATABASE)
        leases_of.hold(vault, HOST, Asset.DATABASE)
        with reading("another", "verified", said.append) as others:
            others.hold(vault, HOST, Asset.DATABASE)  # readers do not keep each other out
        results = {result.asset: result for result in run(world)}
    assert said == []
    refused = results[Asset.DATABASE]
    assert (refused.state, refused.exit_code) == (JobState.FAILED, Locked.exit_code)
    assert f"{HOST}/database is being restored by" in str(refused.error)
    assert READER in str(refused.error)
    assert results[Asset.MEDIA].state is JobState.DONE, "another asset is none of its business"
    assert {each for each in before if "/database/" in each} <= set(is_whole(vault))
    assert leases(vault) == []
    assert database(world) is JobState.DONE
    assert sorted(is_whole(vault)) == stay


def test_a_backup_goes_on_and_only_its_prune_waits(world: SyncWorld) -> None:
    vault = world.directory("one")
    before = set(is_whole(vault))
    said: list[str] = []
    catalog = Catalog(world.paths.cache_dir)
    catalog.refresh_vault(vault)
    with reading(READER, "drilled", said.append) as leases_of, hold_vaults([vault], HOST, Asset.DATABASE, "r2") as held:
        leases_of.hold(vault, HOST, Asset.DATABASE)
        held.check(vault)
        result = prune_after(world.config, [vault], HOST, Asset.DATABASE, held.leases, catalog, said.append)
    assert result.removed == {}
    assert len(said) == 1
    assert said[0].startswith("note: one is not pruned now: social/database is being drilled by")
    assert set(is_whole(vault)) == before


def test_a_reader_that_died_stops_a_prune_no_longer_than_its_lease(world: SyncWorld, stay: list[str]) -> None:
    vault = world.directory("one")
    lost = Reading("lost", "restored", print)
    lost.hold(vault, HOST, Asset.DATABASE)
    assert database(world) is JobState.FAILED
    age(world.place / "one" / "leases", days=0.02)
    assert database(world) is JobState.DONE
    assert sorted(is_whole(vault)) == stay
    assert leases(vault) == [], "and what it left is gone"
    lost.release()


class ReadOnly(PassingVault):
    """Credentials that may only read."""

    def put_new(self, key: str, data: bytes) -> None:
        raise VaultDenied("these credentials may not write")


class NoDelete(PassingVault):
    """Credentials that may only add."""

    def delete(self, key: str) -> None:
        raise VaultDenied("these credentials may not delete")


def test_who_may_not_write_is_told_once_and_reads_anyway(world: SyncWorld) -> None:
    vault = ReadOnly(world.directory("one"))
    said: list[str] = []
    with reading(READER, "restored", said.append) as leases_of:
        for asset in Asset:
            leases_of.hold(vault, HOST, asset)
    assert said == ["note: a prune of one at the same time is not kept out: these credentials may not write"]


def test_who_may_only_add_is_respected_and_through_when_it_says_so(world: SyncWorld) -> None:
    vault = NoDelete(world.directory("one"))
    said: list[str] = []
    with reading(READER, "restored", said.append) as leases_of:
        leases_of.hold(vault, HOST, Asset.DATABASE)
        assert database(world) is JobState.FAILED
    assert said == []
    assert leases(vault) != []
    assert database(world) is JobState.DONE


def test_a_place_that_is_no_vault_is_not_made_one(tmp_path: Path) -> None:
    world = SyncWorld(tmp_path, ("one",))
    with reading(READER, "verified", print) as leases_of:
        leases_of.hold(world.directory("one"), HOST, Asset.DATABASE)
    assert not (tmp_path / "one").exists()


def test_a_reader_lets_one_who_removes_finish(world: SyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = world.directory("one")
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    lease = take_lease(vault, name_of(HOST, Asset.DATABASE, "sync"), run="p", doing="pruned")
    said: list[str] = []

    def check() -> None:  # asked while it waits
        lease.release()

    patient = Reading(READER, "restored", said.append, check)
    patient.hold(vault, HOST, Asset.DATABASE)
    assert len(said) == 1
    assert said[0].startswith("social/database is being pruned by")
    assert said[0].endswith("waiting a moment")
    patient.release()
    with hold_vaults([vault], HOST, Asset.DATABASE, "p", "pruned", kind="sync"):
        hasty = Reading(READER, "restored", said.append, patience=0)
        hasty.hold(vault, HOST, Asset.DATABASE)
        hasty.release()
    assert said[-1].endswith("what goes there cannot be read any more")
    with hold_vaults([vault], HOST, Asset.DATABASE, "s", "copied from another vault", kind="sync"):
        hasty = Reading(READER, "restored", said.append, patience=0)
        hasty.hold(vault, HOST, Asset.DATABASE)
        hasty.release()
    assert len(said) == 2, "who only adds disturbs nobody"


class Hooked(PassingVault):
    """Does something at the first delete of a manifest."""

    hook: Callable[[], None] = staticmethod(lambda: None)

    def delete(self, key: str) -> None:
        super().delete(key)
        if key.endswith(MANIFEST) and key.startswith(HOSTS):
            self.hook()


def test_a_prune_stops_between_two_snapshots_when_a_reader_comes(
    world: SyncWorld, stay: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = world.directory("one")
    reader = Reading(READER, "restored", lambda _line: None, patience=0)
    monkeypatch.setattr(Hooked, "hook", staticmethod(lambda: reader.hold(inner, HOST, Asset.DATABASE)))
    monkeypatch.setattr("backends.operations.removal._GUARD_SECONDS", 0.0)
    with through(Hooked):
        results = {result.asset: result for result in run(world)}
    refused = results[Asset.DATABASE]
    assert (refused.state, refused.exit_code) == (JobState.FAILED, Locked.exit_code)
    assert "removed 1 snapshot (1 from one)" in refused.detail
    assert len([each for each in is_whole(inner) if "/database/" in each]) == 3
    reader.release()
    assert database(world) is JobState.DONE
    assert sorted(is_whole(inner)) == stay


class Watched(PassingVault):
    """Notes under which reading leases an object of the database is read."""

    seen: ClassVar[set[str]] = set()

    def read(self, key: str) -> BinaryIO:
        if "/database/" in key and key.endswith(".age"):
            self.seen.update(each.partition("/read/")[0] for each in leases(self) or ["none"])
        return super().read(key)


def test_a_sync_reads_under_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = SyncWorld(tmp_path, ("one", "target"))
    world.back_up("one")
    monkeypatch.setattr(sync_plan, "open_vault", lambda name, its: Watched(open_vault(name, its)))
    Watched.seen.clear()
    assert world.sync().state is JobState.DONE
    assert Watched.seen == {f"leases/{HOST}/database"}
    assert leases(world.directory("one")) == []
