"""Prunes on bad days: every call failing, killed at any moment. Nothing listed is torn, and the next one finishes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.model import Asset, JobState
from backends.vault.base import Vault
from tests.contract.faulty import ANY, FaultyVault
from tests.prune_world import fresh, made, packs, run, through
from tests.sync_world import SyncWorld, is_whole

__all__ = ["made"]

ROOT = Path(__file__).parents[2]
KILLS = 200


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


STEP = 1 if os.environ.get("MASTOVAULT_TEST_EVERY_STEP") else 4
"""Of the calls of a prune every fourth fails, in each of four ways another one."""


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
        results = run(world, Asset.DATABASE, Asset.MEDIA)
        assert {(each.state, each.in_part) for each in results} == {(JobState.DONE, False)}, (nth, results)
        assert sorted(is_whole(world.directory("one"))) == stay, nth
        assert packs(world) == {"a2.tar.age", "b2.tar.age"}, nth
        shutil.rmtree(place)
        nth += STEP


def test_killed_at_any_moment(memory: Path) -> None:
    """kill -9 at 200 random moments; each prune goes on where the one before was, and every fifth may finish."""
    program = [sys.executable, "-m", "tests.contract.killed_prunes", str(memory), "4", str(KILLS)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stdout)
    assert reached["killed"] + reached.get("ended before", 0) == KILLS
    assert reached["killed"] > KILLS / 4
    assert reached["in the middle"] > KILLS / 40
    assert reached["finished"] == KILLS // 4
