"""An object of an SFTP vault while it is read: several requests ahead, and on after a lost connection."""

from __future__ import annotations

import io
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from backends.vault.sftp_files import Files
from backends.vault.sftp_packets import Attributes, Status
from backends.vault.sftp_session import Lost, Reply

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from backends.vault.sftp import SftpVault

_FIRST = 64 * 1024
"""Bytes asked for at the opening: a manifest comes whole, and whoever reads no further asked for little."""
_AHEAD = 8 * 1024 * 1024
"""Bytes asked for ahead at most."""
_TRIES = 3
"""Connections that may be lost in a row without a byte between."""


class SftpReading(io.RawIOBase):
    """The bytes of one file, in order."""

    def __init__(self, vault: SftpVault, key: str, known: Attributes, files: Files, handle: bytes) -> None:
        """Take over an open file."""
        super().__init__()
        vault.link.keep(files)
        self._vault, self._key, self._known = vault, key, known
        self._files, self._handle = files, handle
        self._size = known.size or 0
        self._received = 0
        self._asked = 0
        """Up to where was asked for; what is under way is in order and without a gap."""
        self._under_way: deque[tuple[Reply, int]] = deque()
        self._data = memoryview(b"")
        self._tries = _TRIES
        with suppress(Lost):  # the first read notices
            self._ask(_FIRST)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some bytes; 0 at the end. Raises `VaultError`."""
        if not self._data:
            self._data = self._next()
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._data))
        view[:size] = self._data[:size]
        self._data = self._data[size:]
        return size

    def readall(self) -> bytes:
        """Read all that is left."""
        pieces = [self._data]
        while piece := self._next():
            pieces.append(piece)
        self._data = memoryview(b"")
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file, without waiting for the server."""
        if not self.closed:
            super().close()
            self._files.close_later(self._handle)
            self._vault.link.give_back(self._files)
            self._under_way.clear()

    def __del__(self) -> None:
        """Leave the closing to the next who opens a file: this may run in the middle of a request."""
        if not self.closed:
            super().close()
            self._files.left_open.append(self._handle)
            self._vault.link.give_back(self._files)

    def _next(self) -> memoryview:
        """The next bytes that came; empty at the end."""
        while True:
            try:
                return self._take()
            except Status as status:
                with self._vault.explained("read", self._key):
                    raise status from None
            except Lost as lost:
                self._tries -= 1
                if self._tries < 0 or lost.silent:
                    raise self._vault.link.lost(lost) from None
                self._again()

    def _take(self) -> memoryview:
        while self._asked < self._size and self._asked - self._received < _AHEAD:
            self._ask(self._files.read_size)
        if not self._under_way:
            return memoryview(b"")
        reply, size = self._under_way.popleft()
        data = self._files.data(reply, size)
        self._received += len(data)
        if not data:  # shorter than it was a moment ago; whoever reads compares the digest
            self._size = self._received
            self._under_way.clear()
        elif len(data) < size:
            rest = size - len(data)
            self._under_way.appendleft((self._files.send_read(self._handle, self._received, rest), rest))
        self._tries = _TRIES
        return data

    def _ask(self, most: int) -> None:
        size = min(most, self._files.read_size, self._size - self._asked)
        if size > 0:
            self._under_way.append((self._files.send_read(self._handle, self._asked, size), size))
            self._asked += size

    def _again(self) -> None:
        """Open the same file on a new connection, and go on from where this one ended."""
        files, handle = self._vault.reopen(self._key, self._known)
        self._vault.link.give_back(self._files)
        self._files, self._handle = files, handle
        self._under_way.clear()
        self._asked = self._received
