"""Prunes of a process each, killed at a random moment; run as a program of its own, which alone may fork.

`python -m tests.contract.killed_prunes DIRECTORY SEED KILLS` prints how often what was reached, or fails.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from backends.model import Asset, JobState
from tests.prune_world import age, fill, fresh, packs, run, torn
from tests.sync_world import SyncWorld, is_whole

ASSETS = (Asset.DATABASE, Asset.MEDIA)
FRESH_EVERY = 4
"""Kills in a row in one vault: each prune finds what those before it left."""


def _no_sync(file: object, /) -> None:
    pass


def child(world: SyncWorld) -> int:
    """Fork; the child prunes and ends with 0, or with 1 and its traceback."""
    pid = os.fork()
    if pid:
        return pid
    os.fsync = _no_sync  # type: ignore[assignment]  # what a killed process has written stays written
    try:
        for result in run(world, *ASSETS):
            assert (result.state, result.in_part) == (JobState.DONE, False), result
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the child must end here
        traceback.print_exc()
        os._exit(1)


def made(place: Path, name: str, original: SyncWorld) -> SyncWorld:
    (place / name).mkdir()
    return fresh(original, place / name)


def is_done(world: SyncWorld, stay: list[str]) -> None:
    """All has gone that had to go, and nothing else."""
    assert sorted(is_whole(world.directory("one"))) == stay
    assert packs(world) == {"a2.tar.age", "b2.tar.age"}
    assert not torn(world)


def seconds(world: SyncWorld) -> float:
    """How long a prune takes that nobody kills."""
    began = time.monotonic()
    assert os.waitpid(child(world), 0)[1] == 0
    return time.monotonic() - began


def main(place: Path, seed: int, kills: int) -> Counter[str]:
    chance = random.Random(seed)
    reached: Counter[str] = Counter()
    original = SyncWorld(place / "original", ("one",), retention={"last": 2, "after_backup": False})
    stay = fill(original, "one")
    age(original.place / "one")
    run(made(place, "warm", original), *ASSETS)  # so that no child has to import anything
    gc.freeze()
    usual = min(seconds(made(place, f"first-{number}", original)) for number in range(3))
    world, held = original, set(is_whole(original.directory("one")))
    every = held
    for number in range(kills):
        if number % FRESH_EVERY == 0:
            world, held = made(place, str(number), original), every
        before = held
        pid = child(world)
        time.sleep(chance.uniform(0.0, usual))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL), "a prune failed after one that was killed"
        held = set(is_whole(world.directory("one")))
        assert set(stay) <= held <= before
        reached["killed" if status else "ended before"] += 1
        reached["in the middle"] += bool(status and (held != before or torn(world)))
        if number % FRESH_EVERY == FRESH_EVERY - 1:
            assert os.waitpid(child(world), 0)[1] == 0, "a prune failed after one that was killed"
            is_done(world, stay)
            reached["finished"] += 1
    return reached


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
