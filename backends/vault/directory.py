"""A vault in a directory of this machine, or of one mounted here.

Every object is written as a temporary file beside its place (a name that begins with a dot), synced, renamed, and the
directory synced. Directories are walked part by part without following symbolic links, so that nothing that was put
into the vault leads out of it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from backends.errors import NotFound, VaultError, VaultFull
from backends.untrusted import clean
from backends.vault.base import StoredObject, Upload, Vault
from backends.vault.file_upload import NO_LINKS, FileUpload
from backends.vault.machine import machine_of
from backends.vault.names import PART, check_key

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TEMPORARY = ".part"
_TRIES = 50


class DirectoryVault(Vault):
    """A directory with files 0600 in directories 0700."""

    def __init__(self, name: str, path: Path, *, offsite: bool = False) -> None:
        self.name = name
        self.path = path
        self.offsite = offsite
        self.where = clean(str(path), 300)
        self._exclusive: bool | None = None

    def open_upload(self, key: str) -> Upload:
        """Begin a temporary file beside the object's place; an object of that key is replaced at commit."""
        check_key(key)
        with self._explained():
            return FileUpload(self, *self._begin(key))

    def put_new(self, key: str, data: bytes) -> None:
        """Write a small object that must be new: the temporary file is linked to its name, which fails when taken."""
        check_key(key)
        with self._explained():
            upload = FileUpload(self, *self._begin(key))
        with upload:
            upload.write(data)
            upload.commit(new=True)

    def read(self, key: str) -> BinaryIO:
        """Open an object; symbolic links and what is no regular file are refused."""
        check_key(key)
        *parents, name = key.split("/")
        try:
            with self._explained(reading=True), self._directory(parents) as directory:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except _Absent:
            raise NotFound(f"{key} is not in {self.where}", "It may have been pruned; refresh.") from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise VaultError(f"{key} in {self.where} is no regular file", "Somebody changed the vault by hand.")
        return os.fdopen(file, "rb")

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in key order. Names that are no key parts, links and temporary files are passed over."""
        *parents, start = prefix.split("/")
        if any(not PART.fullmatch(part) for part in parents):
            return
        try:
            with self._explained(reading=True), self._directory(parents) as directory:
                yield from self._walk(directory, "".join(f"{part}/" for part in parents), start)
        except _Absent:
            return

    def delete(self, key: str) -> None:
        """Remove an object, and the directories that it leaves empty."""
        check_key(key)
        *parents, name = key.split("/")
        with suppress(_Absent), self._explained(reading=True), self._directory(parents) as directory:
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)
        while parents:
            *above, last = parents
            try:
                with self._directory(above) as directory:
                    os.rmdir(last, dir_fd=directory)
            except OSError:
                return
            parents = above

    def free_bytes(self) -> int | None:
        """Room that this user may fill; of the nearest directory that exists."""
        place = self.path
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            room = os.statvfs(place)
        except OSError:
            return None
        return room.f_bavail * room.f_frsize

    def machine_id(self) -> str | None:
        """This machine, unless the directory is on a network file system."""
        return machine_of(self.path)

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        """Remove temporary files that were last written before that time; `prefix` is a directory of the vault."""
        parents = prefix.rstrip("/").split("/") if prefix else []
        if any(not PART.fullmatch(part) for part in parents):
            return 0
        with suppress(_Absent), self._explained(reading=True), self._directory(parents) as directory:
            return self._sweep(directory, older_than.timestamp())
        return 0

    def exclusive(self) -> bool:
        """Whether the file system makes hard links; without them `put_new` only looks first. Tried once."""
        if self._exclusive is None:
            with self._explained():
                self._exclusive = self._makes_links()
        return self._exclusive

    def _makes_links(self) -> bool:
        directory, file, temporary, _ = self._begin("leases/probe")
        linked = f".{secrets.token_hex(12)}{_TEMPORARY}"
        try:
            os.link(temporary, linked, src_dir_fd=directory, dst_dir_fd=directory)
            os.unlink(linked, dir_fd=directory)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
        finally:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            os.close(file)
            os.close(directory)
            self.delete("leases/probe")  # which is not there; this removes the directory, if nobody else needs it
        return True

    def _begin(self, key: str) -> tuple[int, int, str, str]:
        """The open directory, the open temporary file, its name, and the name it is to get."""
        *parents, name = key.split("/")
        temporary = f".{secrets.token_hex(12)}{_TEMPORARY}"
        for again in range(_TRIES, -1, -1):
            try:
                directory = self._make(parents)
                try:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    return directory, os.open(temporary, flags, 0o600, dir_fd=directory), temporary, name
                except OSError:
                    os.close(directory)
                    raise
            except FileNotFoundError:  # another process just removed a directory because it was empty
                if not again:
                    raise
        raise AssertionError("unreachable")

    def _make(self, parents: Sequence[str]) -> int:
        """Open a directory, making what is missing on the way, durably. The caller closes it."""
        if not self.path.is_dir():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(self.path.parent)
        directory = os.open(self.path, _DIRECTORY)
        for part in parents:
            try:
                below = self._enter(directory, part)
            finally:
                os.close(directory)
            directory = below
        return directory

    def _enter(self, directory: int, part: str) -> int:
        with suppress(FileNotFoundError):
            return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        with suppress(FileExistsError):
            os.mkdir(part, 0o700, dir_fd=directory)
            os.fsync(directory)
        return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)

    @contextmanager
    def _directory(self, parents: Sequence[str]) -> Iterator[int]:
        """An open directory of the vault. Raises `_Absent` when it is not there."""
        directory = os.open(self.path, _DIRECTORY)
        try:
            for part in parents:
                below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                os.close(directory)
                directory = below
            yield directory
        finally:
            os.close(directory)

    def _walk(self, directory: int, above: str, start: str) -> Iterator[StoredObject]:
        entries = []
        with os.scandir(directory) as found:
            for entry in found:
                if entry.name.startswith(start) and PART.fullmatch(entry.name):
                    is_directory = entry.is_dir(follow_symlinks=False)
                    entries.append((entry.name + "/" if is_directory else entry.name, is_directory, entry))
        entries.sort(key=lambda each: each[0])  # `a-b/x` comes before `a/x`, as in every other kind of vault
        for name, is_directory, entry in entries:
            try:
                if is_directory:
                    below = os.open(entry.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                    try:
                        yield from self._walk(below, above + name, "")
                    finally:
                        os.close(below)
                elif entry.is_file(follow_symlinks=False):
                    known = entry.stat(follow_symlinks=False)
                    yield StoredObject(above + name, known.st_size, datetime.fromtimestamp(known.st_mtime, UTC))
            except FileNotFoundError:  # removed since it was listed
                continue

    def _sweep(self, directory: int, before: float) -> int:
        removed = 0
        with os.scandir(directory) as found:
            entries = list(found)
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False) and PART.fullmatch(entry.name):
                    below = os.open(entry.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                    try:
                        removed += self._sweep(below, before)
                    finally:
                        os.close(below)
                elif _is_temporary(entry) and entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(entry.name, dir_fd=directory)
                    removed += 1
        return removed

    @contextmanager
    def _explained(self, *, reading: bool = False) -> Iterator[None]:
        """Turn an `OSError` into a sentence about this vault; below a file there is nothing to read."""
        try:
            yield
        except FileNotFoundError as error:
            raise _Absent(f"a directory of {self.where} is not there", "Is its disk mounted?") from error
        except NotADirectoryError as error:
            absent = _Absent(f"{self.where} has no such directory", "") if reading else None
            raise absent or self.explain(error) from error
        except OSError as error:
            raise self.explain(error) from error

    def explain(self, error: OSError) -> VaultError:
        """What an `OSError` means for somebody who keeps backups here."""
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return VaultFull(f"no room left in {self.where}", "Make room there, or prune old snapshots.")
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            said = "is read-only" if error.errno == errno.EROFS else "may not be used by this user"
            return VaultError(f"{self.where} {said}", "Check its owner and mode, and how it is mounted.")
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            return VaultError(
                f"in {self.where} something that should be a directory or a file is not", "A link is not followed."
            )
        return VaultError(f"{self.where} failed: {error.strerror or error}", "Check that disk.")


class _Absent(VaultError):
    """A directory or file of the vault is not there."""


def _is_temporary(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") and entry.name.endswith(_TEMPORARY)


def _sync_directory(path: Path) -> None:
    with suppress(OSError):
        directory = os.open(path, _DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
