"""Reading and writing known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

Nothing in such a file can make the reader fail: a line that has not the known form counts for nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

REVOKED = "@revoked"
AUTHORITY = "@cert-authority"
_SIZE_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: the names it speaks of, a key, and a marker (`@revoked`, `@cert-authority`) or nothing."""

    marker: str
    names: tuple[str, ...]
    key_type: str
    key: bytes
    file: Path
    line: int

    def speaks_of(self, name: str) -> bool:
        """Whether one of the patterns matches and none of those with `!` does."""
        matched = False
        for pattern in self.names:
            if pattern.startswith("!"):
                if _matches(pattern[1:], name):
                    return False
            elif _matches(pattern, name):
                matched = True
        return matched


def fingerprint(key: bytes) -> str:
    """The fingerprint as `ssh-keygen -lf` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode("ascii").rstrip("=")


def lookup_name(host: str, port: int) -> str:
    """The name under which a host stands in known_hosts: `host`, or `[host]:port` when the port is not 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def parse(text: str, file: Path) -> Iterator[Entry]:
    """The usable lines of a file."""
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = ""
        if fields[0].startswith("@"):
            marker = fields.pop(0).lower()
            if marker not in (REVOKED, AUTHORITY):
                continue
        if len(fields) < 3:
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        # The blob begins with the name of its own type; a line that disagrees with itself is damaged.
        kind = fields[1].encode("utf-8", "replace")
        if key[4 : 4 + len(kind)] != kind or int.from_bytes(key[:4], "big") != len(kind):
            continue
        yield Entry(marker, tuple(fields[0].split(",")), fields[1], key, file, number)


def read(files: Iterable[Path]) -> list[Entry]:
    """The usable lines of those files that exist and can be read."""
    entries: list[Entry] = []
    for file in files:
        try:
            with file.open("rb") as stream:
                text = stream.read(_SIZE_LIMIT).decode("utf-8", "replace")
        except OSError:
            continue
        entries.extend(parse(text, file))
    return entries


def append(file: Path, name: str, key_type: str, key_base64: str) -> None:
    """Add one line at the end of a file, which is made (0600) when it is not there."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600, exist_ok=True)
    with file.open("r+b") as stream:
        size = stream.seek(0, 2)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(f"{name} {key_type} {key_base64}\n".encode())


def known_types(entries: Sequence[Entry], name: str) -> tuple[str, ...]:
    """The key types known for a host, in the order of the lines."""
    return tuple(dict.fromkeys(entry.key_type for entry in entries if not entry.marker and entry.speaks_of(name)))


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        return _matches_hashed(pattern, name)
    pattern = pattern.lower()
    return pattern == name or _glob(pattern, name)


def _matches_hashed(pattern: str, name: str) -> bool:
    parts = pattern.split("|")
    if len(parts) != 4:
        return False
    try:
        salt, wanted = base64.b64decode(parts[2], validate=True), base64.b64decode(parts[3], validate=True)
    except (binascii.Error, ValueError):
        return False
    # SHA-1 is what the format prescribes; it hides names, it protects no key.
    return hmac.compare_digest(hmac.new(salt, name.encode("utf-8", "replace"), hashlib.sha1).digest(), wanted)


@lru_cache(maxsize=4096)
def _glob(pattern: str, name: str) -> bool:
    """Match * and ? only (ssh_config(5), PATTERNS), in time that no pattern can make explode."""
    here = there = mark = 0
    star = -1
    while there < len(name):
        if here < len(pattern) and pattern[here] == "*":
            star, mark = here, there
            here += 1
        elif here < len(pattern) and pattern[here] in ("?", name[there]):
            here, there = here + 1, there + 1
        elif star >= 0:
            mark += 1
            here, there = star + 1, mark
        else:
            return False
    return not pattern[here:].strip("*")
