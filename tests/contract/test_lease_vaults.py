"""The leases of one operation in all its vaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.errors import LeaseLost, Locked, VaultError
from backends.model import Asset
from backends.operations.leases import hold_vaults
from backends.vault.directory import DirectoryVault
from backends.vault.lease import lease_holder, take_lease
from tests.contract.faulty import FaultyVault

NAME = "social/media/write"
MADE = "social/media/20261122T140211Z-1f0a9c3e"


def directory(place: Path, name: str) -> DirectoryVault:
    return DirectoryVault(name, place / name)


def test_all_vaults_are_held_and_let_go(tmp_path: Path) -> None:
    two, one = directory(tmp_path, "two"), directory(tmp_path, "one")
    with hold_vaults([two, one], "social", Asset.MEDIA, "r1", "backed up") as held:
        assert held.vaults == [two, one]
        assert held.lacking == {}
        held.check(one)
        held.wrote(MADE)
        with pytest.raises(Locked, match="run r1"), hold_vaults([one], "social", Asset.MEDIA, "r2"):
            pass
        with hold_vaults([one], "social", Asset.MEDIA, "r2", kind="sync"):
            pass
        with hold_vaults([one], "social", Asset.REDIS, "r2"):
            pass
        with pytest.raises(LeaseLost):
            held.check(directory(tmp_path, "three"))
    with hold_vaults([one, two], "social", Asset.MEDIA, "r2") as held:
        assert {lease.previous for lease in held.leases.values()} == {(MADE,)}


def test_a_vault_without_a_lease_drops_out(tmp_path: Path) -> None:
    good, inner = directory(tmp_path, "good"), directory(tmp_path, "bad")
    said: list[str] = []
    bad = FaultyVault(inner, "put_new", for_good=True)
    with hold_vaults([bad, good], "social", Asset.MEDIA, "r1", "backed up", said.append) as held:
        assert held.vaults == [good]
        assert list(held.lacking) == ["bad"]
    assert "bad" in said[0]
    with pytest.raises(VaultError), hold_vaults([bad], "social", Asset.MEDIA, "r1"):
        raise AssertionError("not reached")


def test_when_one_is_held_none_is_kept(tmp_path: Path) -> None:
    one, two = directory(tmp_path, "one"), directory(tmp_path, "two")
    lease = take_lease(two, NAME, run="r1", doing="pruned")
    with pytest.raises(Locked, match="being pruned"), hold_vaults([one, two], "social", Asset.MEDIA, "r2"):
        raise AssertionError("not reached")
    assert lease_holder(one, NAME) is None
    lease.release()
    with pytest.raises(RuntimeError), hold_vaults([one, two], "social", Asset.MEDIA, "r2"):
        raise RuntimeError
    with hold_vaults([one, two], "social", Asset.MEDIA, "r2"):
        pass
