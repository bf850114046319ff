"""A vault in a bucket of any S3-compatible provider (docs/s3.md)."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from backends.config.schema import S3Vault as S3Config
from backends.errors import AlreadyExists, NotFound, VaultDenied, VaultError
from backends.vault.base import StoredObject, Upload, Vault, VaultLook
from backends.vault.machine import machine_of
from backends.vault.names import PART, check_key, valid_key
from backends.vault.s3_bucket import Bucket, host_of, pause
from backends.vault.s3_errors import Conflict, NotSupported, UploadGone
from backends.vault.s3_look import look_at
from backends.vault.s3_many import read_many
from backends.vault.s3_read import open_object
from backends.vault.s3_upload import S3Upload

PROBE = "leases/probe"
"""An object that is there to see whether a conditional write of it is refused."""
_FOR_EVER = datetime(9999, 12, 31, tzinfo=UTC)
_CONFLICTS = 5
_RECORDS = (".json", ".txt")


class S3Vault(Vault):
    """Objects below a prefix of a bucket. Nothing is asked of the provider before it is needed."""

    def __init__(self, name: str, config: S3Config) -> None:
        self.name = name
        self._bucket = Bucket(name, config)
        self.where = self._bucket.place.where
        self._here = on_this_machine(config.endpoint_url)
        self.offsite = not self._here if config.offsite is None else config.offsite
        self._exclusive: bool | None = None
        self._conditional = True
        self._probing = threading.Lock()

    def open_upload(self, key: str) -> Upload:
        """Begin an object; the provider is asked when the first part is full, or at commit."""
        check_key(key)
        return S3Upload(self._bucket, key, self._bucket.writing(key, record=key.endswith(_RECORDS)))

    def put_new(self, key: str, data: bytes) -> None:
        """Write a small object with `If-None-Match: *`; where that may be ignored, look first."""
        check_key(key)
        if not self._exclusive and self._exists(key):
            raise AlreadyExists(f"{key} is already in {self.where}", "Nothing was changed.")
        for again in range(_CONFLICTS):
            try:
                self._put(key, data)
            except Conflict:
                if again + 1 == _CONFLICTS:
                    raise AlreadyExists(f"something else writes {key} in {self.where}", "Try again.") from None
                pause(again + 1)
            else:
                return

    def read(self, key: str) -> BinaryIO:
        """Open an object; a broken connection is taken up again where it broke."""
        return open_object(self._bucket, check_key(key))

    def read_many(self, keys: Iterable[str], limit: int) -> Iterator[tuple[str, bytes | VaultError]]:
        """Several at a time, and past most of boto3."""
        return read_many(self._bucket, keys, limit, self.read)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in key order; those whose names are no keys of ours are passed over."""
        if any(not PART.fullmatch(part) for part in prefix.split("/")[:-1]):
            return
        begin = self._bucket.prefix
        for found in self._pages("ListObjectsV2", "Contents", Prefix=begin + prefix):
            key = str(found["Key"]).removeprefix(begin)
            if valid_key(key):
                yield StoredObject(key, int(found["Size"]), found["LastModified"])

    def delete(self, key: str) -> None:
        """Remove an object. With versioning the provider keeps the old version, below a delete marker."""
        with suppress(NotFound):
            self._bucket.call("DeleteObject", check_key(key))

    def free_bytes(self) -> int | None:
        """A bucket has no such notion."""
        return None

    def machine_id(self) -> str | None:
        """None for a service elsewhere; this machine's for an endpoint on it."""
        return machine_of(Path("/")) if self._here else None

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        """Abort multipart uploads that began before that time."""
        below = self._bucket.prefix + (f"{prefix.rstrip('/')}/" if prefix else "")
        removed = 0
        try:
            unfinished = list(self._pages("ListMultipartUploads", "Uploads", Prefix=below))
        except (NotSupported, UploadGone):  # the latter is how rclone's server says that there are none
            return 0
        for found in unfinished:
            key = str(found["Key"])
            if key.startswith(below) and valid_key(key[len(self._bucket.prefix) :]) and found["Initiated"] < older_than:
                with suppress(UploadGone, NotFound):
                    own = key[len(self._bucket.prefix) :]
                    self._bucket.call("AbortMultipartUpload", own, UploadId=found["UploadId"])
                    removed += 1
        return removed

    def exclusive(self) -> bool:
        """Whether the provider refuses a conditional write of an object that is there; asked once."""
        with self._probing:
            if self._exclusive is None:
                if not self._exists(PROBE):
                    parameters = self._bucket.writing(PROBE, record=True)
                    self._bucket.call("PutObject", PROBE, **self._bucket.body(b"probe\n"), **parameters)
                try:
                    self._put(PROBE, b"probe\n", own_counts=False)
                except (AlreadyExists, Conflict):
                    self._exclusive = True
                else:
                    self._exclusive = False
            return self._exclusive

    def locked_until(self, key: str) -> datetime | None:
        """The end of the Object Lock; a legal hold has none."""
        answer = self._bucket.call("HeadObject", check_key(key))
        if answer.get("ObjectLockLegalHoldStatus") == "ON":
            return _FOR_EVER
        until = answer.get("ObjectLockRetainUntilDate")
        return until if isinstance(until, datetime) and until > datetime.now(UTC) else None

    def size(self, key: str) -> int | None:
        """As the object's own headers say."""
        return int(self._bucket.call("HeadObject", check_key(key))["ContentLength"])

    def look(self) -> VaultLook:
        """Versioning and Object Lock, as the bucket is set."""
        return look_at(self._bucket)

    def close(self) -> None:
        """Let go of connections."""
        self._bucket.close()

    def _exists(self, key: str) -> bool:
        try:
            self._bucket.call("HeadObject", key)
        except NotFound:
            return False
        except VaultDenied:
            # an answer to HEAD has no body that says why; and who may write and list need not be able to read
            whole = self._bucket.prefix + key
            answer = self._bucket.call("ListObjectsV2", Prefix=whole, MaxKeys=1)
            return any(found["Key"] == whole for found in answer.get("Contents", ()))
        return True

    def _put(self, key: str, data: bytes, *, own_counts: bool = True) -> None:
        """A conditional PUT where the provider knows it, else a plain one. Raises `AlreadyExists`, `Conflict`."""
        parameters = {**self._bucket.body(data), **self._bucket.writing(key, record=True)}
        retried: list[VaultError] = []
        try:
            condition: dict[str, Any] = {"IfNoneMatch": "*"} if self._conditional else {}
            self._bucket.call("PutObject", key, retried=retried.append, **condition, **parameters)
        except NotSupported:
            if not self._conditional:
                raise
            self._conditional = False
            self._put(key, data, own_counts=own_counts)
        except AlreadyExists:
            # a try whose answer was lost may be what is there
            if not (own_counts and retried) or self._content(key, len(data)) != data:
                raise

    def _content(self, key: str, limit: int) -> bytes:
        with self.read(key) as stored:
            return stored.read(limit + 1)

    def _pages(self, operation: str, part: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The entries of all pages of a listing. A page that leads nowhere ends it with a `VaultError`."""
        following: dict[str, Any] = {}
        while True:
            answer = self._bucket.call(operation, **parameters, **following)
            yield from answer.get(part, ())
            if not answer.get("IsTruncated"):
                return
            before = following
            if operation == "ListObjectsV2":
                following = {"ContinuationToken": answer.get("NextContinuationToken")}
            else:
                at = (answer.get("NextKeyMarker"), answer.get("NextUploadIdMarker"))
                following = dict(zip(("KeyMarker", "UploadIdMarker"), at, strict=True))
            following = {name: value for name, value in following.items() if value}
            if not following or following == before:
                raise VaultError(f"{self.where} breaks a listing off in the middle", "Ask the provider.")


def on_this_machine(endpoint_url: str | None) -> bool:
    """Whether an endpoint is loopback or an address of this machine. Names are not looked up, nothing is sent."""
    host = host_of(endpoint_url)
    if host in {"localhost", socket.gethostname()} or host.endswith(".localhost"):
        return bool(host)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))  # only an address of this machine can be bound to
        return True
    return False
