"""A vault that takes bytes and then hangs, and that knows what it is asked after that."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from backends.errors import VaultError
from backends.vault.base import StoredObject, Upload, Vault
from tests.contract.passing import PassingUpload, PassingVault


class HangingVault(PassingVault):
    """Hangs when an object is made durable, until it is let go on; `asked` is what somebody wanted of it meanwhile."""

    def __init__(self, inner: Vault, *, hangs: bool = True) -> None:
        super().__init__(inner)
        self.hangs = hangs
        self.stuck = threading.Event()
        self.gate = threading.Event()
        self.asked: list[str] = []

    def open_upload(self, key: str) -> Upload:
        self._note(f"upload {key}")
        return _HangingUpload(self, self.inner.open_upload(key))

    def put_new(self, key: str, data: bytes) -> None:
        self._note(f"put {key}")
        super().put_new(key, data)

    def read(self, key: str) -> BinaryIO:
        self._note(f"read {key}")
        return super().read(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self._note(f"list {prefix}")
        return super().list(prefix)

    def read_many(self, keys: Iterable[str], limit: int) -> Iterator[tuple[str, bytes | VaultError]]:
        self._note("read many")
        return super().read_many(keys, limit)

    def delete(self, key: str) -> None:
        self._note(f"delete {key}")
        super().delete(key)

    def free_bytes(self) -> int | None:
        self._note("free")
        return super().free_bytes()

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        if self.stuck.is_set() and not self.gate.is_set():
            self.asked.append(what)


class _HangingUpload(PassingUpload):
    def __init__(self, vault: HangingVault, inner: Upload) -> None:
        super().__init__(inner)
        self._vault = vault

    def commit(self) -> None:
        if self._vault.hangs:
            self._vault.stuck.set()
            assert self._vault.gate.wait(30)
        self.inner.commit()
