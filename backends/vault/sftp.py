"""A vault in a directory of another machine, over SFTP; nothing but the SFTP subsystem is asked of the server.

It looks like a directory vault: an object is written as a temporary file beside its place (a name that begins with a
dot), synced, and renamed. Nothing is followed through a symbolic link.
"""

from __future__ import annotations

import io
import re
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from backends.config.schema import SftpVault as SftpConfig
from backends.connection.address import parse_address
from backends.connection.reach import Timeouts
from backends.errors import AlreadyExists, ConfigurationError, NotFound, VaultDenied, VaultError, VaultFull
from backends.untrusted import clean
from backends.vault.base import StoredObject, Upload, Vault, VaultLook
from backends.vault.machine import machine_of
from backends.vault.names import PART, check_key
from backends.vault.sftp_files import Files, Room
from backends.vault.sftp_link import PATIENCE, SftpLink, VaultGone, is_loopback
from backends.vault.sftp_listing import Lister
from backends.vault.sftp_packets import FSYNC, HARDLINK, POSIX_RENAME, STATVFS, Attributes, Code, Status
from backends.vault.sftp_reading import SftpReading
from backends.vault.sftp_session import Lost
from backends.vault.sftp_tree import Taken, Tree
from backends.vault.sftp_upload import SftpUpload

_READERS = 16
_TIGHT = 4 * 1024 * 1024
"""Bytes; a file system that has less counts as full when a write failed and the server does not say why."""
_BUFFER = 256 * 1024
_MACHINE = re.compile(rb"[0-9a-f]{32}")
_LACKING = (
    (POSIX_RENAME, "cannot replace an object at once (posix-rename@openssh.com)"),
    (HARDLINK, "cannot tell who was first of several writers (hardlink@openssh.com)"),
    (FSYNC, "does not say when an object is on its disk (fsync@openssh.com)"),
    (STATVFS, "does not say how much room is left (statvfs@openssh.com)"),
)
"""What a server without an extension, or an account that may not use it, is worse at."""


