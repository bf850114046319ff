"""The index of a media snapshot, `files.ndjson`: one line per file, sorted by path (docs/format.md).

    {"path": "accounts/avatars/…/a.png", "size": 1, "mtime": 1700000000123456789, "mode": 420,
     "sha256": "…", "pack": "…", "offset": 512}

`path` is relative to the tree's root; a path that is not UTF-8 stands in base64 as `path_b64` instead. `mtime` is in
nanoseconds since 1970, `mode` the permission bits as a number, `offset` where the content begins in the plain pack.
A symbolic link has `link` (or `link_b64`), its target, and the size 0.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import zstandard

from backends.archive.snapshot import Source
from backends.errors import Damaged

_MAX_LINE = 256 * 1024
_CHUNK = 256 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACK = re.compile(r"[A-Za-z0-9._-]{1,64}")


class IndexEntry(NamedTuple):
    """One file of the tree, and where its content is. Entries sort by `path`, as raw bytes."""

    path: bytes
    size: int
    mtime: int
    """Nanoseconds since 1970; may be negative."""
    mode: int
    sha256: str
    pack: str
    offset: int
    link: bytes | None = None


def encode(entry: IndexEntry) -> bytes:
    """One line of the index, with its line feed."""
    record: dict[str, Any] = _named("path", entry.path)
    record |= {"size": entry.size, "mtime": entry.mtime, "mode": entry.mode, "sha256": entry.sha256}
    record |= {"pack": entry.pack, "offset": entry.offset}
    if entry.link is not None:
        record |= _named("link", entry.link)
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> IndexEntry:
    """Read one line of the index. Raises `Damaged` when it is none, or names a path outside the tree."""
    try:
        record = json.loads(line)
        path = _bytes_of(record, "path")
        numbers = [record[name] for name in ("size", "mtime", "mode", "offset")]
        sha256, pack = record["sha256"], record["pack"]
        link = _bytes_of(record, "link") if "link" in record or "link_b64" in record else None
        valid = (
            safe_path(path)
            and all(type(number) is int for number in numbers)
            and numbers[0] >= 0
            and 0 <= numbers[2] <= 0o7777
            and numbers[3] >= 0
            and bool(_SHA256.fullmatch(sha256))
            and bool(_PACK.fullmatch(pack))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("the index of the media holds a line that cannot be read") from error
    if not valid:
        raise Damaged("the index of the media holds a line with impossible values")
    size, mtime, mode, offset = numbers
    return IndexEntry(path, size, mtime, mode, sha256, pack, offset, link)


def read_index(source: Source) -> Iterator[IndexEntry]:
    """Every entry of a plain index, in bounded memory. Raises `Damaged` when it is torn or not sorted."""
    rest = b""
    last: bytes | None = None
    while chunk := source.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            entry = decode(line)
            if last is not None and entry.path <= last:
                raise Damaged("the index of the media is not sorted by path")
            last = entry.path
            yield entry
        if len(rest) > _MAX_LINE:
            raise Damaged("the index of the media holds a line of more than 256 KiB")
    if rest:
        raise Damaged("the index of the media ends in the middle of a line")


class IndexSpool:
    """Keeps an index in memory, compressed (about 50 bytes a file), until the packs are written."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=3).compressobj()
        self._parts: list[bytes] = []
        self._open = bytearray()
        self.entries = 0

    def add(self, entry: IndexEntry) -> None:
        """Take the next entry; the caller adds them in order of their paths."""
        self.entries += 1
        self._open += encode(entry)
        if len(self._open) >= _CHUNK:
            self._keep(self._compressor.compress(bytes(self._open)))
            self._open.clear()

    def source(self) -> Source:
        """The whole plain index to read once; nothing can be added afterwards."""
        self._keep(self._compressor.compress(bytes(self._open)))
        self._keep(self._compressor.flush())
        return _SpoolSource(self._parts)

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(bytes(memoryview(part)))  # a copy of its own size; the original was made larger


class _SpoolSource:
    """Decompresses the parts as they are asked for, and lets go of each."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts[::-1]
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._ready = b""

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        while not self._ready and self._parts:
            self._ready = self._decompressor.decompress(self._parts.pop())
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece


def safe_path(path: bytes) -> bool:
    """Whether a path stays inside its tree: relative, no empty part, no `.` or `..`, no NUL."""
    parts = path.split(b"/")
    return b"\0" not in path and not any(part in {b"", b".", b".."} for part in parts)


def _named(name: str, raw: bytes) -> dict[str, Any]:
    try:
        return {name: raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_b64": base64.b64encode(raw).decode("ascii")}


def _bytes_of(record: dict[str, Any], name: str) -> bytes:
    if name in record:
        text = record[name]
        return bytes(text.encode("utf-8"))
    try:
        return base64.b64decode(record[f"{name}_b64"], validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
