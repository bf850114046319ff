"""Where the tests keep what they make: in memory where there is room, so that no test waits for a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

_MEMORY = Path("/dev/shm")
_CGROUP = Path("/sys/fs/cgroup")
_ROOM = 8 << 30
"""Bytes that must be free: what a whole run keeps, its Debian hosts, and what its programs themselves need."""
_PREFIX = "mastovault-tests-"
_ROOT = "PYTEST_DEBUG_TEMPROOT"


def keep_in_memory(environment: MutableMapping[str, str]) -> Path | None:
    """Have pytest and `tempfile` make their directories in memory; on disk where that is small or runs no programs.

    Whoever chose a place in `environment` keeps it (https://docs.pytest.org/en/stable/reference/reference.html).

    Returns:
        The directory for `tempfile` that was made here; the caller deletes it.
    """
    if _ROOT in environment or "TMPDIR" in environment or not _fits():
        return None
    _clear()
    made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    made.chmod(0o1777)  # as /tmp: databases run as accounts of their own
    environment[_ROOT], environment["TMPDIR"] = str(_MEMORY), str(made)
    tempfile.tempdir = None
    return made


def _clear() -> None:
    """Delete what a killed run left: memory is not given back otherwise."""
    for left in _MEMORY.glob(f"{_PREFIX}*-*"):
        process = left.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(FileNotFoundError):  # another run may clear as well
            if not Path("/proc", process).exists() and left.stat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)


def _fits() -> bool:
    try:
        place = os.statvfs(_MEMORY)
        free = min(place.f_bavail * place.f_frsize, _available(), _allowed())
    except (OSError, ValueError, LookupError):
        return False
    return free >= _ROOM and not place.f_flag & (os.ST_NOEXEC | os.ST_RDONLY) and os.access(_MEMORY, os.W_OK)


def _available() -> int:
    """Bytes of memory that this machine can still give (Linux's Documentation/filesystems/proc.rst)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _allowed() -> int:
    """Bytes of memory that the container's control group, if any, leaves."""
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if not limit.exists() or limit.read_text().strip() == "max":
        return _ROOM
    return int(limit.read_text()) - int(used.read_text())
