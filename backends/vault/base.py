"""The contract of every vault: a flat store of immutable objects under relative keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from os import SEEK_END
from types import TracebackType
from typing import BinaryIO, Literal, Self

from backends.errors import VaultError


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing shows it."""

    key: str
    bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultLook:
    """What a vault's own settings are, in so far as it tells."""

    versioning: Literal["on", "off", "suspended", ""] = ""
    """Whether what is overwritten or deleted is kept by the provider; empty where there is no such notion."""
    object_lock: str = ""
    """In words: `governance, 30 days`; empty without one."""
    note: str = ""
    """What else somebody who keeps backups there should know: what these credentials may not ask."""


class Upload(ABC):
    """An object being written. It does not exist for readers until `commit` has returned."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises `VaultFull` or `VaultError`; the upload must then be aborted."""

    @abstractmethod
    def commit(self) -> None:
        """Make the object durable and visible, all at once."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what was written. Never raises; does nothing after `commit`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()


class Vault(ABC):
    """A store of objects. Keys are relative, `/`-separated, of `[A-Za-z0-9._-]` parts, never `.` or `..`.

    Every method may be called from several threads at once. What can pass on its own is tried again inside, a bounded
    number of times; every fault comes out as a `VaultError` (`VaultFull`, `VaultDenied`, `NotFound`, `AlreadyExists`).
    """

    name: str
    offsite: bool
    where: str
    """For people: `/srv/mastovault`, `s3://bucket/prefix`. Cleaned, without credentials."""

    @abstractmethod
    def open_upload(self, key: str) -> Upload:
        """Begin to write an object of unknown length. Raises `VaultError` when the vault cannot be written."""

    @abstractmethod
    def put_new(self, key: str, data: bytes) -> None:
        """Write a small object at once, durably; the commit of a snapshot. Raises `AlreadyExists`, `VaultError`."""

    @abstractmethod
    def read(self, key: str) -> BinaryIO:
        """Open an object for reading from its start. Raises `NotFound`, `VaultError`."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in key order; leftovers of broken uploads are not among them."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room left, or None where the vault has no such notion."""

    @abstractmethod
    def machine_id(self) -> str | None:
        """The machine the bytes are on (as `/etc/machine-id`), or None for a service elsewhere."""

    @abstractmethod
    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        """Remove what broken uploads left before that time, of keys that begin with `prefix/`; returns how many."""

    def exclusive(self) -> bool:
        """Whether `put_new` is atomic: of several at once exactly one wins. Asked of the provider where in doubt.

        Raises `VaultError` when it cannot be asked.
        """
        return True

    def locked_until(self, key: str) -> datetime | None:
        """Until when an object can be neither changed nor removed, or None. Raises `NotFound`, `VaultError`."""
        return None

    def size(self, key: str) -> int | None:
        """Bytes of an object, asked by its key where a listing may lag; None where only reading it all would tell.

        Raises `NotFound`, `VaultError`.
        """
        with self.read(key) as stored:
            return stored.seek(0, SEEK_END) if stored.seekable() else None

    def read_many(self, keys: Iterable[str], limit: int) -> Iterator[tuple[str, bytes | VaultError]]:
        """The content of many small objects, in any order, at most `limit` + 1 bytes of each; or why there is none.

        Raises `VaultError` only when the vault is gone as a whole.
        """
        for key in keys:
            try:
                with self.read(key) as stored:
                    data = stored.read(limit + 1)
            except VaultError as error:
                yield key, error
            else:
                yield key, data

    def look(self) -> VaultLook:
        """What the vault's settings are. Never raises: what may not be asked stands in `note`."""
        return VaultLook()

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections. The vault can be used again afterwards. Never raises."""
