"""Signed requests are those that botocore makes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from backends.vault.s3_sign import Signer, host_header

NOON = 1_800_000_000.0
PATH = st.from_regex(r"(/[A-Za-z0-9_-][A-Za-z0-9._~-]{0,20}|/%[2-7][0-9A-F]){1,6}", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
HOST = st.from_regex(r"https?://([a-z0-9]{1,9}(\.[A-Za-z0-9]{1,9}){0,2}|\[::1\])(:(80|443|9000))?", fullmatch=True)


@contextmanager
def clock(seconds: float) -> Iterator[None]:
    now = datetime.fromtimestamp(seconds, UTC)
    theirs = mock.patch.object(auth, "get_current_datetime", return_value=now)
    with theirs, mock.patch.object(time, "time", return_value=seconds):
        yield


def fields(request: bytes) -> dict[str, str]:
    _, *lines = request.decode().removesuffix("\r\n\r\n").split("\r\n")
    return dict(line.split(": ", 1) for line in lines)


@given(PATH, HOST, TEXT, TEXT, TEXT | st.none(), st.sampled_from(["us-east-1", "eu-central-1", "auto"]))
def test_as_botocore_signs(path: str, base: str, access: str, secret: str, token: str | None, region: str) -> None:
    credentials = Credentials(access, secret, token)
    theirs = AWSRequest("GET", base + path)
    with clock(NOON):
        auth.S3SigV4Auth(credentials.get_frozen_credentials(), "s3", region).add_auth(theirs)
        made = Signer(credentials, region, host_header(base)).request(path)
    assert made.startswith(f"GET {path} HTTP/1.1\r\n".encode())
    ours = fields(made)
    assert ours.pop("Host") == auth._host_from_url(base + path)  # type: ignore[attr-defined]
    assert ours.pop("Accept-Encoding") == "identity"
    assert {name.lower(): value for name, value in ours.items()} == {
        name.lower(): value for name, value in theirs.headers.items()
    }


def test_a_new_day_and_new_credentials_are_noticed() -> None:
    credentials = Credentials("one", "secret", "token")
    signer = Signer(credentials, "us-east-1", "s3.test")
    seen = []
    for seconds, access in ((NOON, "one"), (NOON, "two"), (NOON + 86_400, "two")):
        credentials.access_key = access
        theirs = AWSRequest("GET", "https://s3.test/a/b")
        with clock(seconds):
            auth.S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(theirs)
            seen.append(fields(signer.request("/a/b"))["Authorization"])
        assert seen[-1] == theirs.headers["Authorization"]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("bad", ["a\r\nX-Other: b", "a b", "ä"])
def test_nothing_slips_into_the_head(bad: str) -> None:
    for credentials in (Credentials(bad, "secret"), Credentials("access", "secret", bad)):
        with pytest.raises(ValueError):  # noqa: PT011 - it says nothing, for it would say a secret
            Signer(credentials, "us-east-1", "s3.test").request("/a")


@pytest.mark.parametrize("address", ["http://user@s3.test/", "http:///a", "http://s3.test:99999/"])
def test_strange_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"^$|range"):
        host_header(address)
