"""An object of an SFTP vault while it is written: a temporary file beside its place."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from backends.vault.base import Upload
from backends.vault.sftp_files import Files
from backends.vault.sftp_session import Reply

if TYPE_CHECKING:
    from backends.vault.sftp import SftpVault

_UNDER_WAY = 64
"""Writes that are not answered yet; as many as OpenSSH's own client."""


class SftpUpload(Upload):
    """A temporary file that becomes an object at commit. What was cut stays cut: it raises `VaultError`."""

    def __init__(self, vault: SftpVault, files: Files, handle: bytes, temporary: bytes, key: str) -> None:
        """Take over an open file."""
        vault.link.keep(files)
        self._vault, self._files, self._handle = vault, files, handle
        self._temporary, self._key = temporary, key
        self._pieces: list[bytes] = []
        self._held = 0
        self._offset = 0
        self._under_way: deque[Reply] = deque()
        self._over = False

    def write(self, data: bytes) -> None:
        """Take the next bytes; they are sent in pieces as large as the server takes, and answered later."""
        self._pieces.append(bytes(data))
        self._held += len(data)
        if self._held >= self._files.write_size:
            with self._vault.explained("write", self._key):
                self._send(self._files.write_size)

    def commit(self) -> None:
        """Have it on the disk, then give it its name, over what may be there."""
        with self._vault.explained("write", self._key):
            self._send(1)
            while self._under_way:
                self._files.done(self._under_way.popleft())
            self._files.sync(self._handle)
            handle, self._handle = self._handle, b""
            self._files.close(handle)
        with self._vault.explained("replace", self._key):
            self._vault.tree.replace(self._files, self._temporary, self._key)
        self._release()

    def abort(self) -> None:
        """Close and remove the temporary file, on a new connection when this one is lost."""
        if self._over:
            return
        self._release()
        self._pieces = []
        if self._handle:
            self._files.close_later(self._handle)
        self._vault.remove_temporary(self._temporary)

    def _release(self) -> None:
        self._over = True
        self._vault.link.give_back(self._files)

    def _send(self, least: int) -> None:
        """Send what is held, in whole pieces, and with `least` below a piece the rest as well."""
        held = memoryview(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        size = self._files.write_size
        at = 0
        while len(held) - at >= least:
            piece = held[at : at + size]
            while len(self._under_way) >= _UNDER_WAY:
                self._files.done(self._under_way.popleft())
            self._under_way.append(self._files.send_write(self._handle, self._offset, piece))
            self._offset += len(piece)
            at += len(piece)
        rest = bytes(held[at:])
        self._pieces, self._held = ([rest] if rest else []), len(rest)
