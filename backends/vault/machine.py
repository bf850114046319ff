"""Which machine a directory is on, to tell whether a copy dies with what it protects."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NETWORK = re.compile(
    r"nfs4?|cifs|smb3?|smbfs|9p|ceph|glusterfs|lustre|afs|beegfs|davfs|fuse\.(sshfs|rclone|s3fs|davfs|glusterfs)"
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def machine_of(path: Path) -> str | None:
    """This machine's `/etc/machine-id`; None when it has none, or when `path` is on a network file system."""
    if is_network(path):
        return None
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            text = Path(place).read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        if text:
            return text
    return None


def is_network(path: Path, mountinfo: str | None = None) -> bool:
    """Whether a path is on a network file system, by `/proc/self/mountinfo` (proc(5)); False where that is unknown."""
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        except OSError:
            return False
    return bool(_NETWORK.fullmatch(_kind(os.path.realpath(path), mountinfo)))


def _kind(path: str, mountinfo: str) -> str:
    """The type of the file system that holds a path: that of the longest mount point above it, the last one mounted."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind
