"""The first bytes of a pg_dump custom archive (PostgreSQL: src/bin/pg_dump/pg_backup_archiver.c, ReadHead)."""

from __future__ import annotations

from dataclasses import dataclass

import zstandard

from backends.archive.snapshot import Source
from backends.errors import Damaged
from backends.untrusted import clean

MAGIC = b"PGDMP"
HEADER_BYTES = 11
_SHOWN = 60
_CUSTOM = 1
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A zstd block holds at most 128 KiB; a stream whose first 1 MiB gives no block is not one of zstd.
_MOST_TO_LOOK_AT = 1024 * 1024
_PIECE = 512


@dataclass(frozen=True, slots=True)
class DumpHeader:
    """Format version of an archive (`1.14.0` for PostgreSQL 12 to 15, `1.15.0` and later for 16 on)."""

    version: str


def parse_header(data: bytes, where: str) -> DumpHeader:
    """Read the header of a custom-format dump from its first bytes.

    Args:
        data: at least `HEADER_BYTES` bytes from the beginning.
        where: for the sentence, for example `the dump from social`.

    Raises:
        Damaged: it is something else.
    """
    if not data:
        raise Damaged(f"{where} is empty.", "Run the backup again and look at the job's log.")
    if not data.startswith(MAGIC):
        begins = clean(data[:_SHOWN], _SHOWN).strip()
        raise Damaged(
            f"{where} is no PostgreSQL dump: it begins with “{begins}”.",
            "If a login shell prints a greeting, silence it for sessions without a terminal (~/.bashrc).",
        )
    if len(data) < HEADER_BYTES:
        raise Damaged(f"{where} ends within its header.", "Run the backup again and look at the job's log.")
    if data[10] != _CUSTOM:
        raise Damaged(f"{where} is a PostgreSQL dump in another format than custom (-Fc).")
    return DumpHeader(version=f"{data[5]}.{data[6]}.{data[7]}")


def check_stored_header(plain: Source, where: str) -> DumpHeader:
    """Check the beginning of a stored dump after decryption and decompression; reads at most 60 bytes.

    Raises:
        Damaged: it is no dump in custom format.
    """
    data = b""
    while len(data) < _SHOWN and (more := plain.read(_SHOWN - len(data))):
        data += more
    return parse_header(data, where)


class HeaderWatch:
    """Checks the header of a stream in passing, through its zstd when the host has compressed it."""

    def __init__(self, where: str, *, zstd: bool) -> None:
        self._where = where
        self._decoder = zstandard.ZstdDecompressor().decompressobj() if zstd else None
        self._seen = b""
        self._raw = 0
        self._first = b""
        self.header: DumpHeader | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream. Raises `Damaged` as soon as it cannot be a dump."""
        if self.header is not None:
            return
        self._raw += len(data)
        if self._decoder is None:
            self._seen += data[:_SHOWN]
        else:
            if len(self._first) < len(_ZSTD_MAGIC):
                self._first += data[:_SHOWN]
                if not _ZSTD_MAGIC.startswith(self._first[: len(_ZSTD_MAGIC)]):
                    parse_header(self._first, self._where)
            self._decompress(data)
        if len(self._seen) >= HEADER_BYTES or not MAGIC.startswith(self._seen[: len(MAGIC)]):
            self.header = parse_header(self._seen, self._where)
            self._decoder = None
        elif self._raw > _MOST_TO_LOOK_AT:
            raise Damaged(f"{self._where} is not compressed by zstd as it should be.")

    def finish(self) -> DumpHeader:
        """The header, once the stream has ended. Raises `Damaged` when there was none."""
        if self.header is not None:
            return self.header
        compressed = self._first.startswith(_ZSTD_MAGIC)
        return parse_header(self._seen if compressed else self._seen or self._first, self._where)

    def _decompress(self, data: bytes) -> None:
        # In small pieces: four hostile bytes can stand for 128 KiB
        for start in range(0, len(data), _PIECE):
            if self._decoder is None or len(self._seen) >= HEADER_BYTES:
                return
            try:
                self._seen += self._decoder.decompress(data[start : start + _PIECE])[:_SHOWN]
            except zstandard.ZstdError as error:
                raise Damaged(f"{self._where} is not compressed by zstd as it should be.") from error
