"""A backup of a real host into two vaults, of which one fails at some call: in part, and which one is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.archive.reader import open_stored, read_manifest
from backends.catalog import Catalog
from backends.config.schema import VaultConfig
from backends.errors import NotFound
from backends.lab.lab import Lab
from backends.model import Asset, JobResult, JobState
from backends.operations import backup_work, line
from backends.operations.backup import back_up_host
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.open import open_vault
from tests.contract.faulty import ANY, FaultyVault
from tests.runs_world import World
from tests.servers.backup import WatchedJob

EVERY = 10
"""Of all calls that a vault gets, each so-many-th fails once; tests/contract fails every single one."""


@pytest.fixture
def world(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(line, "_PAUSE", 0.01)
    return World(lab, tmp_path)


def run(world: World, job: WatchedJob) -> JobResult:
    (result,) = back_up_host(world.config, world.paths, "social", [Asset.REDIS], {Asset.REDIS: job}, "run")
    return result


def is_whole(vault: Vault, snapshot: str) -> bool:
    try:
        manifest = read_manifest(vault, snapshot)
    except NotFound:
        return False
    for entry in manifest.objects:
        open_stored(vault, manifest, entry).drain()
    return True


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_some_calls_of_one_vault_fail(world: World, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    made: list[FaultyVault] = []
    nth = 0

    def opened(name: str, config: VaultConfig) -> Vault:
        vault = open_vault(name, config)
        if name != "offsite":
            return vault
        made.append(FaultyVault(vault, ANY, nth, after=after))
        return made[-1]

    monkeypatch.setattr(backup_work, "open_vault", opened)
    local = DirectoryVault("local", world.vaults["local"])
    offsite = DirectoryVault("offsite", world.vaults["offsite"])
    assert run(world, WatchedJob()).vaults == ("local", "offsite")
    calls = len(made[-1].calls)
    assert calls > 20
    for chosen in range(1 + after, calls, EVERY):
        nth = chosen
        result = run(world, WatchedJob())
        assert result.state is JobState.DONE
        assert result.snapshot
        assert "local" in result.vaults
        assert is_whole(local, result.snapshot)
        assert is_whole(offsite, result.snapshot) == ("offsite" in result.vaults)
        assert result.in_part == ("offsite" not in result.vaults)
        assert not result.in_part or "the vault offsite lacks it" in result.warnings[-1]
    nth = 0
    again = run(world, WatchedJob())
    assert (again.vaults, again.in_part) == (("local", "offsite"), False)
    listed = Catalog(world.paths.cache_dir).snapshots("social", Asset.REDIS)
    assert all(is_whole(vault, each.id) for each in listed for vault in (local, offsite) if vault.name in each.vaults)
