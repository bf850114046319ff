"""A vault in memory, each call of which is one indivisible step: to interleave several runs step by step."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from backends.errors import AlreadyExists, NotFound
from backends.vault.base import StoredObject, Upload, Vault


class ModelVault(Vault):
    """Objects in a dictionary, with modification times by a clock; `put_new` is atomic only when `atomic`."""

    offsite = True
    where = "memory"

    def __init__(self, now: Callable[[], float], *, atomic: bool, name: str = "model") -> None:
        self.name, self.atomic = name, atomic
        self.objects: dict[str, tuple[bytes, float]] = {}
        self._now = now
        self._beginning = datetime.now(UTC).replace(microsecond=1)
        self._step = threading.Lock()

    def put_new(self, key: str, data: bytes) -> None:
        with self._step:
            if self.atomic and key in self.objects:
                raise AlreadyExists(key)
            self.objects[key] = data, self._now()

    def open_upload(self, key: str) -> Upload:
        return _Upload(self, key)

    def read(self, key: str) -> BinaryIO:
        with self._step:
            if key not in self.objects:
                raise NotFound(key)
            return io.BytesIO(self.objects[key][0])

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        with self._step:
            found = sorted((key, value) for key, value in self.objects.items() if key.startswith(prefix))
        for key, (data, at) in found:
            yield StoredObject(key, len(data), self._beginning + timedelta(seconds=at))

    def delete(self, key: str) -> None:
        with self._step:
            self.objects.pop(key, None)

    def free_bytes(self) -> int | None:
        return None

    def machine_id(self) -> str | None:
        return None

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        return 0

    def exclusive(self) -> bool:
        return self.atomic

    def replace(self, key: str, data: bytes) -> None:
        """Write an object, whether it is there or not."""
        with self._step:
            self.objects[key] = data, self._now()


class _Upload(Upload):
    def __init__(self, vault: ModelVault, key: str) -> None:
        self._vault, self._key, self._data = vault, key, b""

    def write(self, data: bytes) -> None:
        self._data += data

    def commit(self) -> None:
        self._vault.replace(self._key, self._data)

    def abort(self) -> None:
        self._data = b""
