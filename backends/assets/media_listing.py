"""What is in a media tree: one `find` on the host, its records sorted here in bounded memory.

GNU find is asked for NUL-separated records, so that any name survives as the bytes it is. A million files stay below
50 MB: sorted runs are kept in compressed blocks, and merged when they are needed.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import zstandard

from backends.archive.file_index import safe_path
from backends.connection.base import sh
from backends.errors import AssetFailed
from backends.untrusted import clean

_RUN = 32 * 1024
_MAX_RECORD = 64 * 1024
_KEEP_NAMES = 1000
_BLOCK = 1024
"""Records that are in the open per run while merging."""
_NUMBERS = re.compile(rb"(\d{1,20})\t(-?)(\d{1,20})(?:\.(\d{1,30}))?\t([0-7]{1,5})\t")
# Directories that cannot be opened are reported as `u` and not entered; all else that is no directory is listed, but
# for what a restore keeps aside where it finds no other place on the same file system.
_SCRIPT = r"""cd -- "$1" || exit 9
export LC_ALL=C
below=.${3:+/}$3
if [ "$2" = all ]; then set -- -name ''; else set -- -path ./cache; fi
exec find "$below" \( \( "$@" -o -path './.mastovault-*' \) -prune \) -o \
  \( -type d \( \( -readable -executable \) -o \( -printf 'uu\t0\t0\t0\t%p\0' -prune \) \) \) -o \
  \( ! -type d -printf '%y%Y\t%s\t%T@\t%m\t%p\0' \)
"""


class Listed(NamedTuple):
    """One file or symbolic link as `find` saw it; sorts by path."""

    path: bytes
    kind: str
    """`f` a file, `l` a symbolic link, `d` one that leads to a directory, `u` an unreadable directory, `o` all else."""
    size: int
    mtime: int
    """Nanoseconds since 1970."""
    mode: int


def find_command(root: str, *, include_cache: bool, below: str = "") -> tuple[str, ...]:
    """The listing's argv. The root may be a symbolic link; links below it are not followed.

    With `below`, a path relative to the root, only what is at and below that is listed.
    """
    return sh(_SCRIPT, root, "all" if include_cache else "", below)


def parse_records(chunks: Iterable[bytes]) -> Iterator[Listed]:
    """Read what `find_command` prints. Raises `AssetFailed` at anything else, or when it ends inside a record."""
    rest = b""
    for chunk in chunks:
        *records, rest = (rest + chunk).split(b"\0")
        for record in records:
            yield _parse(record)
        if len(rest) > _MAX_RECORD:
            raise _unexpected(rest)
    if rest:
        raise AssetFailed(
            "The list of media files ended in the middle of a name.", "Run the backup again; the connection may be bad."
        )


def _parse(record: bytes) -> Listed:
    kinds, tab, rest = record.partition(b"\t")
    numbers = _NUMBERS.match(rest)
    if not tab or not numbers or len(kinds) != 2:
        raise _unexpected(record)
    path = rest[numbers.end() :].removeprefix(b"./")
    kind = _kind(kinds)
    if kind == "u" and path == b".":
        path = b""
    if not safe_path(path) and not (kind == "u" and path == b""):
        raise _unexpected(record)
    size, sign, seconds, fraction, mode = numbers.groups()
    mtime = int(seconds) * 1_000_000_000 + int((fraction or b"0")[:9].ljust(9, b"0"))
    return Listed(path, kind, int(size) if kind == "f" else 0, -mtime if sign else mtime, int(mode, 8) & 0o777)


def _kind(kinds: bytes) -> str:
    if kinds[:1] == b"l":
        return "d" if kinds[1:] == b"d" else "l"
    return {b"f": "f", b"u": "u"}.get(kinds[:1], "o")


def _unexpected(record: bytes) -> AssetFailed:
    return AssetFailed(
        f"The list of media files holds something unexpected: {clean(record, 80)}",
        "Check that `find` on the host is GNU find.",
    )


@dataclass(slots=True)
class Listing:
    """All files and links of a tree, kept as sorted compressed runs, and what could not be listed."""

    files: int = 0
    size: int = 0
    """Bytes of all files."""
    links: int = 0
    others: int = 0
    """Sockets, pipes and devices, which are left out."""
    unreadable: list[bytes] = field(default_factory=list)
    """Directories that could not be opened: the first thousand."""
    unreadable_count: int = 0
    followed_not: list[bytes] = field(default_factory=list)
    """Symbolic links to directories: kept as links, what they lead to is not copied. The first thousand."""
    _runs: list[list[bytes]] = field(default_factory=list)
    _open: list[Listed] = field(default_factory=list)

    def add(self, listed: Listed) -> None:
        """Take the next record, in any order."""
        if listed.kind == "u":
            self.unreadable_count += 1
            if len(self.unreadable) < _KEEP_NAMES:
                self.unreadable.append(listed.path)
            return
        if listed.kind == "o":
            self.others += 1
            return
        if listed.kind == "f":
            self.files += 1
            self.size += listed.size
        else:
            self.links += 1
            if listed.kind == "d" and len(self.followed_not) < _KEEP_NAMES:
                self.followed_not.append(listed.path)
        self._open.append(listed)
        if len(self._open) >= _RUN:
            self._close_run()

    def drain(self) -> Iterator[Listed]:
        """Every file and link, sorted by path, once; memory is let go of on the way. A double path comes once."""
        runs, self._runs = self._runs, []
        rest, self._open = sorted(self._open), []
        last: bytes | None = None
        for listed in heapq.merge(*map(_read_run, runs), iter(rest)):
            if listed.path != last:
                yield listed
            last = listed.path

    def _close_run(self) -> None:
        self._open.sort()
        compressor = zstandard.ZstdCompressor(level=3)
        run = [_compress(compressor, self._open[at : at + _BLOCK]) for at in range(0, len(self._open), _BLOCK)]
        self._runs.append(run[::-1])
        self._open.clear()


def _compress(compressor: zstandard.ZstdCompressor, block: list[Listed]) -> bytes:
    raw = b"\0".join(b"%b\0%b %d %d %d" % (one.path, one.kind.encode(), one.size, one.mtime, one.mode) for one in block)
    return bytes(memoryview(compressor.compress(raw)))  # a copy of its own size; the result was made larger and shrunk


def _read_run(run: list[bytes]) -> Iterator[Listed]:
    decompressor = zstandard.ZstdDecompressor()
    while run:
        parts = decompressor.decompress(run.pop()).split(b"\0")
        for path, numbers in zip(parts[::2], parts[1::2], strict=True):
            kind, size, mtime, mode = numbers.split(b" ")
            yield Listed(path, kind.decode(), int(size), int(mtime), int(mode))
