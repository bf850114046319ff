"""The checksum at the end of a Redis snapshot, for machines that have no redis-check-rdb.

CRC-64 as Redis computes it (src/crc64.c): Jones's polynomial, reflected, beginning and ending with 0; the last eight
bytes of the file hold it with the low byte first, and zeros mean that none was computed.
"""

from __future__ import annotations

import functools

_POLYNOMIAL = 0x95AC9329AC4BC9B5
_TRAILER = 8


@functools.cache
def _tables() -> tuple[tuple[int, ...], ...]:
    """Eight tables, so that eight bytes are taken at a time."""
    first = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        first.append(value)
    tables = [tuple(first)]
    for _ in range(7):
        tables.append(tuple(first[value & 0xFF] ^ (value >> 8) for value in tables[-1]))
    return tuple(tables)


class RdbChecksum:
    """Takes the bytes of a snapshot as they pass by. About 10 MB a second."""

    def __init__(self) -> None:
        self._crc = 0
        self._held = b""

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        whole = self._held + data
        body, self._held = whole[:-_TRAILER], whole[-_TRAILER:]
        self._crc = _advance(self._crc, body)

    @property
    def fits(self) -> bool:
        """Whether the bytes so far end in their own checksum, or in zeros."""
        said = int.from_bytes(self._held, "little")
        return len(self._held) == _TRAILER and said in {0, self._crc}


def _advance(crc: int, data: bytes) -> int:
    even = len(data) // 8 * 8
    t0, t1, t2, t3, t4, t5, t6, t7 = _tables()
    for at in range(0, even, 8):
        crc ^= int.from_bytes(data[at : at + 8], "little")
        crc = (
            t7[crc & 0xFF]
            ^ t6[crc >> 8 & 0xFF]
            ^ t5[crc >> 16 & 0xFF]
            ^ t4[crc >> 24 & 0xFF]
            ^ t3[crc >> 32 & 0xFF]
            ^ t2[crc >> 40 & 0xFF]
            ^ t1[crc >> 48 & 0xFF]
            ^ t0[crc >> 56]
        )
    for byte in data[even:]:
        crc = t0[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc
