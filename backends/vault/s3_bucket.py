"""A bucket at a provider: the client, made when it is first needed, and calls with bounded patience."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from backends.config.schema import S3Vault as S3Config
from backends.errors import VaultError
from backends.untrusted import clean
from backends.vault.s3_credentials import session_of
from backends.vault.s3_errors import ACTIONS, Circle, Place, code_of, explain, may_pass

_HEADS = 3
"""Questions after a bucket's region within one call."""
TRIES = 8
_FIRST_TRIES = 4
"""Tries while the provider has never answered: a wrong address should be said soon."""
CONNECT_SECONDS = 5
READ_SECONDS = 60
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 8.0
CONNECTIONS = 24
_METHODS = {
    "AbortMultipartUpload": "abort_multipart_upload",
    "CompleteMultipartUpload": "complete_multipart_upload",
    "CreateMultipartUpload": "create_multipart_upload",
    "DeleteObject": "delete_object",
    "GetBucketVersioning": "get_bucket_versioning",
    "GetObject": "get_object",
    "GetObjectLockConfiguration": "get_object_lock_configuration",
    "HeadObject": "head_object",
    "ListMultipartUploads": "list_multipart_uploads",
    "ListObjectsV2": "list_objects_v2",
    "PutObject": "put_object",
    "UploadPart": "upload_part",
}
assert set(_METHODS) == set(ACTIONS)  # noqa: S101 - both are tables of this package


