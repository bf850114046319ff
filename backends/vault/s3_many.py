"""Reading thousands of small objects.

boto3 needs about 1.6 ms of processor time for each; its signer and its HTTP pool alone need a third of that. So the
first object is read in the ordinary way, which shows address, region and kind of signature; the others go past the
client, and what goes wrong there is read again in the ordinary way, which knows patience and sentences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO
from urllib.parse import quote

from backends.errors import VaultError
from backends.vault.s3_bucket import CONNECTIONS, Bucket
from backends.vault.s3_errors import VaultGone

_THREADS = 12
_AHEAD = 8 * _THREADS
Content = bytes | VaultError


@dataclass(frozen=True, slots=True)
class _Way:
    """How an object was asked for."""

    base: str
    """The address without the key."""
    region: str


def read_many(
    bucket: Bucket, keys: Iterable[str], limit: int, ordinary: Callable[[str], BinaryIO]
) -> Iterator[tuple[str, Content]]:
    """As `Vault.read_many`; `ordinary` opens one object."""

    def slowly(key: str) -> Content:
        try:
            with ordinary(key) as stored:
                return stored.read(limit + 1)
        except VaultError as error:
            return error

    remaining = iter(keys)
    first = next(remaining, None)
    if first is None:
        return
    seen: list[_Way] = []
    with _watched(bucket, first, seen):
        content = slowly(first)
    yield first, _or_gone(content)
    quickly = _Quick(bucket, seen[0], limit) if seen else None

    def one(key: str) -> Content:
        found = quickly.read(key) if quickly is not None else None
        return slowly(key) if found is None else found

    with ThreadPoolExecutor(_THREADS, thread_name_prefix=f"read {bucket.name}") as readers:
        waiting: deque[tuple[str, Future[Content]]] = deque()
        try:
            waiting.extend((key, readers.submit(one, key)) for key in islice(remaining, _AHEAD))
            while waiting:
                key, found = waiting.popleft()
                content = found.result()
                waiting.extend((more, readers.submit(one, more)) for more in islice(remaining, 1))
                yield key, _or_gone(content)
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            if quickly is not None:
                quickly.close()


def _or_gone(content: Content) -> Content:
    if isinstance(content, VaultGone):
        raise content
    return content


class _watched:  # noqa: N801 - used as a function
    """While open, notes how the object of a key is asked for; nothing when it is not by Signature Version 4."""

    def __init__(self, bucket: Bucket, key: str, seen: list[_Way]) -> None:
        self._bucket, self._seen = bucket, seen
        self._end = quote(bucket.prefix + key, safe="/-_.~")
        self._events: Any = None

    def __enter__(self) -> None:
        with suppress(VaultError):  # it is said again, and better, when the object is read
            self._events = self._bucket.client().meta.events
            self._events.register("before-sign.s3.GetObject", self._note)

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.unregister("before-sign.s3.GetObject", self._note)

    def _note(self, request: Any, region_name: str, signature_version: str, **_: object) -> None:
        url = str(request.url)
        if signature_version in {"s3v4", "v4"} and url.endswith("/" + self._end):
            self._seen[:] = [_Way(url.removesuffix(self._end), region_name)]


class _Quick:
    """botocore's signer and HTTP session without the client around them."""

    def __init__(self, bucket: Bucket, way: _Way, limit: int) -> None:
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        self._way, self._limit, self._prefix = way, limit, bucket.prefix
        session = bucket.session()
        self._credentials = session.get_credentials()
        core = session._session
        self._http = URLLib3Session(
            verify=core.get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(way.base),
            timeout=60,
            max_pool_connections=CONNECTIONS,
        )

    def read(self, key: str) -> bytes | None:
        """The content, `limit` + 1 bytes at most; None when anything at all is not as it should be."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        try:
            address = self._way.base + quote(self._prefix + key, safe="/-_.~")
            request = AWSRequest("GET", address, stream_output=True)
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._way.region).add_auth(request)
            answer = self._http.send(request.prepare())
            size = int(answer.headers.get("content-length", -1))
            if answer.status_code != 200 or size < 0:
                answer.raw.close()
                return None
            data: bytes = answer.raw.read(min(size, self._limit + 1))
            if size > self._limit + 1:
                answer.raw.close()
            else:
                answer.raw.read()
                answer.raw.release_conn()
            return data if len(data) == min(size, self._limit + 1) else None
        except Exception:  # noqa: BLE001 - the ordinary way says what is wrong
            return None

    def close(self) -> None:
        """Let go of its connections."""
        with suppress(Exception):
            self._http.close()
