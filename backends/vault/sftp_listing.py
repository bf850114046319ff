"""Listing an SFTP vault: in key order, while directories further on are already being read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backends.vault.base import StoredObject
from backends.vault.names import MAX_KEY, PART
from backends.vault.sftp_files import Files
from backends.vault.sftp_packets import Attributes, Code, Status

if TYPE_CHECKING:
    from backends.vault.sftp import SftpVault

_AHEAD = 32
_THREADS = 16

Entries = list[tuple[str, Attributes]]
"""Names in key order; that of a directory ends in a slash."""


def entries(files: Files, path: bytes, start: str = "") -> Entries:
    """What is in a directory and may be part of a key; nothing when it is not there any more. Raises `Status`."""
    found: Entries = []
    unknown: list[str] = []
    try:
        for raw, known in files.names(path):
            name = raw.decode("ascii", "replace")
            if not name.startswith(start) or not PART.fullmatch(name):
                continue
            if known.mode is None:
                unknown.append(name)
            elif known.is_directory or known.is_file:
                found.append((name + "/" if known.is_directory else name, known))
    except Status as status:
        if status.code != Code.NO_SUCH_FILE:
            raise
    for name, seen in zip(unknown, files.lstat(*(path + b"/" + name.encode() for name in unknown)), strict=True):
        if isinstance(seen, Attributes) and (seen.is_directory or seen.is_file):
            found.append((name + "/" if seen.is_directory else name, seen))
    return sorted(found, key=lambda entry: entry[0])  # `a-b/x` comes before `a/x`, as in every other kind of vault


class Lister:
    """One listing of one vault."""

    def __init__(self, vault: SftpVault) -> None:
        self._vault = vault
        self._pool: ThreadPoolExecutor | None = None

    def walk(self, above: str, start: str) -> Iterator[StoredObject]:
        """Everything below a directory of the vault whose first part begins with `start`. Raises `VaultError`."""
        try:
            yield from self._walk(self._read(above, start), above)
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def _walk(self, found: Entries, above: str) -> Iterator[StoredObject]:
        # A server could make directories in directories without end.
        found = [entry for entry in found if len(above) + len(entry[0]) <= MAX_KEY]
        directories = deque(above + name for name, _ in found if name.endswith("/"))
        alone = len(directories) == 1
        coming: deque[Future[Entries]] = deque()
        for name, known in found:
            if not name.endswith("/"):
                modified = datetime.fromtimestamp(known.modified or 0, UTC)
                yield StoredObject(above + name, known.size or 0, modified)
                continue
            while directories and len(coming) < _AHEAD and not alone:
                coming.append(self._begin(directories.popleft()))
            below = self._read(above + name, "") if alone else coming.popleft().result()
            yield from self._walk(below, above + name)

    def _begin(self, directory: str) -> Future[Entries]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "sftp-list")
        return self._pool.submit(self._read, directory, "")

    def _read(self, directory: str, start: str) -> Entries:
        vault = self._vault
        path = vault.tree.path(directory.rstrip("/"))
        with vault.explained("list", directory):
            return vault.link.call(lambda files: entries(files, path, start))
