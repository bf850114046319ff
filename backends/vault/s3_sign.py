"""Requests for objects, signed by Signature Version 4; what is the same for all of a day is worked out once.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any
from urllib.parse import urlsplit

_NOTHING = hashlib.sha256(b"").hexdigest()
_PORTS = {"http": 80, "https": 443}


class Signer:
    """Signs requests that read an object, as botocore's `S3SigV4Auth` does, in a tenth of its time."""

    def __init__(self, credentials: Any, region: str, host: str) -> None:
        self._credentials, self._region, self._host = credentials, region, host
        self._second, self._now = -1, ""
        self._made_of: tuple[object, str] | None = None

    def request(self, path: str) -> bytes:
        """The whole request for a path, which is quoted already.

        Raises:
            ValueError: a credential does not fit into a header.
            Exception: what botocore raises when new credentials are due and cannot be had.
        """
        found = self._credentials.get_frozen_credentials()
        second = int(time.time())
        if second != self._second:
            self._second, self._now = second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        now = self._now
        if self._made_of != (found, now[:8]):
            self._prepare(found, now[:8])
        canonical = f"GET\n{path}\n\n{self._before}{now}{self._after}"
        text = f"AWS4-HMAC-SHA256\n{now}\n{self._scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return f"GET {path} HTTP/1.1\r\n{self._head}{signature}\r\nX-Amz-Date: {now}\r\n\r\n".encode("ascii")

    def _prepare(self, found: Any, day: str) -> None:
        """What stays the same as long as credentials and day do."""
        access, secret, token = found.access_key, found.secret_key, found.token or ""
        if not all(text.isascii() and text.isprintable() and " " not in text for text in (access, token)):
            raise ValueError
        key = f"AWS4{secret}".encode()
        for part in (day, self._region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key, self._scope = key, f"{day}/{self._region}/s3/aws4_request"
        names = "host;x-amz-content-sha256;x-amz-date" + (";x-amz-security-token" if token else "")
        self._before = f"host:{self._host}\nx-amz-content-sha256:{_NOTHING}\nx-amz-date:"
        self._after = (f"\nx-amz-security-token:{token}" if token else "") + f"\n\n{names}\n{_NOTHING}"
        self._head = (
            f"Host: {self._host}\r\nAccept-Encoding: identity\r\nX-Amz-Content-SHA256: {_NOTHING}\r\n"
            + (f"X-Amz-Security-Token: {token}\r\n" if token else "")
            + f"Authorization: AWS4-HMAC-SHA256 Credential={access}/{self._scope}, SignedHeaders={names}, Signature="
        )
        self._made_of = (found, day)


def host_header(url: str) -> str:
    """The value of `Host` for an address: its port only where it is not the usual one. Raises `ValueError`."""
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc:
        raise ValueError
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host if parts.port in {None, _PORTS.get(parts.scheme)} else f"{host}:{parts.port}"
