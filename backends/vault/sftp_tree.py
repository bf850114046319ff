"""The directories and files of an SFTP vault: how a key becomes a path, and how a file gets its name for good."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress

from backends.vault.names import valid_key
from backends.vault.sftp_files import Files, Room
from backends.vault.sftp_packets import HARDLINK, POSIX_RENAME, Attributes, Code, Status

_TEMPORARY = re.compile(rb"\.[^/]*\.part")
_LINKS = b".links.part"
"""Made by `links_work` with a link, so where it is there are links; it stays only where nothing may be removed."""
_TRIES = 50
_MAKING = 8
"""Times that a directory is made again: others may make and remove it at any moment, and `Failure` tells nothing."""
_REFUSED = frozenset({Code.PERMISSION_DENIED, Code.OP_UNSUPPORTED})


class Taken(Exception):
    """There is an object of that name already."""


class Tree:
    """The part of a server's file system that is the vault. Methods raise `Status` and `Lost`."""

    def __init__(self, path: str) -> None:
        """Begin at the directory of the configuration; `~/x`, `./x` and `x` are below the login directory."""
        below = path.removeprefix("~/").removeprefix("./")
        self.root = below.rstrip("/") or ("" if below.startswith("/") else ".")
        self._root = self.root.encode("utf-8", "surrogateescape")
        self._known: set[str] = set()
        """Directories that were seen, or made, as such."""
        self.made: list[bytes] = []
        """The vault's own directory and those above it, in so far as they were made by this; the highest first."""

    def path(self, key: str) -> bytes:
        """Where a key is on the server; the vault's own directory for an empty one."""
        return self._root + b"/" + key.encode("ascii") if key else self._root or b"/"

    def begin(self, files: Files, key: str) -> tuple[bytes, bytes]:
        """A new temporary file beside a key's place: its handle and its path."""
        parents = key.split("/")[:-1]
        temporary = self._beside("/".join(parents), f".{secrets.token_hex(12)}.part".encode())
        for again in range(_TRIES, -1, -1):
            try:
                self._make(files, parents)
                return files.open_new(temporary), temporary
            except Status as status:
                # Another process may just have removed a directory because it was empty.
                self._known -= {"/".join(parents[:depth]) for depth in range(len(parents) + 1)}
                if status.code != Code.NO_SUCH_FILE or not again:
                    raise
        raise AssertionError("unreachable")

    def look(self, files: Files, key: str) -> Attributes | None:
        """What an object is; None when it is not there, or behind a link."""
        *parents, _ = key.split("/")
        if not self.are_directories(files, parents):
            return None
        (found,) = files.lstat(self.path(key))
        if isinstance(found, Status):
            if found.code == Code.NO_SUCH_FILE:
                return None
            raise found
        return found

    def are_directories(self, files: Files, parents: Sequence[str]) -> bool:
        """Whether each is a directory of the vault, and no link to one; those that were seen before are."""
        above = ("/".join(parents[:depth]) for depth in range(1, len(parents) + 1))
        unseen = [each for each in above if each not in self._known]
        for directory, found in zip(unseen, files.lstat(*map(self.path, unseen)), strict=True):
            if isinstance(found, Status):
                if found.code == Code.NO_SUCH_FILE:
                    return False
                raise found
            if not found.is_directory:
                return False
            self._known.add(directory)
        return True

    def remove(self, files: Files, key: str) -> None:
        """Remove an object, durably, and the directories that it leaves empty."""
        *parents, _ = key.split("/")
        if not self.are_directories(files, parents):
            return
        _removed(files, self.path(key))
        files.sync_directory(self.path("/".join(parents)))
        for depth in range(len(parents), 0, -1):
            directory = "/".join(parents[:depth])
            with suppress(Status):
                files.remove_directory(self.path(directory))
                self._known.discard(directory)
                continue
            return

    def replace(self, files: Files, temporary: bytes, key: str) -> None:
        """Give a temporary file its name, over what may be there."""
        target = self.path(key)
        if not _renamed_over(files, temporary, target):
            try:
                files.rename(temporary, target)
            except Status:
                # Version 3 renames over nothing. For a moment there is no object then, but never half of one.
                if not _exists(files, target):
                    raise
                files.remove(target)
                files.rename(temporary, target)
        files.sync_directory(_above(target))

    def name_new(self, files: Files, temporary: bytes, key: str) -> None:
        """Give a temporary file its name. Raises `Taken` when something has it."""
        target = self.path(key)
        try:
            if files.openssh:
                # Its rename makes a link, then removes the old name (sftp-server.c, process_rename): so it never
                # replaces anything, and it is one request, which needs no right to remove.
                files.rename(temporary, target)
            elif not _linked(files, temporary, target):
                if _exists(files, target):
                    raise Taken
                files.rename(temporary, target)
        except Status:
            if _exists(files, target):
                raise Taken from None
            raise
        files.sync_directory(_above(target))

    def links_work(self, files: Files) -> bool:
        """Whether a link can be made, and not over anything: then of several writers of a new name one wins."""
        if not files.has(HARDLINK):
            return False
        links = self._beside("", _LINKS)
        if _exists(files, links):
            return True
        handle, temporary = self.begin(files, "probe")
        files.close_later(handle)
        try:
            with suppress(Status):
                files.link(temporary, links)
                files.link(temporary, links)
                return False  # a server that replaces
            return _exists(files, links)
        finally:
            for path in (links, temporary):
                with suppress(Status):
                    files.remove(path)

    def room(self, files: Files) -> Room | None:
        """What is left where the vault is, or will be."""
        path = self.path("")
        while True:
            try:
                return files.room(path)
            except Status as status:
                if status.code != Code.NO_SUCH_FILE or b"/" not in path.rstrip(b"/"):
                    raise
                path = _above(path)

    def sweep(self, files: Files, directory: str, before: float) -> int:
        """Remove the temporary files below a directory that are older; returns how many."""
        removed, left = 0, [directory]
        while left:
            directory = left.pop()
            path = self.path(directory)
            for raw, known in _names(files, path):
                name = f"{directory}/" * bool(directory) + raw.decode("ascii", "replace")
                if known.is_directory and valid_key(name):
                    left.append(name)
                elif _TEMPORARY.fullmatch(raw) and known.modified is not None and known.modified < before:
                    removed += _removed(files, path.rstrip(b"/") + b"/" + raw)
        return removed

    def _beside(self, directory: str, name: bytes) -> bytes:
        return self.path(directory).rstrip(b"/") + b"/" + name

    def _make(self, files: Files, parents: Sequence[str]) -> None:
        """Make the directories that are missing on the way, durably."""
        for depth in range(len(parents) + 1):
            directory = "/".join(parents[:depth])
            if directory not in self._known:
                if depth:
                    _make_one(files, self.path(directory))
                else:
                    self._make_root(files, self.path(""))
                self._known.add(directory)

    def _make_root(self, files: Files, path: bytes) -> None:
        """Make the vault's own directory and those above it; it may be a link to a directory."""
        try:
            files.stat(path)
        except Status as status:
            if status.code != Code.NO_SUCH_FILE:
                raise
            if b"/" in path.strip(b"/"):
                self._make_root(files, _above(path))
            _make_one(files, path)
            self.made.append(path)

    def unmake(self, files: Files) -> None:
        """Remove the vault's own directory again when it was made by this and is empty, and those above it."""
        self._known.discard("")
        while self.made:
            files.remove_directory(self.made.pop())


