"""A vault to prune: databases, media that share packs, secrets; and what of it is to stay."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.archive.layout import HOSTS, MANIFEST
from backends.config.schema import VaultConfig
from backends.model import Asset, JobResult
from backends.operations import prune
from backends.operations.prune import prune_host
from backends.progress import Job, QuietJob
from backends.vault.base import Vault
from backends.vault.open import open_vault
from tests.sync_world import HOST, SyncWorld

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


@pytest.fixture(scope="session")
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


def torn(world: SyncWorld) -> set[str]:
    """Directories of snapshots without a manifest."""
    found = {
        path.parent for path in (world.place / "one" / HOSTS / HOST).glob("*/*/*.age") if "packs" not in path.parts
    }
    return {str(place) for place in found if not (place / MANIFEST).exists()}
