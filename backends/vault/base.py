"""The contract of every vault: a flat store of immutable objects under relative keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Self


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing shows it."""

    key: str
    bytes: int
    modified_at: datetime


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
    """A store of objects. Keys are relative, `/`-separated, of `[A-Za-z0-9._-]` parts, never `.` or `..`."""

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
