"""The stream from plain bytes to stored ones and back: zstd (RFC 8878), then age (https://age-encryption.org/v1).

Nothing in here holds more than a few MiB of a stream, of whatever length.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyrage
import zstandard

from backends.archive.opening import unseal
from backends.archive.snapshot import Source
from backends.errors import KeyUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Sealed", "seal", "unseal"]

CHUNK = 256 * 1024
LEVEL = 3
_ZSTD_THREADS = 1
"""Beside the thread that encrypts, which is the slower one: a second would cost 10 MiB and gain nothing."""
_ZSTD_JOB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What one stream became. `plain_bytes` and `plain_sha256` are of what was read from the source."""

    bytes: int
    sha256: str
    plain_bytes: int
    plain_sha256: str


def seal(
    source: Source,
    sink: Callable[[bytes], None],
    recipients: Sequence[Any],
    *,
    compress: bool,
    level: int = LEVEL,
    plain_digest: bool = True,
) -> Sealed:
    """Read `source` to its end and give it to `sink` compressed (optionally) and encrypted, in pieces of any length.

    Without `plain_digest` the plain bytes are not hashed, and `Sealed.plain_sha256` is empty. Whatever `source` or
    `sink` raise comes through as it is; what was given to `sink` until then is no whole object.

    Raises:
        KeyUnavailable: there is no recipient.
    """
    if not recipients:
        raise KeyUnavailable("there is nobody to encrypt to", "`mastovault key new` makes a key.")
    plain = _Plain(source, _compressor(level) if compress else None, hashed=plain_digest)
    stored = _Stored(sink)
    try:
        pyrage.encrypt_io(io.BufferedReader(plain, CHUNK), stored, list(recipients))
    except BaseException as error:  # noqa: BLE001 - always raised again
        # pyrage wraps what its reader and writer raise; the first one to fail is the cause
        raise plain.error or stored.error or error from None
    # the end of a stream is written when pyrage lets go of it, and what fails then is not raised
    if failed := plain.error or stored.error:
        raise failed
    return Sealed(
        bytes=stored.count,
        sha256=stored.digest.hexdigest(),
        plain_bytes=plain.count,
        plain_sha256=plain.digest.hexdigest() if plain_digest else "",
    )


def _compressor(level: int) -> Any:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, threads=_ZSTD_THREADS, job_size=_ZSTD_JOB, write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()


class _Plain(io.RawIOBase):
    """What is to be encrypted, for pyrage to pull: the source, counted, hashed, and compressed where asked for."""

    def __init__(self, source: Source, compressor: Any, *, hashed: bool) -> None:
        self._source = source
        self._compressor = compressor
        self._hashed = hashed
        self._ready = memoryview(b"")
        self._ended = False
        self.count = 0
        self.digest = hashlib.sha256()
        self.error: BaseException | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as there is something ready."""
        try:
            while not self._ready and not self._ended:
                self._ready = memoryview(self._next())
        except BaseException as error:
            self.error = error
            raise
        target = memoryview(buffer)
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _next(self) -> bytes:
        data = self._source.read(CHUNK)
        if not data:
            self._ended = True
            return bytes(self._compressor.flush()) if self._compressor else b""
        self.count += len(data)
        if self._hashed:
            self.digest.update(data)
        return bytes(self._compressor.compress(data)) if self._compressor else data


class _Stored:
    """Where pyrage writes to: counts, hashes and passes on."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self.count = 0
        self.digest = hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self.digest.update(data)
            self._sink(data)
        except BaseException as error:
            self.error = error
            raise
        self.count += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""