def _removed(files: Files, path: bytes) -> bool:
    """Whether a file was there to be removed."""
    try:
        files.remove(path)
    except Status as status:
        if status.code == Code.NO_SUCH_FILE:
            return False
        raise
    return True


def _names(files: Files, path: bytes) -> list[tuple[bytes, Attributes]]:
    """What is in a directory; nothing when it was removed meanwhile."""
    try:
        return list(files.names(path))
    except Status as status:
        if status.code == Code.NO_SUCH_FILE:
            return []
        raise


def _make_one(files: Files, path: bytes) -> None:
    """Make a directory unless it is there; above it there is one."""
    for again in range(_MAKING, -1, -1):
        (found,) = files.lstat(path)
        if isinstance(found, Attributes):
            if not found.is_directory:
                raise Status(Code.FAILURE, "a link or a file is in the way of a directory")
            return
        try:
            files.make_directory(path)
        except Status as status:
            if status.code == Code.NO_SUCH_FILE or not again:
                raise
        else:
            files.sync_directory(_above(path))
            return


def _renamed_over(files: Files, old: bytes, new: bytes) -> bool:
    """Whether it could be done at once; servers that append only may refuse it."""
    if files.has(POSIX_RENAME):
        try:
            files.rename_over(old, new)
        except Status as status:
            if status.code not in _REFUSED:
                raise
        else:
            return True
    return False


def _linked(files: Files, old: bytes, new: bytes) -> bool:
    """Whether it could be done by a link; some file systems have none."""
    if not files.has(HARDLINK):
        return False
    try:
        files.link(old, new)
    except Status as status:
        if status.code not in _REFUSED:
            raise
        return False
    files.remove(old)
    return True


def _exists(files: Files, path: bytes) -> bool:
    (found,) = files.lstat(path)
    return isinstance(found, Attributes)


def _above(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or (b"/" if path.startswith(b"/") else b".")
