"""Long lists in little memory: entries to fetch in the order of the packs, and plain records."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import zstandard

from backends.archive.file_index import IndexEntry, decode, encode

_RUN = 16 * 1024
_BLOCK = 512
"""Entries that are in the open per run while merging."""
_FLUSH = 64 * 1024

_Key = tuple[int, int]


class Wanted:
    """Entries of an index, given back sorted by pack and place in it: about 70 bytes each.

    Packs are numbered as they first come. A snapshot's index is mostly in the order of its packs, and then its entries
    are in order already.
    """

    def __init__(self, entries: Iterable[IndexEntry] = ()) -> None:
        self.files = 0
        self.bytes = 0
        self._packs: dict[str, int] = {}
        self._runs: list[list[bytes]] = []
        self._ends: list[_Key] = []
        self._open: list[tuple[_Key, IndexEntry]] = []
        for entry in entries:
            self.add(entry)

    def add(self, entry: IndexEntry) -> None:
        """Take one more, in any order."""
        self.files += 1
        self.bytes += entry.size
        number = self._packs.setdefault(entry.pack, len(self._packs))
        self._open.append(((number, entry.offset), entry))
        if len(self._open) >= _RUN:
            self._close_run()

    def __iter__(self) -> Iterator[IndexEntry]:
        """All of them, once; memory is let go of on the way."""
        rest, self._open = sorted(self._open), []
        runs, self._runs = self._runs, []
        for _, entry in heapq.merge(*map(self._read, runs), iter(rest)):
            yield entry

    def _close_run(self) -> None:
        self._open.sort()
        compressor = zstandard.ZstdCompressor(level=3)
        blocks = []
        for at in range(0, len(self._open), _BLOCK):
            raw = b"".join(encode(entry) for _, entry in self._open[at : at + _BLOCK])
            blocks.append(bytes(memoryview(compressor.compress(raw))))  # a copy of its own size
        first, last = self._open[0][0], self._open[-1][0]
        self._open.clear()
        for place, end in enumerate(self._ends):
            if end <= first:
                self._runs[place] += blocks
                self._ends[place] = last
                return
        self._runs.append(blocks)
        self._ends.append(last)

    def _read(self, run: list[bytes]) -> Iterator[tuple[_Key, IndexEntry]]:
        decompressor = zstandard.ZstdDecompressor()
        run.reverse()
        while run:
            for line in decompressor.decompress(run.pop()).splitlines():
                entry = decode(line)
                yield (self._packs[entry.pack], entry.offset), entry


class Records:
    """NUL-separated records, kept compressed, read back once."""

    def __init__(self) -> None:
        self.count = 0
        self._compressor = zstandard.ZstdCompressor(level=3).compressobj()
        self._parts: list[bytes] = []
        self._open = bytearray()

    def add(self, record: bytes) -> None:
        """Take one; it holds no NUL."""
        self.count += 1
        self._open += record + b"\0"
        if len(self._open) >= _FLUSH:
            self._keep(self._compressor.compress(bytes(self._open)))
            self._open.clear()

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces; nothing can be added afterwards."""
        self._keep(self._compressor.compress(bytes(self._open)))
        self._keep(self._compressor.flush())
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        parts, self._parts = self._parts[::-1], []
        while parts:
            if piece := decompressor.decompress(parts.pop()):
                yield piece

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(bytes(memoryview(part)))
