"""The operations on files that a vault needs, over one SFTP session."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backends.vault.sftp_packets import (
    FSYNC,
    HARDLINK,
    LIMITS,
    POSIX_RENAME,
    STATVFS,
    Attributes,
    Code,
    Fields,
    Kind,
    Malformed,
    Status,
    mode_only,
    number,
    string,
)
from backends.vault.sftp_session import Lost, Reply, Session

_ALWAYS = 32 * 1024
"""Bytes of a read or write that every server takes (section 3 of the draft)."""
_MOST = 255 * 1024
"""What OpenSSH takes since 8.5."""
_READ, _WRITE, _CREATE, _EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
_READ_ONLY = 1
_NAMES = 2_000_000
"""Names of one directory; a server could send them without end."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has left for this account."""

    free: int
    no_files: bool
    """It takes no further file, however small."""
    read_only: bool


class Files:
    """One session's file operations. Each raises `Status` when the server refuses, `Lost` when the session is over."""

    def __init__(self, session: Session, server: str) -> None:
        """Ask the server for its limits.

        Args:
            session: a session that has begun.
            server: how the server calls itself (`SSH-2.0-OpenSSH_9.2`).
        """
        self.session = session
        self.openssh = "OpenSSH" in server
        self.read_size = self.write_size = _ALWAYS
        self._syncs_directories = self.has(FSYNC)
        self.left_open: deque[bytes] = deque()
        """Handles of files that nobody closed."""
        if self.has(LIMITS):
            with suppress(Status):
                fields = self._ask(Kind.EXTENDED, string(LIMITS), Kind.EXTENDED_REPLY)
                _, reads, writes = (self._read(fields) for _ in range(3))
                self.read_size, self.write_size = _size(reads), _size(writes)

    def has(self, extension: bytes) -> bool:
        """Whether the server knows an extension."""
        return extension in self.session.extensions

    def lstat(self, *paths: bytes) -> list[Attributes | Status]:
        """What each path is, links not followed; asked for all at once."""
        return self._stat(Kind.LSTAT, paths)

    def stat(self, path: bytes) -> Attributes:
        """What a path is, or the file a link leads to."""
        (found,) = self._stat(Kind.STAT, (path,))
        if isinstance(found, Status):
            raise found
        return found

    def open_new(self, path: bytes) -> bytes:
        """Make a file, 0600, that must not be there, and open it to write."""
        flags = number(_WRITE | _CREATE | _EXCLUSIVE)
        return self._handle(Kind.OPEN, string(path) + flags + mode_only(0o600))

    def open_to_read(self, path: bytes) -> bytes:
        """Open a file."""
        while self.left_open:
            self.close_later(self.left_open.popleft())
        return self._handle(Kind.OPEN, string(path) + number(_READ) + number(0))

    def send_write(self, handle: bytes, offset: int, data: bytes | memoryview) -> Reply:
        """Begin to write; `done` waits for the end."""
        return self.session.send(Kind.WRITE, string(handle) + number(offset, 8) + number(len(data)), data)

    def write_all(self, handle: bytes, data: bytes) -> None:
        """Write a small file at once, put it on the disk and close it."""
        try:
            for at in range(0, len(data), self.write_size):
                self.done(self.send_write(handle, at, data[at : at + self.write_size]))
            self.sync(handle)
        except BaseException:
            self.close_later(handle)  # what is removed while it is open still takes room
            raise
        self.close(handle)

    def send_read(self, handle: bytes, offset: int, size: int) -> Reply:
        """Begin to read; `data` waits for the end."""
        return self.session.send(Kind.READ, string(handle) + number(offset, 8) + number(size))

    def data(self, reply: Reply, size: int) -> memoryview:
        """What was read, at most `size` bytes; empty at the end of the file."""
        try:
            fields = self._expect(self.session.wait(reply), Kind.DATA)
        except Status as status:
            if status.code == Code.EOF:
                return memoryview(b"")
            raise
        try:
            found = fields.view()
        except Malformed:
            raise self.session.garbage() from None
        if len(found) > size:
            raise self.session.garbage()
        return found

    def done(self, reply: Reply, *, slow: bool = False) -> None:
        """Wait until a request is carried out."""
        self._expect(self.session.wait(reply, slow=slow), Kind.STATUS)

    def sync(self, handle: bytes) -> None:
        """Have what was written put on the disk, where the server can."""
        if self.has(FSYNC):
            try:
                self.done(self.session.send(Kind.EXTENDED, string(FSYNC) + string(handle)), slow=True)
            except Status as status:
                if status.code not in {Code.OP_UNSUPPORTED, Code.PERMISSION_DENIED}:
                    raise

    def sync_directory(self, path: bytes) -> None:
        """Have a directory's names put on the disk, where the server can; OpenSSH opens directories, too."""
        if not self._syncs_directories:
            return
        try:
            handle = self.open_to_read(path)
            try:
                self.sync(handle)
            finally:
                self.close_later(handle)
        except Status:
            self._syncs_directories = False

    def close(self, handle: bytes) -> None:
        """Close a file; a network file system may say only here that it has no room."""
        self.done(self.session.send(Kind.CLOSE, string(handle)), slow=True)

    def close_later(self, handle: bytes) -> None:
        """Close a file without waiting for it."""
        with suppress(Lost):
            self.session.send(Kind.CLOSE, string(handle))

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        self._do(Kind.REMOVE, string(path))

    def make_directory(self, path: bytes) -> None:
        """Make a directory, 0700."""
        self._do(Kind.MKDIR, string(path) + mode_only(0o700))

    def remove_directory(self, path: bytes) -> None:
        """Remove a directory that is empty."""
        self._do(Kind.RMDIR, string(path))

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename; nothing may be there under the new name."""
        self._do(Kind.RENAME, string(old) + string(new))

    def rename_over(self, old: bytes, new: bytes) -> None:
        """Rename at once over what is there; needs `POSIX_RENAME`."""
        self._do(Kind.EXTENDED, string(POSIX_RENAME) + string(old) + string(new))

    def link(self, old: bytes, new: bytes) -> None:
        """Give a file a second name, which must not be there; needs `HARDLINK`."""
        self._do(Kind.EXTENDED, string(HARDLINK) + string(old) + string(new))

    def room(self, path: bytes) -> Room | None:
        """What is left on the file system of a path; None where the server cannot say."""
        if not self.has(STATVFS):
            return None
        fields = self._ask(Kind.EXTENDED, string(STATVFS) + string(path), Kind.EXTENDED_REPLY)
        _, unit, _, _, free, files, _, free_files, _, flags, _ = (self._read(fields) for _ in range(11))
        return Room(unit * free, bool(files) and not free_files, bool(flags & _READ_ONLY))

    def names(self, path: bytes) -> Iterator[tuple[bytes, Attributes]]:
        """What is in a directory, in no order, with what each is (a link is a link)."""
        handle = self._handle(Kind.OPENDIR, string(path))
        count = 0
        try:
            # The second answer is most often the end: both at once save a round trip.
            asked = [self.session.send(Kind.READDIR, string(handle)) for _ in range(2)]
            while asked:
                entries = self._entries(asked.pop(0))
                if entries is None:
                    break
                asked.append(self.session.send(Kind.READDIR, string(handle)))
                count += len(entries)
                if count > _NAMES:
                    raise Status(Code.FAILURE, "a directory without end")
                yield from entries
        finally:
            self.close_later(handle)

    def _entries(self, reply: Reply) -> list[tuple[bytes, Attributes]] | None:
        try:
            fields = self._expect(self.session.wait(reply), Kind.NAME)
        except Status as status:
            if status.code == Code.EOF:
                return None
            raise
        found = []
        try:
            for _ in range(fields.number()):
                name = fields.string()
                fields.view()
                found.append((name, fields.attributes()))
        except Malformed:
            raise self.session.garbage() from None
        return found

    def _stat(self, kind: Kind, paths: Sequence[bytes]) -> list[Attributes | Status]:
        found: list[Attributes | Status] = []
        for reply in [self.session.send(kind, string(path)) for path in paths]:
            try:
                found.append(self._expect(self.session.wait(reply), Kind.ATTRS).attributes())
            except Malformed:
                raise self.session.garbage() from None
            except Status as status:
                found.append(status)
        return found

    def _handle(self, kind: Kind, fields: bytes) -> bytes:
        try:
            return self._ask(kind, fields, Kind.HANDLE).string()
        except Malformed:
            raise self.session.garbage() from None

    def _do(self, kind: Kind, fields: bytes) -> None:
        self.done(self.session.send(kind, fields))

    def _ask(self, kind: Kind, fields: bytes, wanted: Kind) -> Fields:
        return self._expect(self.session.wait(self.session.send(kind, fields)), wanted)

    def _expect(self, answer: tuple[int, Fields], wanted: Kind) -> Fields:
        kind, fields = answer
        if kind != wanted:
            raise self.session.garbage()
        return fields

    def _read(self, fields: Fields) -> int:
        try:
            return fields.number(8)
        except Malformed:
            raise self.session.garbage() from None


def _size(offered: int) -> int:
    """What to read or write at once; 0 means that the server did not say."""
    return min(max(offered, _ALWAYS), _MOST) if offered else _ALWAYS
