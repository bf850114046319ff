"""How many runs work at once: each holds one of some locks, and a lock ends with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

_DEFAULT = 4
_POLL = 0.2


def allowed(config_file: Path) -> int:
    """`limits.runs` of the configuration.

    Read without the rest of it: dozens of runs may wait for their turn, and the schema makes each of them three times
    as big. A file that cannot be read says why when the run's turn has come.
    """
    try:
        limits = tomllib.loads(config_file.read_text("utf-8")).get("limits", {})
        count = limits.get("runs", _DEFAULT)
    except (OSError, ValueError, AttributeError):
        return _DEFAULT
    return count if type(count) is int and count > 0 else _DEFAULT


@contextlib.contextmanager
def turn(state_dir: Path, count: int, stopped: Callable[[], bool], wait: Callable[[], None]) -> Iterator[None]:
    """Hold one of `count` places, waiting until one is free or the run is stopped.

    Args:
        state_dir: where the places are.
        count: how many there are.
        stopped: whether to wait no longer.
        wait: called once when there is something to wait for.
    """
    folder = state_dir / "slots"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = False
    held = _take(folder, count)
    while held is None and not stopped():
        if not said:
            said = True
            wait()
        time.sleep(_POLL)
        held = _take(folder, count)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _take(folder: Path, count: int) -> int | None:
    for number in range(count):
        handle = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return handle
    return None
