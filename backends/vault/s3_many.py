"""Reading thousands of small objects.

boto3 needs about 1.6 ms of processor time for each, libcurl a tenth of that. So the first object is read in the
ordinary way, which shows address, region and kind of signature; the others go past the client, and what goes wrong
there is read again in the ordinary way, which knows patience, proxies and sentences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from backends.errors import VaultError
from backends.vault.names import valid_key
from backends.vault.s3_bucket import CONNECT_SECONDS, READ_SECONDS, Bucket, signing_region
from backends.vault.s3_errors import VaultGone

if TYPE_CHECKING:
    from backends.vault.s3_curl import Requests

_THREADS = 16
_ALL = 1000
_AHEAD = 128
"""Objects that are asked for before they are taken."""
_AHEAD_BYTES = 32 * 1024 * 1024
"""What may be here before it is taken; what is under way then comes on top of that."""
_POLL_EVERY = 8
"""Objects taken between two looks at the connections, so that those do not wait while the taker works."""
_WAIT_SECONDS, _WAIT_FOR_CLIENT = 1.0, 0.02
"""Within a turn; the shorter one while the client reads as well, whose end ends no wait."""
_SAFE = "/-_.~"
Content = bytes | VaultError


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
    seen: list[tuple[str, str]] = []
    with _watched(bucket, first, seen):
        content = slowly(first)
    yield first, _or_gone(content)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix=f"read {bucket.name}") as others:
        reading = _Reading(others, slowly)
        try:
            if seen:
                reading.hurry(bucket, *seen[0], limit)
            for key, content in reading.through(remaining):
                yield key, _or_gone(content)
        finally:
            others.shutdown(wait=False, cancel_futures=True)
            reading.close()


def _or_gone(content: Content) -> Content:
    if isinstance(content, VaultGone):
        raise content
    return content


class _Reading:
    """What was asked for and was not taken yet, by numbers, for a key may come twice."""

    def __init__(self, others: ThreadPoolExecutor, slowly: Callable[[str], Content]) -> None:
        self._others, self._slowly = others, slowly
        self._keys: dict[int, str] = {}
        self._found: dict[int, Content | Future[Content]] = {}
        self._slow: set[Future[Content]] = set()
        self._bytes = 0
        self._prefix = ""
        self._requests: Requests | None = None

    def hurry(self, bucket: Bucket, base: str, region: str, limit: int) -> None:
        """Go past the client from here on, where that is possible."""
        self._prefix = bucket.prefix
        with suppress(Exception):  # what is not understood is left to the client
            if not get_environ_proxies(base):
                self._requests = _requests(bucket, base, region, limit, self._arrived)

    def through(self, keys: Iterator[str]) -> Iterator[tuple[str, Content]]:
        """Each key with its content, in the order of the keys."""
        waiting: deque[int] = deque()
        number = 0
        while True:
            while len(waiting) < _AHEAD:
                key = next(keys, None)
                if key is None:
                    break
                number += 1
                waiting.append(number)
                self._ask(number, key)
            if not waiting:
                return
            taken = waiting.popleft()
            if self._requests is not None and taken % _POLL_EVERY == 0:
                self._requests.turn(0, self._elsewhere())
            content = self._take(taken)
            yield self._keys.pop(taken), content

    def close(self) -> None:
        """Let go of the connections."""
        if self._requests is not None:
            self._requests.close()

    def _ask(self, number: int, key: str) -> None:
        self._keys[number] = key
        if self._requests is not None and valid_key(key):
            self._requests.ask(number, self._prefix + key)
        else:
            self._arrived(number, None)

    def _arrived(self, number: int, content: bytes | None) -> None:
        """What came of a request that went past the client."""
        if content is not None:
            self._found[number] = content
            self._bytes += len(content)
            return
        late = self._others.submit(self._slowly, self._keys[number])
        self._found[number] = late
        self._slow.add(late)
        late.add_done_callback(self._slow.discard)

    def _take(self, number: int) -> Content:
        while (found := self._found.get(number)) is None or (isinstance(found, Future) and not found.done()):
            if self._requests is not None and (found is None or self._requests.busy):
                self._requests.turn(_WAIT_FOR_CLIENT if self._slow else _WAIT_SECONDS, self._elsewhere())
            elif isinstance(found, Future):
                wait([found])
        del self._found[number]
        if isinstance(found, Future):
            return found.result()
        self._bytes -= len(found) if isinstance(found, bytes) else 0
        return found

    def _elsewhere(self) -> int:
        """How many of the connections are not to be used: the client asks the server too, or enough is here."""
        return len(self._slow) if self._bytes < _AHEAD_BYTES else _ALL


class _watched:  # noqa: N801 - used as a function
    """While open, notes the address without the key, and the region; nothing when not by Signature Version 4."""

    def __init__(self, bucket: Bucket, key: str, seen: list[tuple[str, str]]) -> None:
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
            self._seen[:] = [(url.removesuffix(self._end), signing_region(request, region_name))]


def _requests(
    bucket: Bucket, base: str, region: str, limit: int, arrived: Callable[[int, bytes | None], None]
) -> Requests:
    """Requests past the client, as it would make them. Raises `ValueError`: for a strange address."""
    from backends.vault.s3_curl import Requests, Way  # late: few commands read many objects

    session = bucket.session()
    bundle = session._session.get_config_variable("ca_bundle")  # boto3 has no public way to it
    trusted = str(get_cert_path(bundle or True))
    way = Way(base, region, session.get_credentials(), trusted, (CONNECT_SECONDS, READ_SECONDS))
    return Requests(way, limit + 1, arrived)
