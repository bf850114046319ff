"""A sync whose vaults fail at every single call: nothing torn is listed, and the next one completes it."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.config.schema import VaultConfig
from backends.errors import LeaseLost, VaultDenied, VaultFull
from backends.model import Asset, JobState
from backends.operations import sync_plan
from backends.operations.leases import Held
from backends.vault.base import Vault
from backends.vault.open import open_vault
from tests.contract.faulty import ANY, FaultyVault
from tests.contract.passing import PassingVault
from tests.sync_world import HOST, SyncWorld, is_whole

Wrap = Callable[[Vault], Vault]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyncWorld:
    """Two media snapshots that share a pack, in `one`, and nothing in `target`."""
    world = SyncWorld(tmp_path_factory.mktemp("made"), ("one", "target"))
    older = world.back_up("one", asset=Asset.MEDIA, age=2, shared=["a"], data=b"x" * 9000)
    world.back_up("one", asset=Asset.MEDIA, age=1, shared=["b"], refer=older.objects[1:], data=b"y" * 9000)
    return world


def fresh(made: SyncWorld, place: Path) -> SyncWorld:
    """A copy of that world, at its beginning."""
    shutil.copytree(made.place / "one", place / "one")
    return SyncWorld(place, ("one", "target"))


def wrap(monkeypatch: pytest.MonkeyPatch, name: str, made: Wrap) -> None:
    """Open one of the vaults through a wrapper."""

    def opening(each: str, config: VaultConfig) -> Vault:
        vault = open_vault(each, config)
        return made(vault) if each == name else vault

    monkeypatch.setattr(sync_plan, "open_vault", opening)


def faulty_sync(
    world: SyncWorld, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, *, after: bool, for_good: bool
) -> FaultyVault:
    """Sync with a vault whose nth call fails; what it leaves must be whole, and the next sync must complete it."""
    opened: list[FaultyVault] = []

    def faulty(vault: Vault) -> Vault:
        opened.append(FaultyVault(vault, ANY, nth, after=after, for_good=for_good))
        return opened[-1]

    with monkeypatch.context() as patch:
        wrap(patch, name, faulty)
        result = world.sync(assets=[Asset.MEDIA])
    assert result.state in {JobState.DONE, JobState.FAILED}
    assert (result.error is None) == (result.state is JobState.DONE)
    held = is_whole(world.directory("target"))
    if result.state is JobState.DONE and not result.in_part:
        assert len(held) == 2
    again = world.sync(assets=[Asset.MEDIA])
    assert (again.state, again.in_part) == (JobState.DONE, False), again
    assert len(is_whole(world.directory("target"))) == 2
    assert len(is_whole(world.directory("one"))) == 2
    assert world.content("target") == world.content("one")
    return opened[0]


@pytest.mark.parametrize(("after", "for_good"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(("name", "stride"), [("one", 8), ("target", 16)])
def test_calls_fail(
    made: SyncWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    stride: int,
    after: bool,
    for_good: bool,
) -> None:
    """Another call each time; all of them are some 20 and 60, and take a minute (stride 1)."""
    nth = 1 + stride * (2 * after + for_good) // 4
    while True:
        world = fresh(made, tmp_path / str(nth))
        if not faulty_sync(world, monkeypatch, name, nth, after=after, for_good=for_good).broken:
            break
        nth += stride


def test_the_target_has_no_room(made: SyncWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fresh(made, tmp_path)

    class Small(PassingVault):
        def free_bytes(self) -> int | None:
            return 16 * 1024 * 1024 + 10_000

    with monkeypatch.context() as patch:
        wrap(patch, "target", Small)
        result = world.sync(assets=[Asset.MEDIA])
        plan = sync_plan.plan_sync(world.config, world.paths, [HOST], None, "target")
    assert (result.state, result.error) == (JobState.FAILED, "there is no room in target for what it lacks")
    assert is_whole(world.directory("target")) == []
    assert len(plan.items) == 2
    assert plan.fits
    with monkeypatch.context() as patch:
        wrap(patch, "target", lambda vault: FaultyVault(vault, "write", 2, error=VaultFull))
        result = world.sync(assets=[Asset.MEDIA])
    assert result.state is JobState.FAILED
    assert world.sync(assets=[Asset.MEDIA]).state is JobState.DONE
    assert world.content("target") == world.content("one")


def test_credentials_that_may_not_write(made: SyncWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fresh(made, tmp_path)
    wrap(monkeypatch, "target", lambda vault: FaultyVault(vault, "put_new", 1, error=VaultDenied, for_good=True))
    result = world.sync(assets=[Asset.MEDIA])
    assert (result.state, result.exit_code) == (JobState.FAILED, 1)
    assert result.error is not None


def test_a_lost_lease_takes_the_manifest_back(made: SyncWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fresh(made, tmp_path)
    left = [1]

    def check(self: Held, vault: Vault) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise LeaseLost("somebody else has it")

    with monkeypatch.context() as patch:
        patch.setattr(Held, "check", check)
        result = world.sync(assets=[Asset.MEDIA])
    assert (result.state, result.error) == (JobState.FAILED, "somebody else has it")
    assert is_whole(world.directory("target")) == []
    assert [key for key in world.content("target") if key.endswith(".age")], "what was copied is gone on with"
    assert world.sync(assets=[Asset.MEDIA]).state is JobState.DONE


def test_what_vanishes_after_the_manifest_takes_it_back(
    made: SyncWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack that somebody removed at the same moment: the snapshot is not listed without it."""
    world = fresh(made, tmp_path)

    class Losing(PassingVault):
        def put_new(self, key: str, data: bytes) -> None:
            self.inner.put_new(key, data)
            if key.endswith("manifest.json"):
                self.inner.delete(next(found.key for found in self.inner.list("hosts/") if "/packs/" in found.key))

    with monkeypatch.context() as patch:
        wrap(patch, "target", Losing)
        result = world.sync(assets=[Asset.MEDIA])
    assert result.state is JobState.FAILED
    assert "lacks hosts/social/media/packs/" in str(result.error)
    assert is_whole(world.directory("target")) == []
    assert world.sync(assets=[Asset.MEDIA]).state is JobState.DONE
    assert len(is_whole(world.directory("target"))) == 2


_KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from backends.model import Asset
from tests.contract.passing import PassingVault
from tests.sync_world import HOST, SyncWorld, is_whole
world = SyncWorld(Path(sys.argv[1]), ("one", "target"))
world.sync(assets=[Asset.REDIS])  # everything is imported now
random.seed(int(sys.argv[2]))
for turn in range(int(sys.argv[3])):
    child = os.fork()
    if not child:
        world.sync(assets=[Asset.MEDIA])
        os._exit(0)
    time.sleep(random.uniform(0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(len(is_whole(world.directory("target"))), flush=True)
"""


def test_killed_at_random_moments(made: SyncWorld, tmp_path: Path) -> None:
    world = fresh(made, tmp_path)
    for age in range(3, 9):
        world.back_up("one", asset=Asset.MEDIA, age=age, shared=[f"more{age}"], data=bytes(300_000))
    done = subprocess.run(
        [sys.executable, "-c", _KILLER, str(tmp_path), str(random.randrange(1000)), "12"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = [int(line) for line in done.stdout.split()]
    assert counts == sorted(counts), "nothing that was there goes away"
    result = world.sync(assets=[Asset.MEDIA])
    assert (result.state, result.error) == (JobState.DONE, None)
    target = world.directory("target")
    assert len(is_whole(target)) == 8
    target.clean_leftovers(datetime.now(UTC) + timedelta(days=1))
    assert world.content("target") == world.content("one")
