"""One run at a time on one asset, on this machine; a lock ends with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
from collections.abc import Iterator
from pathlib import Path

from backends.errors import Locked
from backends.model import Asset, rfc3339, utc_now
from backends.untrusted import clean


@contextlib.contextmanager
def hold(state_dir: Path, host: str, asset: Asset, run: str, doing: str = "backed up") -> Iterator[None]:
    """Hold the lock of an asset for as long as the block runs; `doing` says what for, to whoever comes second.

    Raises:
        Locked: another run holds it; the sentence says which, and since when.
    """
    folder = state_dir / "locks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / f"{host}.{asset}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(
                f"{host}/{asset} is being {_holder(handle)}",
                "Wait for it, or cancel it: `mastovault runs` shows it.",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, _mark(run, doing), 0)
        yield
    finally:
        os.close(handle)


def whoami() -> str:
    """The name of the user who runs this process, or the number of one who has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())


def _mark(run: str, doing: str) -> bytes:
    document = {"run": run, "doing": doing, "pid": os.getpid(), "who": whoami(), "since": rfc3339(utc_now())}
    return json.dumps(document).encode()


def _holder(handle: int) -> str:
    try:
        known = json.loads(os.pread(handle, 1000, 0))
        by = f"{known['who']}, run {known['run']} (pid {known['pid']}), since {known['since']}"
        return clean(f"{known.get('doing', 'backed up')} by {by}", 200)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "worked on by another run"
