"""A vault that passes every call on to another one: what the wrappers of the tests are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import BinaryIO

from backends.errors import VaultError
from backends.vault.base import StoredObject, Upload, Vault, VaultLook


class PassingVault(Vault):
    """Another vault, unchanged."""

    def __init__(self, inner: Vault) -> None:
        self.inner = inner
        self.name, self.offsite, self.where = inner.name, inner.offsite, inner.where

    def open_upload(self, key: str) -> Upload:
        return self.inner.open_upload(key)

    def put_new(self, key: str, data: bytes) -> None:
        self.inner.put_new(key, data)

    def read(self, key: str) -> BinaryIO:
        return self.inner.read(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        yield from self.inner.list(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def free_bytes(self) -> int | None:
        return self.inner.free_bytes()

    def machine_id(self) -> str | None:
        return self.inner.machine_id()

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        return self.inner.clean_leftovers(older_than, prefix)

    def exclusive(self) -> bool:
        return self.inner.exclusive()

    def locked_until(self, key: str) -> datetime | None:
        return self.inner.locked_until(key)

    def size(self, key: str) -> int | None:
        return self.inner.size(key)

    def read_many(self, keys: Iterable[str], limit: int) -> Iterator[tuple[str, bytes | VaultError]]:
        yield from self.inner.read_many(keys, limit)

    def look(self) -> VaultLook:
        return self.inner.look()

    def close(self) -> None:
        self.inner.close()


class PassingUpload(Upload):
    """Another vault's upload, unchanged."""

    def __init__(self, inner: Upload) -> None:
        self.inner = inner

    def write(self, data: bytes) -> None:
        self.inner.write(data)

    def commit(self) -> None:
        self.inner.commit()

    def abort(self) -> None:
        self.inner.abort()