class Bucket:
    """Asks the provider; may be used from several threads.

    What can pass on its own (throttling, 5xx, a lost connection) is tried again, up to `TRIES` times with growing,
    jittered pauses of 20 seconds altogether. botocore's own retries are off, for they know no abort.
    """

    def __init__(self, name: str, config: S3Config) -> None:
        self.name, self.config = name, config
        self.prefix = f"{config.prefix.strip('/')}/" if config.prefix.strip("/") else ""
        where = clean(f"s3://{config.bucket}/{self.prefix}".rstrip("/"), 300)
        self.place = Place(where=where, endpoint=host_of(config.endpoint_url), locked=config.lock_days is not None)
        self.spare: list[bytearray] = []
        """Buffers of parts to be used again."""
        self._answered = False
        self._md5 = config.lock_days is not None or not (config.endpoint_url or "").startswith("http://")
        self._lock = threading.Lock()
        self._session: Any = None
        self._client: Any = None
        self._within = threading.local()
        self._region = config.region
        self._signed_for = ""
        """The region of the last signature; botocore follows a provider that names another one than ours."""

    def session(self) -> Any:
        """The boto3 session. Raises `VaultError`."""
        self.client()
        return self._session

    def client(self) -> Any:
        """The boto3 client. Raises `VaultError`: the credentials cannot be had."""
        with self._lock:
            if self._client is None:
                try:
                    self._session = self._session or session_of(self.name, self.config)
                    self._client = self._make()
                except Exception as error:  # noqa: BLE001 - botocore raises what its plugins raise
                    fault = explain(error, self.place, "")
                else:
                    return self._client
                raise fault
            return self._client

    def close(self) -> None:
        """Let go of connections; the client is made again when it is needed."""
        with self._lock:
            client, self._client = self._client, None
        self.spare.clear()
        if client is not None:
            with suppress(Exception):
                client.close()

    def call(
        self,
        operation: str,
        key: str | None = None,
        *,
        stop: threading.Event | None = None,
        retried: Callable[[VaultError], object] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Carry out one operation on the bucket, or on the object of a key (without the vault's prefix).

        Args:
            operation: as S3 names it.
            key: of the object; None for an operation on the bucket.
            stop: set when the result is of no interest any more; no new try is made then.
            retried: told of every fault after which another try is made.
            parameters: as boto3 takes them. A `Body` that is a file is read from its start at every try.

        Raises:
            VaultError: in words; nothing of the provider's message is kept, not even as its cause.
        """
        if key is not None:
            parameters["Key"] = self.prefix + key
        for again in range(1, TRIES + 1):
            body = parameters.get("Body")
            if body is not None and hasattr(body, "seek"):
                body.seek(0)
            try:
                method = getattr(self.client(), _METHODS[operation])
                self._within.heads = 0
                answer: dict[str, Any] = method(Bucket=self.config.bucket, **parameters)
            except Exception as error:  # noqa: BLE001 - botocore raises what its plugins raise
                fault = explain(error, self.place, operation, key or "")
                if code_of(error):
                    self._answered = True
                if self._wants_md5(error, parameters):
                    continue
                last = again >= (TRIES if self._answered else _FIRST_TRIES)
                if last or not may_pass(error) or (stop is not None and stop.is_set()):
                    break
            else:
                self._answered = True
                self._remember_region()
                return answer
            if retried is not None:
                retried(fault)
            pause(again, stop)
        raise fault

    def body(self, data: bytes | bytearray) -> dict[str, Any]:
        """Parameters that carry some bytes, with what the provider needs to see that they arrived whole.

        Over http the signature covers them (SHA-256). Over https TLS protects them and botocore leaves them unsigned
        when their MD5 is given, which every provider checks; Object Lock asks for it in any case.
        """
        return {"Body": data, **({"ContentMD5": md5(data)} if self._md5 else {})}

    def writing(self, key: str, *, record: bool) -> dict[str, Any]:
        """Parameters of a new object, as the vault's settings say. Leases are never locked, records never archived."""
        config = self.config
        found: dict[str, Any] = {}
        if config.storage_class and not record:
            found["StorageClass"] = config.storage_class
        if config.sse:
            found["ServerSideEncryption"] = config.sse
        if config.sse_kms_key:
            found["SSEKMSKeyId"] = config.sse_kms_key
        if config.lock_days and not key.startswith("leases/"):
            found["ObjectLockMode"] = config.lock_mode.upper()
            found["ObjectLockRetainUntilDate"] = datetime.now(UTC) + timedelta(days=config.lock_days)
        return found

    def _make(self) -> Any:
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            signature_version="s3v4",
            # newer checksums only where an operation cannot do without: most other providers refuse them
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": self.config.addressing},
        )
        region = self._region or self._session.region_name or "us-east-1"
        client = self._session.client("s3", endpoint_url=self.config.endpoint_url, region_name=region, config=config)
        client.meta.events.register("before-sign.s3", self._note_region)
        client.meta.events.register("before-call.s3.HeadBucket", self._stop_circle)
        return client

    def _stop_circle(self, **_: object) -> None:
        """Botocore asks for the bucket's region within a call, and within that again when it is sent on again."""
        self._within.heads = getattr(self._within, "heads", 0) + 1
        if self._within.heads > _HEADS:
            raise Circle

    def _note_region(self, request: Any, region_name: str | None, **_: object) -> None:
        self._signed_for = signing_region(request, region_name)

    def _remember_region(self) -> None:
        """Ask in the bucket's region from here on, instead of being sent there each time."""
        with self._lock:
            client, region = self._client, self._signed_for
            if client is not None and region and region != client.meta.region_name and region != self._region:
                self._region, self._client = region, None

    def _wants_md5(self, error: Exception, parameters: dict[str, Any]) -> bool:
        """Whether a bucket that locks by default just asked for the MD5; it is given from here on."""
        said = str(getattr(error, "response", {}))[:2000]
        if self._md5 or "Content-MD5" not in said or "Body" not in parameters:
            return False
        self._md5 = True
        parameters["ContentMD5"] = md5(parameters["Body"])
        return True


def signing_region(request: Any, usual: str | None) -> str:
    """The region that a request of botocore's is about to be signed for: the client's, or where it was sent on to."""
    return str(request.context.get("signing", {}).get("region") or usual or "")


def host_of(endpoint_url: str | None) -> str:
    """The host of an address, in small letters; empty when it has none."""
    try:
        return clean(urlsplit(endpoint_url or "").hostname or "", 200).rstrip(".")
    except ValueError:
        return ""


def md5(body: Any) -> str:
    """The MD5 of bytes, or of a file from its start, in base64 (RFC 1864)."""
    if isinstance(body, bytes | bytearray):
        return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    body.seek(0)
    digest = hashlib.file_digest(body, lambda: hashlib.md5(usedforsecurity=False))
    body.seek(0)
    return base64.b64encode(digest.digest()).decode()


def header(answer: Mapping[str, Any], name: str) -> str:
    """A header of an answer; empty without it."""
    return str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name, ""))


def pause(again: int, stop: threading.Event | None = None) -> None:
    """Wait before the next try; the number of tries that were made says how long. `stop` ends it."""
    seconds = random.uniform(0.5, 1.0) * min(_FIRST_PAUSE * 2 ** (again - 1), _LONGEST_PAUSE)  # noqa: S311 - jitter
    (stop or threading.Event()).wait(seconds)
