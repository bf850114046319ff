"""Reading thousands of small objects.

boto3 needs about 1.6 ms of processor time for each; its signer and a plain HTTP connection need a quarter of that. So
the first object is read in the ordinary way, which shows address, region and kind of signature; the others go past the
client, and what goes wrong there is read again in the ordinary way, which knows patience, proxies and sentences.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from backends.errors import VaultError
from backends.vault.names import valid_key
from backends.vault.s3_bucket import READ_SECONDS, Bucket, signing_region
from backends.vault.s3_errors import VaultGone

_THREADS = 16
_AHEAD = 8 * _THREADS
_SAFE = "/-_.~"
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
    quickly = _Quick(bucket, seen[0], limit) if seen and not get_environ_proxies(seen[0].base) else None

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
        self._end = quote(bucket.prefix + key, safe=_SAFE)
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
            self._seen[:] = [_Way(url.removesuffix(self._end), signing_region(request, region_name))]


class _Quick:
    """botocore's signer, and a connection of http.client for each thread."""

    def __init__(self, bucket: Bucket, way: _Way, limit: int) -> None:
        parts = urlsplit(way.base)
        self._way, self._limit, self._prefix = way, limit, bucket.prefix
        self._host, self._path, self._secure = parts.netloc, parts.path, parts.scheme == "https"
        session = bucket.session()
        self._credentials = session.get_credentials()
        self._trust: ssl.SSLContext | None = None
        if self._secure:
            bundle = session._session.get_config_variable("ca_bundle")  # boto3 has no public way to it
            self._trust = ssl.create_default_context(cafile=get_cert_path(bundle or True))
        self._mine = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def read(self, key: str) -> bytes | None:
        """The content, `limit` + 1 bytes at most; None when anything at all is not as it should be."""
        connection: http.client.HTTPConnection | None = None
        if not valid_key(key):
            return None
        try:
            name = quote(self._prefix + key, safe=_SAFE)
            request = AWSRequest("GET", self._way.base + name)
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._way.region).add_auth(request)
            connection = getattr(self._mine, "connection", None) or self._connect()
            connection.request("GET", self._path + name, headers=dict(request.headers.items()))
            answer = connection.getresponse()
            size = answer.length
            if answer.status == http.HTTPStatus.OK and size is not None:
                data = answer.read(min(size, self._limit + 1))
                if len(data) == min(size, self._limit + 1):
                    if size > len(data):
                        self._drop(connection)
                    return data
        except Exception:  # noqa: BLE001, S110 - the ordinary way says what is wrong
            pass
        if connection is not None:
            self._drop(connection)
        return None

    def close(self) -> None:
        """Let go of its connections."""
        for connection in self._all:
            with suppress(OSError):
                connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._trust is not None:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, timeout=READ_SECONDS, context=self._trust
            )
        else:
            made = http.client.HTTPConnection(self._host, timeout=READ_SECONDS)
        self._mine.connection = made
        self._all.append(made)
        return made

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        """What is left of an answer must not be taken for the next one; http.client connects again by itself."""
        with suppress(OSError):
            connection.close()
