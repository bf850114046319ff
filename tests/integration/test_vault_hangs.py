"""A vault that begins to hang in the middle of a run: the others go on, and nothing more is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.archive import fanout
from backends.catalog import Catalog
from backends.lab.lab import Lab
from backends.model import Asset, JobState
from backends.operations import backup_work, sync_plan, verify
from backends.operations.backup import back_up_host
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.open import open_vault
from tests.contract.hanging import HangingVault
from tests.rewrap_world import Rewraps
from tests.runs_world import World
from tests.servers.backup import WatchedJob
from tests.sync_world import SyncWorld


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "STALL_AT_END", 0.3)


@pytest.fixture
def hanging() -> Iterator[list[HangingVault]]:
    """Vaults that are let go on at the end."""
    made: list[HangingVault] = []
    yield made
    for vault in made:
        vault.gate.set()


def status_of(catalog: Catalog, name: str) -> str:
    return next(each.error for each in catalog.vaults() if each.name == name)


def test_a_backup_leaves_it_alone(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: list[HangingVault]
) -> None:
    world = World(lab, tmp_path)
    far = HangingVault(DirectoryVault("offsite", world.vaults["offsite"]))
    hanging.append(far)
    monkeypatch.setattr(
        backup_work, "open_vault", lambda name, its: far if name == "offsite" else open_vault(name, its)
    )
    assets = [Asset.SECRETS, Asset.REDIS]
    results = back_up_host(world.config, world.paths, "social", assets, dict.fromkeys(assets, WatchedJob()), "r")
    for result in results:
        assert (result.state, result.in_part, result.vaults) == (JobState.DONE, True, ("local",)), result
        [said] = result.warnings
        assert "the vault offsite hangs" in said
    assert far.asked == []
    catalog = Catalog(world.paths.cache_dir)
    assert "hangs" in status_of(catalog, "offsite")
    assert {info.asset for info in catalog.snapshots("social")} == set(assets)
    far.gate.set()
    monkeypatch.undo()
    again = back_up_host(world.config, world.paths, "social", [Asset.REDIS], {Asset.REDIS: WatchedJob()}, "r2")
    assert (again[0].state, again[0].in_part) == (JobState.DONE, False), again


def test_a_sync_leaves_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: list[HangingVault]) -> None:
    world = SyncWorld(tmp_path, ("one", "target"))
    world.back_up("one")
    world.back_up("one", asset=Asset.SECRETS)
    target = HangingVault(world.directory("target"))
    hanging.append(target)

    def opening(name: str, its: object) -> Vault:
        return target if name == "target" else open_vault(name, world.config.vaults[name])

    monkeypatch.setattr(sync_plan, "open_vault", opening)
    result = world.sync(assets=(Asset.DATABASE, Asset.SECRETS))
    assert result.state is JobState.FAILED
    assert "the vault target hangs" in str(result.error)
    assert target.asked == []
    assert "hangs" in status_of(Catalog(world.paths.cache_dir), "target")
    target.gate.set()
    monkeypatch.undo()
    assert world.sync(assets=(Asset.DATABASE, Asset.SECRETS)).state is JobState.DONE


def test_encrypting_anew_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: list[HangingVault]
) -> None:
    world = Rewraps(tmp_path)
    world.secrets(1)
    world.secrets(2)
    world.media(1)
    far = HangingVault(world.vaults["far"])
    hanging.append(far)
    with monkeypatch.context() as patch:
        patch.setattr(verify, "open_vault", lambda name, its: far if name == "far" else world.vaults[name])
        results = world.rewrap()
    for asset, made in ((Asset.SECRETS, 2), (Asset.MEDIA, 1)):
        assert (results[asset].state, results[asset].in_part) == (JobState.DONE, True)
        assert sum("the vault far" in text for text in results[asset].warnings) == 1
        assert results[asset].detail.startswith(f"{made} snapshot")
    assert far.asked == []
    assert world.contents().keys() == {"near", "far"}
    far.gate.set()
    contents = world.contents()
    world.rewrap()
    assert world.contents() == contents
