"""One vault's copy of a snapshot, read under watch: every stored byte counts, and a cancel stops the next read."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, cast

from backends.errors import Damaged, VaultError
from backends.progress import Job
from backends.untrusted import clean
from backends.vault.base import StoredObject, Upload, Vault


class WatchedVault(Vault):
    """Another vault, to read from only; a job counts what is read."""

    def __init__(self, inner: Vault, job: Job) -> None:
        self.name, self.offsite, self.where = inner.name, inner.offsite, inner.where
        self._inner, self._job = inner, job

    def read(self, key: str) -> BinaryIO:
        """Open an object. Reading it raises `Damaged` where the disk cannot read it, and `Cancelled`."""
        return cast(BinaryIO, _Watched(self._inner.read(key), key, self._job))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """As the other."""
        return self._inner.list(prefix)

    def free_bytes(self) -> int | None:
        """As the other."""
        return self._inner.free_bytes()

    def machine_id(self) -> str | None:
        """As the other."""
        return self._inner.machine_id()

    def open_upload(self, key: str) -> Upload:
        """Never."""
        raise VaultError(f"{self.name} is only read")

    def put_new(self, key: str, data: bytes) -> None:
        """Never."""
        raise VaultError(f"{self.name} is only read")

    def delete(self, key: str) -> None:
        """Never."""
        raise VaultError(f"{self.name} is only read")

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        """Never."""
        raise VaultError(f"{self.name} is only read")


class _Watched:
    def __init__(self, file: BinaryIO, key: str, job: Job) -> None:
        self._file, self._key, self._job = file, key, job

    def read(self, size: int = -1, /) -> bytes:
        self._job.check_cancelled()
        try:
            data = self._file.read(size)
        except OSError as error:
            name = clean(self._key.rpartition("/")[2], 100)
            if error.errno == errno.EIO:
                raise Damaged(f"the disk cannot read {name}", "Use another copy, and look at that disk.") from error
            raise VaultError(f"{name} cannot be read: {error.strerror}", "Is the vault's disk still there?") from error
        self._job.advance(len(data))
        return data

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
