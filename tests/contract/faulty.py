"""A vault that fails at a chosen call, before it is carried out or after: what a lost connection looks like."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import BinaryIO

from backends.errors import VaultError
from backends.vault.base import StoredObject, Upload, Vault
from tests.contract.passing import PassingUpload, PassingVault

CALLS = ("read", "open_upload", "write", "commit", "list", "put_new", "delete")
ANY = "any"
"""Counts every call, whatever its name."""


class FaultyVault(PassingVault):
    """Passes every call on to another vault, and fails the `nth` call of one name, or of all calls (`ANY`).

    `after`: once it is done, as if the answer was lost. `for_good`: every call after it fails, too, undone. `error` is
    what it fails with. `calls` are the names of all calls so far; with `nth` 0 nothing fails and they are only counted.
    """

    def __init__(
        self,
        inner: Vault,
        call: str = ANY,
        nth: int = 1,
        *,
        after: bool = False,
        for_good: bool = False,
        error: type[VaultError] = VaultError,
    ) -> None:
        super().__init__(inner)
        self._call, self._left, self._after, self._for_good, self._error = call, nth, after, for_good, error
        self._guard = threading.Lock()
        self.calls: list[str] = []
        self.broken = False
        """Whether the call has failed."""

    def fail(self, call: str, *, done: bool) -> None:
        """Fail here when this is the chosen call."""
        with self._guard:
            if not done:
                self.calls.append(call)
            if self.broken and self._for_good:
                raise self._error("the vault is gone")
            if self._call not in (call, ANY) or done is not self._after or self._left <= 0:
                return
            self._left -= 1
            if self._left:
                return
            self.broken = True
        raise self._error(f"{call} failed {'after' if done else 'before'} it was done")

    def open_upload(self, key: str) -> Upload:
        self.fail("open_upload", done=False)
        upload = self.inner.open_upload(key)
        try:
            self.fail("open_upload", done=True)
        except VaultError:
            upload.abort()
            raise
        return _FaultyUpload(self, upload)

    def put_new(self, key: str, data: bytes) -> None:
        self.fail("put_new", done=False)
        self.inner.put_new(key, data)
        self.fail("put_new", done=True)

    def read(self, key: str) -> BinaryIO:
        self.fail("read", done=False)
        file = self.inner.read(key)
        try:
            self.fail("read", done=True)
        except VaultError:
            file.close()
            raise
        return file

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self.fail("list", done=False)
        yield from self.inner.list(prefix)
        self.fail("list", done=True)

    def delete(self, key: str) -> None:
        self.fail("delete", done=False)
        self.inner.delete(key)
        self.fail("delete", done=True)

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        self.fail("clean_leftovers", done=False)
        removed = self.inner.clean_leftovers(older_than, prefix)
        self.fail("clean_leftovers", done=True)
        return removed

    def exclusive(self) -> bool:
        self.fail("exclusive", done=False)
        answer = self.inner.exclusive()
        self.fail("exclusive", done=True)
        return answer

    def locked_until(self, key: str) -> datetime | None:
        self.fail("locked_until", done=False)
        until = self.inner.locked_until(key)
        self.fail("locked_until", done=True)
        return until

    def size(self, key: str) -> int | None:
        self.fail("size", done=False)
        size = self.inner.size(key)
        self.fail("size", done=True)
        return size

    def read_many(self, keys: Iterable[str], limit: int) -> Iterator[tuple[str, bytes | VaultError]]:
        if self._call not in ("read_many", ANY):  # one by one, so that each of them counts as a read
            yield from Vault.read_many(self, keys, limit)
            return
        self.fail("read_many", done=False)
        yield from self.inner.read_many(keys, limit)
        self.fail("read_many", done=True)


class _FaultyUpload(PassingUpload):
    def __init__(self, vault: FaultyVault, inner: Upload) -> None:
        super().__init__(inner)
        self._vault = vault

    def write(self, data: bytes) -> None:
        self._vault.fail("write", done=False)
        self.inner.write(data)
        self._vault.fail("write", done=True)

    def commit(self) -> None:
        self._vault.fail("commit", done=False)
        self.inner.commit()
        self._vault.fail("commit", done=True)
