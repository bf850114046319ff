"""Notes of the databases that drills make on hosts, so that what a killed drill leaves is found and dropped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = "drills"
_NAME = re.compile(r"mastovault_drill_[0-9a-z]{8,40}")


@contextmanager
def noted(state_dir: Path, drill: str, host: str, database: str) -> Iterator[Callable[[], None]]:
    """Keep a note for as long as the block runs, and after it unless the function that it gives was called."""
    folder = state_dir / _DIRECTORY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{drill}.json"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Held while we live: a note that can be locked is that of a drill that is over.
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, json.dumps({"host": host, "database": database}).encode())
        os.fsync(handle)
        yield lambda: path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def left_on(state_dir: Path, host: str) -> Iterator[tuple[Path, str]]:
    """What drills of this machine left on a host: each note and its database."""
    for path in sorted((state_dir / _DIRECTORY).glob("*.json")):
        database = _over(path, host)
        if database is not None:
            yield path, database


def forget(note: Path) -> None:
    """Remove a note: its database is gone."""
    note.unlink(missing_ok=True)


def _over(path: Path, host: str) -> str | None:
    """The database of a note whose drill is over; None for one that goes on, or is another host's."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), path.open("r+b") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        note = json.load(file)
        database = str(note["database"])
        if note["host"] == host and _NAME.fullmatch(database):
            return database
    return None
