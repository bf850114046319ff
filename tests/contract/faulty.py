"""A vault that fails at a chosen call, before it is carried out or after: what a lost connection looks like."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

from backends.errors import VaultError
from backends.vault.base import StoredObject, Upload, Vault

CALLS = ("read", "open_upload", "write", "commit", "list", "put_new", "delete")


class FaultyVault(Vault):
    """Passes every call on to another vault, and fails the `nth` call of one name."""

    def __init__(self, inner: Vault, call: str, nth: int = 1, *, after: bool = False, for_good: bool = False) -> None:
        self.inner = inner
        self.name, self.offsite, self.where = inner.name, inner.offsite, inner.where
        self._call, self._left, self._after, self._for_good = call, nth, after, for_good
        self._broken = False

    def _pass(self, call: str, *, done: bool) -> None:
        if self._broken and self._for_good:
            raise VaultError("the vault is gone")
        if call != self._call or done is not self._after or self._left <= 0:
            return
        self._left -= 1
        if self._left == 0:
            self._broken = True
            raise VaultError(f"{call} failed {'after' if done else 'before'} it was done")

    def open_upload(self, key: str) -> Upload:
        self._pass("open_upload", done=False)
        upload = self.inner.open_upload(key)
        try:
            self._pass("open_upload", done=True)
        except VaultError:
            upload.abort()
            raise
        return _FaultyUpload(self, upload)

    def put_new(self, key: str, data: bytes) -> None:
        self._pass("put_new", done=False)
        self.inner.put_new(key, data)
        self._pass("put_new", done=True)

    def read(self, key: str) -> BinaryIO:
        self._pass("read", done=False)
        file = self.inner.read(key)
        self._pass("read", done=True)
        return file

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self._pass("list", done=False)
        yield from self.inner.list(prefix)
        self._pass("list", done=True)

    def delete(self, key: str) -> None:
        self._pass("delete", done=False)
        self.inner.delete(key)
        self._pass("delete", done=True)

    def free_bytes(self) -> int | None:
        return self.inner.free_bytes()

    def machine_id(self) -> str | None:
        return self.inner.machine_id()

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        return self.inner.clean_leftovers(older_than, prefix)

    def fail(self, call: str, *, done: bool) -> None:
        """For the uploads: fail here when it is the chosen call."""
        self._pass(call, done=done)


class _FaultyUpload(Upload):
    def __init__(self, vault: FaultyVault, inner: Upload) -> None:
        self._vault, self._inner = vault, inner

    def write(self, data: bytes) -> None:
        self._vault.fail("write", done=False)
        self._inner.write(data)
        self._vault.fail("write", done=True)

    def commit(self) -> None:
        self._vault.fail("commit", done=False)
        self._inner.commit()
        self._vault.fail("commit", done=True)

    def abort(self) -> None:
        self._inner.abort()
