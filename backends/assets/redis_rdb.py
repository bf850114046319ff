"""Redis's snapshot format, as far as a backup must understand it: the header, and that the end is there.

The layout is that of Redis's own rdb.c: `REDIS` and four digits (Valkey from format 80: `VALKEY` and three), auxiliary
fields, the data, the opcode 255 and a checksum of eight bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from backends.archive.snapshot import Source
from backends.errors import AssetFailed
from backends.progress import Job
from backends.untrusted import clean

_HEAD = 4096
_TAIL = 9
_MARK = 40
_EOF = 0xFF
_AUX = 0xFA
_MAGIC = re.compile(rb"(?:REDIS(\d{4})|VALKEY(\d{3}))")
_HEX_MARK = re.compile(rb"[0-9a-f]{40}")
_CHUNK = 256 * 1024
_OLDEST_WITH_CHECKSUM = 5


@dataclass(frozen=True, slots=True)
class RdbHeader:
    """The beginning of a snapshot: its format's number and the auxiliary fields that were read."""

    version: int
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def created_at(self) -> int | None:
        """When Redis began to write it, in seconds since 1970 by the server's clock."""
        text = self.fields.get("ctime", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def parse_header(head: bytes) -> RdbHeader | None:
    """Read the beginning of a snapshot; None when it is none. A header that is cut off yields what was there."""
    magic = _MAGIC.match(head)
    if not magic:
        return None
    fields: dict[str, str] = {}
    position = magic.end()
    while position < len(head) and head[position] == _AUX:
        name, position = _string(head, position + 1)
        value, position = _string(head, position)
        if name is None or value is None:
            break
        fields[clean(name, 60)] = clean(value, 200)
    return RdbHeader(int(magic[1] or magic[2]), fields)


def _string(data: bytes, at: int) -> tuple[bytes | None, int]:
    """One encoded string and what follows it; None where it is compressed or cut off (then reading stops)."""
    first = data[at : at + 1]
    if not first:
        return None, len(data)
    kind, low = first[0] >> 6, first[0] & 0x3F
    if kind == 0:
        start, length = at + 1, low
    elif kind == 1:
        start, length = at + 2, low << 8 | int.from_bytes(data[at + 1 : at + 2], "big")
    elif kind == 2:
        width = 8 if low == 1 else 4
        start, length = at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width], "big")
    elif low < 3:
        end = at + 1 + (1 << low)
        raw = data[at + 1 : end]
        return (str(int.from_bytes(raw, "little", signed=True)).encode() if end <= len(data) else None), end
    else:
        return None, len(data)
    return (data[start : start + length] if start + length <= len(data) else None), start + length


class RdbStream:
    """A snapshot being read: its header is known from the start, its end is checked by `finish`.

    Args:
        source: the plain bytes.
        expected: how many will come, when that is known.
        job: where progress is counted.

    Raises:
        AssetFailed: what comes is no snapshot.
    """

    def __init__(self, source: Source, expected: int | None = None, job: Job | None = None) -> None:
        self._source = source
        self._expected = expected
        self._job = job
        self._ready = b""
        while len(self._ready) < _HEAD and (chunk := source.read(_HEAD)):
            self._ready += chunk
        header = parse_header(self._ready)
        if header is None:
            shown = clean(self._ready[:40], 40)
            raise AssetFailed(f"What came is no Redis snapshot, it begins with: {shown}" if shown else "Nothing came.")
        self.header = header
        self.bytes_read = 0
        self._tail = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        if self._ready:
            wanted = len(self._ready) if size < 0 else size
            chunk, self._ready = self._ready[:wanted], self._ready[wanted:]
        else:
            chunk = self._source.read(_CHUNK if size < 0 else size)
        if chunk:
            self.bytes_read += len(chunk)
            self._tail = (self._tail + chunk[-_TAIL:])[-_TAIL:]
            if self._job is not None:
                self._job.advance(len(chunk))
                self._job.check_cancelled()
        return chunk + self.read(-1) if size < 0 and chunk else chunk

    def finish(self) -> None:
        """Check length and end, once all was read. Raises `AssetFailed` when bytes are missing."""
        if self._expected is not None and self.bytes_read != self._expected:
            raise _torn(f"{self.bytes_read} of {self._expected} bytes came")
        has_end = len(self._tail) == _TAIL and self._tail[0] == _EOF
        if self.header.version >= _OLDEST_WITH_CHECKSUM and not has_end:
            raise _torn("its end is missing")


class UnmarkedSource:
    """Takes away the 40-byte mark that `redis-cli --rdb -` leaves at the end of a diskless transfer.

    With the mark the 49th last byte is the end opcode and 40 lower-case hexadecimal digits follow the checksum; without
    it the 9th last byte is the opcode, which no digit equals, so both cases can be told apart for certain.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._held = b""
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        keep = _TAIL + _MARK
        while not self._ended and len(self._held) <= keep:
            chunk = self._source.read(_CHUNK if size < 0 else max(size, 1))
            self._ended = not chunk
            self._held += chunk
            if self._ended and self._held[-keep:][:1] == b"\xff" and _HEX_MARK.fullmatch(self._held[-_MARK:]):
                self._held = self._held[:-_MARK]
        available = len(self._held) if self._ended else len(self._held) - keep
        wanted = available if size < 0 else min(size, available)
        piece, self._held = self._held[:wanted], self._held[wanted:]
        return piece + self.read(-1) if size < 0 and piece else piece


def _torn(why: str) -> AssetFailed:
    return AssetFailed(f"The Redis snapshot is cut off: {why}.", "Nothing was stored; run the backup again.")
