"""Reading an object as a stream that survives a broken connection."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from backends.errors import AlreadyExists, VaultError
from backends.vault.s3_bucket import Bucket

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER = 256 * 1024
_TRIES = 6
"""Times in a row that reading goes on without a byte in between."""


def open_object(bucket: Bucket, key: str) -> io.BufferedReader:
    """An object from its start. Raises `NotFound`, `VaultError`."""
    return io.BufferedReader(_Resuming(bucket, key), _BUFFER)


class _Resuming(io.RawIOBase):
    """Goes on after a broken connection where it stopped, when the object is still the same (If-Match)."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        answer = bucket.call("GetObject", key)
        self._tag = str(answer.get("ETag", ""))
        self._size = int(answer["ContentLength"])
        self._body: Any = answer["Body"]
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read some bytes. Raises `VaultError` when the connection is lost for good, or the object changed."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size - self._at)
        for again in range(_TRIES + 1):
            if not wanted:
                return 0
            try:
                data: bytes = (self._body or self._resume()).read(wanted)
                if not data:
                    raise ConnectionError("cut short")
            except VaultError:
                raise
            except Exception as error:  # noqa: BLE001 - what botocore and urllib3 raise has no common base
                self._drop()
                if again == _TRIES:
                    where = self._bucket.place.where
                    kind = f"breaks again and again ({type(error).__name__})"
                    fault = VaultError(f"the connection to {where} {kind}", "Check the network; try again.")
            else:
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
        raise fault

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        super().close()

    def _resume(self) -> Any:
        """Ask for the rest. Raises `VaultError`."""
        condition: dict[str, Any] = {"IfMatch": self._tag} if self._tag else {}
        changed = VaultError(f"{self._key} was replaced while it was read", "Try again.")
        try:
            answer = self._bucket.call("GetObject", self._key, Range=f"bytes={self._at}-", **condition)
        except AlreadyExists:  # the condition does not hold any more
            raise changed from None
        begin = f"bytes {self._at}-{self._size - 1}/{self._size}"
        if str(answer.get("ETag", "")) != self._tag or answer.get("ContentRange", begin) != begin:
            answer["Body"].close()
            raise changed
        if int(answer["ContentLength"]) != self._size - self._at:
            answer["Body"].close()
            raise VaultError(f"{self._bucket.place.where} cannot go on where reading was cut", "Try again.")
        self._body = answer["Body"]
        return self._body

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with suppress(Exception):
                body.close()