class SftpVault(Vault):
    """A directory on a server, with files 0600 in directories 0700."""

    def __init__(
        self, name: str, config: SftpConfig, *, patience: float = PATIENCE, timeouts: Timeouts | None = None
    ) -> None:
        """Remember where it is; nothing is asked yet.

        Args:
            name: what it is called in the configuration.
            config: its settings.
            patience: seconds to wait for an answer.
            timeouts: of the steps of connecting.
        """
        self.name = name
        self.link = SftpLink(name, config, patience=patience, timeouts=timeouts)
        self.tree = Tree(config.path)
        root = self.tree.root
        self.where = clean(f"sftp://{config.address}{root if root[:1] in {'', '/'} else f'/~/{root}'}", 300)
        self.offsite = config.offsite if config.offsite is not None else not _is_here(config.address)
        self._exclusive: bool | None = None
        # Not at the end of the program, which would wait for whoever is just connecting.
        weakref.finalize(self, self.link.close).atexit = False

    def open_upload(self, key: str) -> Upload:
        """Begin a temporary file beside the object's place; an object of that key is replaced at commit."""
        check_key(key)

        def begin(files: Files) -> SftpUpload:
            handle, temporary = self.tree.begin(files, key)
            return SftpUpload(self, files, handle, temporary, key)

        with self.explained("write", key):
            return self.link.call(begin)

    def put_new(self, key: str, data: bytes) -> None:
        """Write a small object that must be new: only once it is whole it gets its name, unless that is taken."""
        check_key(key)
        left: list[bytes] = []

        def store(files: Files) -> bytes:
            handle, temporary = self.tree.begin(files, key)
            left.append(temporary)
            files.write_all(handle, data)
            return temporary

        try:
            with self.explained("write", key):
                temporary = self.link.call(store)
                with self.link.use() as files:
                    self.tree.name_new(files, temporary, key)
            left.remove(temporary)
        except Taken:
            raise AlreadyExists(f"{key} is already in {self.where}", "Nothing was changed.") from None
        finally:
            for temporary in left:
                self.remove_temporary(temporary)

    def read(self, key: str) -> BinaryIO:
        """Open an object; symbolic links and what is no regular file are refused."""
        check_key(key)

        def find(files: Files) -> SftpReading:
            known = self._object(files, key)
            return SftpReading(self, key, known, files, files.open_to_read(self.tree.path(key)))

        with self.explained("read", key):
            return cast(BinaryIO, io.BufferedReader(self.link.call(find), _BUFFER))

    def reopen(self, key: str, known: Attributes) -> tuple[Files, bytes]:
        """Open an object once more to read on; the caller gives the session back. Raises `VaultError`."""

        def find(files: Files) -> tuple[Files, bytes]:
            if self.tree.look(files, key) != known:
                raise VaultError(f"{key} in {self.where} changed while it was read", "Try again.")
            handle = files.open_to_read(self.tree.path(key))
            self.link.keep(files)
            return files, handle

        with self.explained("read", key):
            return self.link.call(find)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in key order. Names that are no key parts, links and temporary files are passed over."""
        *parents, start = prefix.split("/")
        if any(not PART.fullmatch(part) for part in parents):
            return
        with self.explained("list", prefix):
            there = self.link.call(lambda files: self.tree.are_directories(files, parents))
        if there:
            yield from Lister(self).walk("".join(f"{part}/" for part in parents), start)

    def delete(self, key: str) -> None:
        """Remove an object, and the directories that it leaves empty."""
        check_key(key)
        with self.explained("delete", key):
            self.link.call(lambda files: self.tree.remove(files, key))

    def free_bytes(self) -> int | None:
        """Room that this account may fill; of the nearest directory that exists."""
        room = self._room()
        return None if room is None else room.free

    def machine_id(self) -> str | None:
        """The server's, when it may be read; of an address of this machine this machine's."""
        with suppress(VaultError, Status):
            found = self.link.call(_read_machine)
            if found:
                return found
        return machine_of(Path("/")) if self.link.is_local() else None

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        """Remove temporary files that were last written before that time; `prefix` is a directory of the vault."""
        parents = prefix.rstrip("/").split("/") if prefix else []
        if any(not PART.fullmatch(part) for part in parents):
            return 0

        def sweep(files: Files) -> int:
            if not self.tree.are_directories(files, parents):
                return 0
            return self.tree.sweep(files, "/".join(parents), older_than.timestamp())

        with self.explained("delete", prefix):
            return self.link.call(sweep)

    def exclusive(self) -> bool:
        """Whether `put_new` is atomic: it is where the server makes hard links, which is tried once."""
        if self._exclusive is None:
            with self.explained("write", ""):
                self._exclusive = self.link.call(self.tree.links_work)
        return self._exclusive

    def size(self, key: str) -> int | None:
        """Bytes of an object. Raises `NotFound`, `VaultError`."""
        check_key(key)
        with self.explained("read", key):
            return self.link.call(lambda files: self._object(files, key)).size

    def read_many(self, keys: Iterable[str], limit: int) -> Iterator[tuple[str, bytes | VaultError]]:
        """Small objects, several at once, in the order they come."""

        def get(key: str) -> tuple[str, bytes | VaultError]:
            try:
                with self.read(key) as stored:
                    return key, stored.read(limit + 1)
            except VaultGone:
                raise
            except VaultError as error:
                return key, error

        pool = ThreadPoolExecutor(_READERS, "sftp-read")
        under_way: set[Future[tuple[str, bytes | VaultError]]] = set()
        left = iter(keys)
        try:
            while True:
                under_way |= {pool.submit(get, key) for key in islice(left, 2 * _READERS - len(under_way))}
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def look(self) -> VaultLook:
        """What the server lacks that a vault would like to have."""
        try:
            lacking = self.link.call(lambda files: [said for name, said in _LACKING if not files.has(name)])
        except VaultError as error:
            return VaultLook(note=error.sentence)
        return VaultLook(note=f"the server {', '.join(lacking)}" if lacking else "")

    def close(self) -> None:
        """Close the connection."""
        self.link.close()

    def unmake(self) -> None:
        """Remove the vault's own directory when this made it and nothing is in it. Never raises."""
        with suppress(VaultError, Status):
            self.link.call(self.tree.unmake)

    def remove_temporary(self, temporary: bytes) -> None:
        """Remove what a broken upload left, when that can be. Never raises."""
        with suppress(VaultError, Status):
            self.link.call(lambda files: files.remove(temporary))

    @contextmanager
    def explained(self, doing: str, key: str) -> Iterator[None]:
        """Turn what the server says, and a lost connection, into a sentence about this vault."""
        try:
            yield
        except Status as status:
            raise self._explain(status, doing, key) from None
        except Lost as lost:
            raise self.link.lost(lost) from None

    def _object(self, files: Files, key: str) -> Attributes:
        known = self.tree.look(files, key)
        if known is None:
            raise NotFound(f"{key} is not in {self.where}", "It may have been pruned; refresh.")
        if not known.is_file:
            raise VaultError(f"{key} in {self.where} is no regular file", "Somebody changed the vault by hand.")
        return known

    def _explain(self, status: Status, doing: str, key: str) -> VaultError:
        """What a status means for somebody who keeps backups here. Version 3 has hardly more to say than `Failure`."""
        said = status.text or f"status {status.code}"
        changing = doing in {"write", "replace", "delete"}
        room = self._room_or_none() if changing and status.code in {Code.FAILURE, Code.PERMISSION_DENIED} else None
        if (room and room.read_only) or "read-only" in said.lower():
            return VaultDenied(f"{self.where} is read-only", "Check how it is mounted there.")
        if status.code == Code.PERMISSION_DENIED:
            return VaultDenied(
                f"the server does not let this account {doing} {_named(key)} in {self.where}",
                "Check owner and mode of that directory on the server, and what its sshd_config allows the account.",
            )
        if status.code == Code.NO_SUCH_FILE:
            return NotFound(f"{_named(key)} is not in {self.where}", "Is its disk mounted there?")
        full = any(word in said.lower() for word in ("space", "quota"))
        if full or (doing != "delete" and room is not None and (room.no_files or room.free < _TIGHT)):
            return VaultFull(f"no room left in {self.where}", "Make room there, or prune old snapshots.")
        return VaultError(
            f"the server could not {doing} {_named(key)} in {self.where}: it says {said}",
            "Look there for a quota of the account and for faults of the disk.",
        )

    def _room(self) -> Room | None:
        try:
            return self.link.call(self.tree.room)
        except Status as status:
            raise self._explain(status, "ask for the room of", "") from None

    def _room_or_none(self) -> Room | None:
        with suppress(VaultError):
            return self._room()
        return None


def _read_machine(files: Files) -> str | None:
    """The server's `/etc/machine-id`; in a chroot there is none."""
    handle = files.open_to_read(b"/etc/machine-id")
    try:
        data = bytes(files.data(files.send_read(handle, 0, 64), 64)).strip()
    finally:
        files.close_later(handle)
    return data.decode("ascii") if _MACHINE.fullmatch(data) else None


def _is_here(address: str) -> bool:
    """Whether the address is this machine's, by its text alone."""
    try:
        return is_loopback(parse_address(address).host)
    except ConfigurationError:
        return False


def _named(key: str) -> str:
    return clean(key, 120) if key else "its directory"
