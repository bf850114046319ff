"""What SFTP packets are made of (draft-ietf-secsh-filexfer-02); reads what a hostile server may have written."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from enum import IntEnum

HARDLINK = b"hardlink@openssh.com"
POSIX_RENAME = b"posix-rename@openssh.com"
FSYNC = b"fsync@openssh.com"
STATVFS = b"statvfs@openssh.com"
LIMITS = b"limits@openssh.com"

_SIZE, _OWNER, _MODE, _TIMES, _EXTENDED = 1, 2, 4, 8, 0x80000000


class Kind(IntEnum):
    """Packet types."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    STAT = 17
    RENAME = 18
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Code(IntEnum):
    """Status codes; everything that has none of its own is FAILURE, a full disk too."""

    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    OP_UNSUPPORTED = 8


class Malformed(Exception):
    """A packet ends before its fields do, or is none that was asked for."""


class Status(Exception):
    """The server says that a request failed."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a server says of a file; None where it says nothing."""

    size: int | None
    mode: int | None
    modified: int | None
    """Seconds since 1970, by the server's clock."""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory, and no link to one."""
        return self.mode is not None and stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, and no link to one."""
        return self.mode is not None and stat.S_ISREG(self.mode)


class Fields:
    """The fields of a packet, one after another. Everything raises `Malformed` at its end."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body = memoryview(body)
        self._at = at

    @property
    def at_end(self) -> bool:
        """Whether there are no more."""
        return self._at >= len(self._body)

    def number(self, size: int = 4) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self._take(size), "big")

    def string(self) -> bytes:
        """A string of bytes."""
        return bytes(self.view())

    def view(self) -> memoryview:
        """The same without a copy."""
        return self._take(self.number())

    def string_or_empty(self) -> bytes:
        """A string that old servers leave out."""
        return b"" if self.at_end else self.string()

    def attributes(self) -> Attributes:
        """A file's attributes."""
        flags = self.number()
        size = self.number(8) if flags & _SIZE else None
        if flags & _OWNER:
            self._take(8)
        mode = self.number() if flags & _MODE else None
        modified = self.number(8) & 0xFFFFFFFF if flags & _TIMES else None  # the first half is the access time
        if flags & _EXTENDED:
            for _ in range(self.number()):
                self.view()
                self.view()
        return Attributes(size, mode, modified)

    def _take(self, size: int) -> memoryview:
        if size > len(self._body) - self._at:
            raise Malformed
        self._at += size
        return self._body[self._at - size : self._at]


def string(text: bytes) -> bytes:
    """A string as it is sent."""
    return len(text).to_bytes(4, "big") + text


def number(value: int, size: int = 4) -> bytes:
    """An unsigned number as it is sent."""
    return value.to_bytes(size, "big")


def mode_only(mode: int) -> bytes:
    """Attributes of which only the permissions are set."""
    return number(_MODE) + number(mode)
