"""Backups of a host to several vaults: leases of other machines, pruning afterwards, signatures, vaults that fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backends.catalog import Catalog, VaultStatus
from backends.lab.lab import Lab
from backends.model import Asset, JobResult, JobState, utc_now
from backends.operations import backup, backup_work
from backends.operations.backup import back_up_host
from backends.operations.leases import hold_vaults
from backends.progress import Job
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from tests.contract.lagging import LaggingVault
from tests.runs_world import World
from tests.servers.backup import WatchedJob

RUN = "20261123T000000Z-0000abcd"


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> World:
    return World(lab, tmp_path)


def run(world: World, *assets: Asset, job: WatchedJob | None = None, days: float = 0) -> dict[Asset, JobResult]:
    jobs: dict[Asset, Job] = {asset: job or WatchedJob() for asset in assets}
    at = utc_now() - timedelta(days=days) if days else None
    results = back_up_host(world.config, world.paths, "social", assets, jobs, RUN, at=at)
    return {result.asset: result for result in results}


def vault(world: World, name: str) -> DirectoryVault:
    return DirectoryVault(name, world.vaults[name])


def test_another_machine_at_work_is_named_and_hinders_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_PATIENCE", 0.0)
    run(world, Asset.REDIS)
    with hold_vaults([vault(world, "offsite")], "social", Asset.REDIS, "run-elsewhere"):
        results = run(world, Asset.REDIS, Asset.SECRETS)
        other = back_up_host(world.config, world.paths, "art", [Asset.SECRETS], {Asset.SECRETS: WatchedJob()}, RUN)
    assert (results[Asset.REDIS].state, results[Asset.REDIS].exit_code) == (JobState.FAILED, 11)
    assert "run-elsewhere" in (results[Asset.REDIS].error or "")
    assert "since" in (results[Asset.REDIS].error or "")
    assert results[Asset.SECRETS].state is JobState.DONE
    assert other[0].state is JobState.DONE, "hosts never wait for each other"
    assert run(world, Asset.REDIS)[Asset.REDIS].state is JobState.DONE


def test_a_moment_of_patience_for_a_prune_elsewhere(world: World) -> None:
    run(world, Asset.REDIS)
    held = hold_vaults([vault(world, "local")], "social", Asset.REDIS, "prune-elsewhere", "pruned")
    held.__enter__()
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "_wait", lambda _job, _seconds: held.__exit__(None, None, None))
        result = run(world, Asset.REDIS)[Asset.REDIS]
    assert result.state is JobState.DONE
    assert time.monotonic() - began < 9


def test_what_no_policy_keeps_goes_after_a_good_backup_only(world: World) -> None:
    world.change(retention={"last": 2})
    old = [run(world, Asset.REDIS, days=days)[Asset.REDIS].snapshot for days in (5, 4, 3)]
    held = [each.id for each in Catalog(world.paths.cache_dir).snapshots(asset=Asset.REDIS)]
    assert held == old[::-1], "making history prunes nothing"
    with _locked(world, "offsite"):
        assert run(world, Asset.REDIS)[Asset.REDIS].in_part
    assert set(old) <= {each.id for each in Catalog(world.paths.cache_dir).snapshots(asset=Asset.REDIS)}
    newest = run(world, Asset.REDIS)[Asset.REDIS]
    assert (newest.state, newest.in_part) == (JobState.DONE, False)
    held = [each.id for each in Catalog(world.paths.cache_dir).snapshots(asset=Asset.REDIS)]
    assert held[0] == newest.snapshot
    assert not set(old[:2]) & set(held)
    assert held[-1] == old[2], "the vault that was away keeps its own last two"


class _locked:  # noqa: N801 - reads as what it is
    """A vault that cannot be written for a while."""

    def __init__(self, world: World, name: str) -> None:
        self._place = world.vaults[name]

    def __enter__(self) -> None:
        self._aside = self._place.rename(self._place.with_name("aside"))
        self._place.write_text("a file where the vault should be")

    def __exit__(self, *_: object) -> None:
        self._place.unlink()
        self._aside.rename(self._place)


def test_a_backup_that_prunes_looks_once_at_each_vault_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.change(retention={"last": 2})
    run(world, Asset.REDIS)
    asked: list[tuple[str, tuple[str, ...]]] = []
    real = Catalog.refresh_vault

    def refreshed(self: Catalog, vault: Vault, also: Sequence[str] = (), **more: Any) -> VaultStatus:
        asked.append((vault.name, tuple(also)))
        return real(self, vault, also, **more)

    monkeypatch.setattr(Catalog, "refresh_vault", refreshed)
    made = run(world, Asset.REDIS)[Asset.REDIS].snapshot
    first = [("local", ()), ("offsite", ())]
    new = [("local", (made,)), ("offsite", (made,))]
    assert asked == first + new
    asked.clear()
    made = run(world, Asset.REDIS)[Asset.REDIS].snapshot
    assert asked == [*first, ("local", (made,)), ("offsite", (made,)), *first], "and again where something went"
    assert len(Catalog(world.paths.cache_dir).snapshots(asset=Asset.REDIS)) == 2


def test_what_a_listing_does_not_show_yet_is_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lagging = {name: LaggingVault(vault(world, name), 3600, prefix="hosts/") for name in world.vaults}
    monkeypatch.setattr(backup_work, "open_vault", lambda name, _config: lagging[name])
    made = run(world, Asset.REDIS)[Asset.REDIS]
    assert made.state is JobState.DONE
    [info] = Catalog(world.paths.cache_dir).snapshots(asset=Asset.REDIS)
    assert info.id == made.snapshot
    assert set(info.vaults) == set(world.vaults)


def test_pruning_can_be_left_to_the_operator(world: World) -> None:
    world.change(retention={"last": 1, "after_backup": False})
    first = run(world, Asset.REDIS, days=2)[Asset.REDIS].snapshot
    run(world, Asset.REDIS)
    assert first in {each.id for each in Catalog(world.paths.cache_dir).snapshots(asset=Asset.REDIS)}


def test_without_its_signing_key_a_backup_is_made_in_part(world: World) -> None:
    world.change(encryption={"signing_key": str(world.paths.config_file.parent / "gone.pem")})
    result = run(world, Asset.REDIS)[Asset.REDIS]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert "is not signed" in result.warnings[0]


def test_the_commands_of_vaults(world: World, tmp_path: Path) -> None:
    """add, check, list, sync, prune and forget, as an operator types them."""
    world.change(retention={"last": 1, "after_backup": False})
    old = run(world, Asset.REDIS, days=2)[Asset.REDIS].snapshot
    new = run(world, Asset.REDIS)[Asset.REDIS].snapshot
    place = tmp_path / "third"
    code, out, err = world.run("vault", "add", "third", str(place), "--price", "0.02", "--currency", "EUR")
    assert (code, err) == (0, ""), err
    assert "delete" in out
    assert "saved" in out
    assert world.run("vault", "add", "bad", "s3://nowhere", "--endpoint", "http://127.0.0.1:1")[0] == 1
    assert "bad" not in world.config.vaults
    assert world.run("vault", "check", "third")[0] == 0

    code, out, _ = world.run("vault", "sync", "third", "--host", "social", "--dry-run")
    assert code == 0
    assert f"copy   {new}" in out
    assert f"copy   {old}" not in out
    code, out, _ = world.run("vault", "sync", "third", "--host", "social", "--json")
    assert code == 0, out
    assert [each.id for each in Catalog(world.paths.cache_dir).snapshots() if "third" in each.vaults] == [new]

    code, out, _ = world.run("prune", "--dry-run", "social/redis")
    assert code == 0
    assert f"remove  local  {old}  beyond last 1" in out
    assert f"keep    local  {new}  the last good one; last 1" in out
    code, _, err = world.run("prune", "social")
    assert (code, "--yes" in err) == (2, True)
    assert world.run("prune", "social", "--yes")[0] == 0
    assert {each.id for each in Catalog(world.paths.cache_dir).snapshots(asset=Asset.REDIS)} == {new}

    code, out, _ = world.run("vault", "list")
    assert code == 0
    assert "EUR" in out
    assert world.run("vault", "forget", "third")[0] == 2
    assert world.run("vault", "forget", "third", "--confirm", "third")[0] == 0
    assert place.is_dir()
    for refused in (["prune", "--yes"], ["vault", "sync", "local"], ["vault", "check"], ["vault", "add", "x", "/x"]):
        assert world.run("--read-only", *refused)[0] == 2, refused
