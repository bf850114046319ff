"""Who holds a lease: which process of which machine, and whether that process is certainly gone."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LIVE: set[str] = set()
"""Tokens of the leases that this process holds or is about to take."""


@dataclass(frozen=True, slots=True)
class Owner:
    """One process. `machine` is empty where it cannot be told from another one."""

    user: str
    host: str
    machine: str
    pid: int
    started: int
    """When the process began, in clock ticks since boot (proc(5), field 22): a pid alone may be given away again."""


def this_process() -> Owner:
    """The process that asks."""
    pid = os.getpid()
    return Owner(user=_user(), host=socket.gethostname(), machine=_machine(), pid=pid, started=_started(pid) or 0)


def is_gone(owner: Owner, token: str) -> bool:
    """Whether the process that wrote a token has certainly ended, or is this one and has let go of it.

    Of another machine, of an earlier boot and of another pid namespace (a container) nothing is certain.
    """
    me = this_process()
    if not me.machine or owner.machine != me.machine or owner.pid <= 0:
        return False
    if owner.pid == me.pid and owner.started == me.started:
        return token not in LIVE
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        pass
    started = _started(owner.pid)
    return started is not None and bool(owner.started) and started != owner.started


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())


def _machine() -> str:
    """A digest of this machine, this boot of it and this pid namespace; empty when one of the last two is not known.

    machine-id(5) asks not to show the id itself; containers and images often have none. The boot, of which random(4)
    makes an id of its own, tells copies of one disk image from each other, the pid namespace containers that share a
    machine: a pid of the one says nothing in the other.
    """
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    return _digest(space)


@lru_cache(maxsize=8)
def _digest(space: str) -> str:
    machine, boot = _text(_MACHINE_ID), _text(_BOOT_ID)
    if not boot:
        return ""
    return hashlib.sha256(f"mastovault lease\n{machine}\n{boot}\n{space}".encode()).hexdigest()[:32]


def _text(path: Path) -> str:
    """A line of ASCII; "" where there is none to read."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None when that cannot be read. A zombie has ended: -1."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return -1 if after_name[0] == "Z" else int(after_name[19])
    except (OSError, ValueError, IndexError):
        return None
