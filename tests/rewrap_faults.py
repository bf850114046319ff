"""Rewrapping while a vault fails at some call, or the process is killed: nothing is lost, and the next one goes on."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

from backends.operations import verify
from tests.contract.faulty import FaultyVault
from tests.rewrap_world import Rewraps

PATIENCE = 60.0


def populated(memory: Path) -> Rewraps:
    """A world with all there is to carry over."""
    place = memory / secrets.token_hex(4)
    place.mkdir()
    world = Rewraps(place)
    world.check(world.secrets(1), "drilled")
    world.media(2, before=world.media(1))
    return world


def shaken(world: Rewraps, nth: int, *, after: bool = False, dead: bool = False) -> FaultyVault:
    """Rewrap with a fault at one call of a vault, and with `dead` at all that follow."""
    far = FaultyVault(world.vaults["far"], nth=nth, after=after, for_good=dead)
    with patch.object(verify, "open_vault", lambda name, its: far if name == "far" else world.vaults[name]):
        world.rewrap()
    return far


def calls_of_a_rewrap(memory: Path) -> int:
    """How many calls a vault gets when nothing fails."""
    return len(shaken(populated(memory), 0).calls)


def require_survived(memory: Path, nth: int, *, after: bool, dead: bool) -> None:
    """A fault at one call loses nothing, and the next rewrap replaces all that it may."""
    world = populated(memory)
    contents = world.contents()
    shaken(world, nth, after=after, dead=dead)
    require_continued(world, contents, str(nth))
    shutil.rmtree(world.place)


def require_continued(world: Rewraps, contents: dict[str, dict[str, dict[str, bytes]]], when: str) -> None:
    """Every content is in every vault that had it and opens; another rewrap leaves only what needs a sync before."""
    assert world.contents() == contents, when
    again = world.rewrap()
    assert world.contents() == contents, when
    lacking = False
    for result in again.values():
        said = [*result.warnings, *([result.error] if result.error else [])]
        assert all("vault sync" in text for text in said), (when, said)
        lacking = lacking or bool(said)
    if not lacking:
        world.require_rewrapped()


def killed_and_continued(memory: Path, rounds: int) -> int:
    """Kill that many rewraps at random moments and look what became of it; returns how many were survived."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.rewrap_faults", str(memory), str(rounds)],
        capture_output=True,
        text=True,
        timeout=PATIENCE + rounds,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["survived"])


def _killed(world: Rewraps, seconds: float) -> bool:
    """Rewrap in a process of its own and kill it after some time; whether it was still at work."""
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > 1:  # threads of before that are just ending; a fork takes none along
        assert time.monotonic() < deadline
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        try:
            world.rewrap()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(memory: Path, rounds: int) -> None:
    """Print how many rewraps were survived, and how many of them were really caught at work."""
    dice = random.Random()
    began = time.monotonic()
    populated(memory).rewrap()
    whole = time.monotonic() - began
    caught = 0
    for number in range(rounds):
        world = populated(memory)
        contents = world.contents()
        caught += _killed(world, dice.uniform(0, whole))
        require_continued(world, contents, f"kill {number}")
        shutil.rmtree(world.place)
    print(json.dumps({"survived": rounds, "caught": caught}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
