"""The stream from stored bytes to plain ones: age, then zstd. See `codec.unseal`."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import pyrage
import zstandard

from backends.archive.snapshot import Source
from backends.errors import Damaged, KeyUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 256 * 1024
_SLICE = 1024
"""How much compressed input is given to zstd at once: a hostile stream unpacks it to 32 MiB at most."""
_AHEAD = 2 * 1024 * 1024
"""Plain bytes that may wait for their reader."""


def unseal(stored: Source, identities: Sequence[Any], codecs: Sequence[str]) -> BinaryIO:
    """A stream of the plain bytes of a stored object; `codecs` as its manifest lists them, `("zstd", "age")`.

    Reading raises what reading `stored` raises, and:
        KeyUnavailable: none of the identities opens it.
        Damaged: it was changed or cut off. Bytes read before that are genuine.
    Close it to end its thread; `stored` is left open.
    """
    if list(codecs) not in (["age"], ["zstd", "age"]):
        raise Damaged(f"the codecs {list(codecs)} are not known", "A newer Mastovault may read this object.")
    channel = _Channel()
    threading.Thread(target=_decrypt, args=(stored, channel, list(identities)), name="unseal", daemon=True).start()
    return io.BufferedReader(_Opened(channel, unzip="zstd" in codecs), _CHUNK)


class _ReaderGone(Exception):
    """Nobody reads any more."""


class _Channel:
    """A bounded pipe of byte pieces between two threads, which ends with an error or without."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Pass a piece on; blocks while too much waits. Raises `_ReaderGone`."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < _AHEAD or self._closed)
            if self._closed:
                raise _ReaderGone
            self._pieces.append(data)
            self._held += len(data)
            self._changed.notify_all()
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def end(self, error: BaseException | None = None) -> None:
        """Say that no more comes, and why."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def read(self) -> bytes:
        """The next piece; b"" at the end. Raises what ended the writer."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended)
            if self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece)
                self._changed.notify_all()
                return piece
            if self._error is not None:
                raise self._error
            return b""

    def close(self) -> None:
        """Say that nobody reads any more."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._changed.notify_all()


class _Watched:
    """Reads for pyrage, and remembers what went wrong in it."""

    def __init__(self, stored: Source) -> None:
        self._stored = stored
        self.error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stored.read(size)
        except BaseException as error:
            self.error = error
            raise


def _decrypt(stored: Source, channel: _Channel, identities: list[Any]) -> None:
    watched = _Watched(stored)
    try:
        pyrage.decrypt_io(watched, channel, identities)
    except BaseException as error:  # noqa: BLE001 - carried over to the thread that reads
        channel.end(watched.error or _explain(error))
    else:
        channel.end()


def _explain(error: BaseException) -> BaseException:
    if isinstance(error, pyrage.DecryptError) and "No matching keys" in str(error):
        return KeyUnavailable(
            "no identity at hand opens this object", "Use the identity of one of the recipients in its manifest."
        )
    if isinstance(error, pyrage.DecryptError | OSError):
        return Damaged("the stored object was changed or is cut off", "Use another copy of it.")
    return error


class _Opened(io.RawIOBase):
    """The plain bytes, as a raw stream."""

    def __init__(self, channel: _Channel, *, unzip: bool) -> None:
        self._channel = channel
        self._unzip = _Unzip() if unzip else None
        self._ready = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as there is something ready."""
        while not self._ready and not self._ended:
            self._ready = memoryview(self._next())
        target = memoryview(buffer)
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        """End the thread that decrypts."""
        self._channel.close()
        super().close()

    def _next(self) -> bytes:
        if self._unzip is not None:
            if self._unzip.waiting:
                return self._unzip.next()
            piece = self._channel.read()
            if piece:
                self._unzip.waiting = memoryview(piece)
                return b""
            self._unzip.end()
        elif piece := self._channel.read():
            return piece
        self._ended = True
        return b""


class _Unzip:
    """zstd frames, one after another, a slice at a time."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor()
        self._frame: Any = None
        self.waiting = memoryview(b"")

    def next(self) -> bytes:
        """Unpack one slice of what waits."""
        slice_, self.waiting = self.waiting[:_SLICE], self.waiting[_SLICE:]
        parts = []
        rest = bytes(slice_)
        try:
            while rest:
                self._frame = self._frame or self._context.decompressobj()
                parts.append(self._frame.decompress(rest))
                rest = b""
                if self._frame.eof:
                    rest, self._frame = self._frame.unused_data, None
        except zstandard.ZstdError as error:
            raise Damaged("the stored object holds no valid zstd stream", "Use another copy of it.") from error
        return b"".join(parts)

    def end(self) -> None:
        """Check that the last frame was whole."""
        if self._frame is not None:
            raise Damaged("the stored object ends in the middle of its zstd stream", "Use another copy of it.")
