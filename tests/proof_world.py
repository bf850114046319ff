"""What tests of verifying and drilling need: snapshots in vaults that may be damaged, and what was recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.archive.reader import object_key, read_manifest
from backends.catalog import Catalog, CheckInfo
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.embedded import keeper
from backends.lab.lab import Lab
from backends.model import Asset, JobResult, SnapshotInfo
from backends.operations import drill
from backends.operations.drill import drill_host
from backends.operations.fleet import refresh_vaults
from backends.operations.proof_place import Workshop
from backends.operations.verify import verify_host
from backends.vault.directory import DirectoryVault
from tests.runs_world import World
from tests.servers.backup import WatchedJob

Harm = Callable[[bytes], bytes]


def flip(at: float) -> Harm:
    """Turn one bit over, at a fraction of the length."""

    def harm(data: bytes) -> bytes:
        place = min(len(data) - 1, int(at * len(data)))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return harm


def truncate(count: int) -> Harm:
    """Leave off the end."""
    return lambda data: data[:-count]


class Proofs:
    """Snapshots of one host, and the two operations on them."""

    def __init__(self, config: Config, paths: Paths, host: str, snapshots: Mapping[Asset, str]) -> None:
        self.config, self.paths, self.host = config, paths, host
        self.snapshots = dict(snapshots)
        self.job = WatchedJob()
        self.told: list[JobResult] = []
        self.world: World | None = None
        """Where commands can be run on them."""

    @property
    def catalog(self) -> Catalog:
        """Up to date."""
        made = Catalog(self.paths.cache_dir)
        refresh_vaults(self.config, made)
        return made

    def verify(self, *assets: Asset, **more: Any) -> dict[Asset, JobResult]:
        """Verify all, or some."""
        return self._run(verify_host, assets, more)

    def drill(self, *assets: Asset, **more: Any) -> dict[Asset, JobResult]:
        """Drill all, or some."""
        return self._run(drill_host, assets, more)

    def _run(
        self, operation: Callable[..., list[JobResult]], assets: tuple[Asset, ...], more: Any
    ) -> dict[Asset, JobResult]:
        chosen = {asset: self.snapshots[asset] for asset in assets or self.snapshots}
        jobs = dict.fromkeys(chosen, self.job)
        self.told = []
        results = operation(self.config, self.paths, self.host, chosen, jobs, "run-1", self.told.append, **more)
        assert self.told == results
        assert [result.asset for result in results] == list(chosen)
        return {result.asset: result for result in results}

    def info(self, asset: Asset) -> SnapshotInfo:
        return next(info for info in self.catalog.snapshots() if info.id == self.snapshots[asset])

    def checks(self, asset: Asset) -> list[CheckInfo]:
        return self.catalog.checks(self.snapshots[asset])

    def vault(self, name: str) -> DirectoryVault:
        config = self.config.vaults[name]
        return DirectoryVault(name, Path(str(config.model_dump()["path"])))

    def objects(self, asset: Asset, vault: str = "local") -> dict[str, Path]:
        """The files of a snapshot's objects by their names, the manifest included."""
        held = self.vault(vault)
        manifest = read_manifest(held, self.snapshots[asset])
        found = {entry.name: held.path / object_key(manifest, entry) for entry in manifest.objects}
        return found | {"manifest.json": held.path / "hosts" / manifest.id / "manifest.json"}

    def object(self, asset: Asset, name: str, vault: str = "local") -> Path:
        """The one whose name begins so."""
        (path,) = (path for known, path in self.objects(asset, vault).items() if known.startswith(name))
        return path

    def harm(self, path: Path, how: Harm) -> None:
        path.write_bytes(how(path.read_bytes()))


def copy_of(original: World, lab: Lab, place: Path, host: str = "social") -> Proofs:
    """The same backups in vaults of their own, with a cache and a state of their own."""
    world = World(lab, place)
    for name, path in original.vaults.items():
        shutil.copytree(path, world.vaults[name], dirs_exist_ok=True)
    catalog = Catalog(world.paths.cache_dir)
    refresh_vaults(world.config, catalog)
    newest = catalog.recent(1)
    snapshots = {asset: newest[host, asset][0].id for asset in Asset if (host, asset) in newest}
    proofs = Proofs(world.config, world.paths, host, snapshots)
    proofs.world = world
    return proofs


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the drills of a test made here must be gone after it."""
    made: list[tuple[Path, str]] = []

    class Seen(Workshop):
        def __init__(self, id_: str) -> None:
            super().__init__(id_)
            made.append((self.directory, self.processes.mark))

    monkeypatch.setattr(drill, "Workshop", Seen)
    yield
    assert [directory for directory, _ in made if directory.exists()] == []
    assert [pid for _, mark in made for pid in keeper.marked(mark)] == []
