"""Many requests for objects at the same time, by libcurl: it keeps the connections and signs, outside Python.

https://curl.se/libcurl/c/libcurl-multi.html and https://curl.se/libcurl/c/CURLOPT_AWS_SIGV4.html
"""

from __future__ import annotations

import hashlib
import http
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pycurl

LINES = 32
"""Connections at most."""
_PATIENCE = 64
"""Failures in a row after which nothing more is asked for in this way."""
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
_ACCESS_KEY = re.compile(r"[A-Za-z0-9._~-]+")
"""What libcurl signs with unchanged; it quotes all else."""
_TOKEN = re.compile(r"[!-~]*")
_NO_BODY = hashlib.sha256(b"").hexdigest()
_SAFE = "/-_.~"


@dataclass(frozen=True, slots=True)
class Way:
    """How an object is asked for by Signature Version 4.

    Attributes:
        base: the address without the key.
        region: that the signature is for.
        credentials: of botocore, which renews them by itself.
        bundle: the certificates to trust, a file or a directory.
        seconds: for a connection, and of silence after which an answer is given up.
    """

    base: str
    region: str
    credentials: Any
    bundle: str
    seconds: tuple[int, int]


class Requests:
    """Asks for objects by number, and says of each what came of it; used by one thread only."""

    def __init__(self, way: Way, most: int, done: Callable[[int, bytes | None], None]) -> None:
        """Nothing is connected yet.

        Args:
            way: where to, and as whom.
            most: bytes of each content that are of interest.
            done: told of each number: its content, or None when it is to be asked for in another way.

        Raises:
            ValueError: for a strange address or region.
        """
        parts = urlsplit(way.base)
        if parts.scheme not in {"http", "https"} or "@" in parts.netloc or not _REGION.fullmatch(way.region):
            raise ValueError
        self._way, self._most, self._done = way, most, done
        self._asked: deque[tuple[int, str]] = deque()
        self._idle: list[pycurl.Curl] = []
        self._busy: dict[pycurl.Curl, tuple[int, list[bytes]]] = {}
        self._allowed, self._failed, self._made = LINES, 0, 0
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, LINES)

    def ask(self, number: int, key: str) -> None:
        """Have an object asked for at a later turn."""
        if self._allowed > 0:
            self._asked.append((number, key))
        else:
            self._done(number, None)

    def turn(self, seconds: float, others: int = 0) -> None:
        """Send and hear what there is, after a wait for something to happen of at most so long.

        `others` are requests that are made in another way at the same time.
        """
        self._begin(others)
        if not self._busy:
            return
        if seconds:
            self._multi.select(seconds)
        self._multi.perform()
        left = 1
        while left:
            left, well, badly = self._multi.info_read()
            for handle in well:
                self._end(handle, whole=_as_it_should_be(handle))
            for handle, _, _ in badly:
                self._end(handle, whole=False)
        self._begin(others)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._busy)

    def close(self) -> None:
        """Let go of all connections."""
        for handle in self._busy:
            self._multi.remove_handle(handle)
        for handle in (*self._busy, *self._idle):
            handle.close()
        self._busy.clear()
        self._idle.clear()
        self._multi.close()

    def _begin(self, others: int) -> None:
        room = max(1, self._allowed - others) - len(self._busy)
        begun = False
        while self._asked and room > 0:
            room -= 1
            number, key = self._asked.popleft()
            handle = self._idle.pop() if self._idle else self._new()
            try:
                self._prepare(handle, number, key)
            except Exception:  # noqa: BLE001 - the ordinary way says what is wrong with the credentials
                self._idle.append(handle)
                self._fail(number)
                continue
            self._multi.add_handle(handle)
            begun = True
        if begun:
            self._multi.perform()

    def _new(self) -> pycurl.Curl:
        """A handle with all that is the same for every request."""
        handle = pycurl.Curl()
        connect, silence = self._way.seconds
        for option, value in {
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.PROXY: "",
            pycurl.USERAGENT: "mastovault",
            pycurl.CONNECTTIMEOUT: connect,
            pycurl.LOW_SPEED_LIMIT: 1,
            pycurl.LOW_SPEED_TIME: silence,
            pycurl.CAPATH if Path(self._way.bundle).is_dir() else pycurl.CAINFO: self._way.bundle,
            pycurl.AWS_SIGV4: f"aws:amz:{self._way.region}:s3",
        }.items():
            handle.setopt(option, value)
        return handle

    def _prepare(self, handle: pycurl.Curl, number: int, key: str) -> None:
        """Raises `ValueError` for credentials that fit into no header, and whatever renewing them raises."""
        found = self._way.credentials.get_frozen_credentials()
        access, token = found.access_key, found.token or ""
        if not (_ACCESS_KEY.fullmatch(access) and _TOKEN.fullmatch(token)):
            raise ValueError
        pieces: list[bytes] = []
        room = self._most

        def take(piece: bytes) -> int | None:
            nonlocal room
            pieces.append(piece)
            room -= len(piece)
            return None if room > 0 else -1  # what is longer than is of interest is broken off

        handle.setopt(pycurl.URL, self._way.base + quote(key, safe=_SAFE))
        handle.setopt(pycurl.USERNAME, access)
        handle.setopt(pycurl.PASSWORD, found.secret_key)
        session = [f"x-amz-security-token: {token}"] if token else []
        handle.setopt(pycurl.HTTPHEADER, [f"x-amz-content-sha256: {_NO_BODY}", *session])
        handle.setopt(pycurl.WRITEFUNCTION, take)
        self._busy[handle] = (number, pieces)

    def _end(self, handle: pycurl.Curl, *, whole: bool) -> None:
        """An answer has ended, well or not."""
        number, pieces = self._busy.pop(handle)
        content = b"".join(pieces)
        enough = len(content) >= self._most and handle.getinfo(pycurl.RESPONSE_CODE) == http.HTTPStatus.OK
        self._multi.remove_handle(handle)
        self._idle.append(handle)
        if not (whole or enough):
            self._fail(number)
            return
        self._failed = 0
        self._done(number, content[: self._most])

    def _fail(self, number: int) -> None:
        self._done(number, None)
        self._failed += 1
        if self._failed >= _PATIENCE:
            self._allowed = 0
            while self._asked:
                self._done(self._asked.popleft()[0], None)


def _as_it_should_be(handle: pycurl.Curl) -> bool:
    """Whether an object was sent with its length, without which an end that came too soon is not noticed."""
    status: int = handle.getinfo(pycurl.RESPONSE_CODE)
    length: int = handle.getinfo(pycurl.CONTENT_LENGTH_DOWNLOAD_T)
    return status == http.HTTPStatus.OK and length >= 0
