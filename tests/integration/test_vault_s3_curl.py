"""What libcurl asks for is signed as botocore signs it, and nothing slips into a request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import get_cert_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.vault.s3_curl import Requests, Way
from tests.servers.certificate import certificate

KEY = st.from_regex(
    r"[A-Za-z0-9_-][A-Za-z0-9._~-]{0,20}(/[A-Za-z0-9_-][A-Za-z0-9 +=@:,&$é.~-]{0,20}){0,4}", fullmatch=True
)
ACCESS = st.from_regex(r"[A-Za-z0-9._~-]{1,40}", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


class Listening(ThreadingHTTPServer):
    """Answers every request with its number, and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.heard: list[tuple[str, Message]] = []
        self.base = f"http://127.0.0.1:{self.server_port}/bucket/"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listening

    def do_GET(self) -> None:
        self.server.heard.append((self.path, self.headers))
        body = str(len(self.server.heard)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


@pytest.fixture(scope="module")
def server() -> Iterator[Listening]:
    with Listening() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(way: Way, *keys: str) -> list[bytes | None]:
    """What comes of each key."""
    found: dict[int, bytes | None] = {}
    requests = Requests(way, 100, found.__setitem__)
    for number, key in enumerate(keys):
        requests.ask(number, key)
    while len(found) < len(keys):
        requests.turn(1)
    requests.close()
    return [found[number] for number in range(len(keys))]


def way(base: str, credentials: Credentials, region: str = "us-east-1") -> Way:
    return Way(base, region, credentials, str(get_cert_path(True)), (5, 5))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(key=KEY, access=ACCESS, secret=TEXT, token=TEXT | st.none(), region=st.sampled_from(["us-east-1", "auto"]))
def test_as_botocore_signs(
    server: Listening, key: str, access: str, secret: str, token: str | None, region: str
) -> None:
    credentials = Credentials(access, secret, token)
    (found,) = ask(way(server.base, credentials, region), key)
    assert found == str(len(server.heard)).encode()
    path, headers = server.heard[-1]
    theirs = AWSRequest("GET", server.base.removesuffix("/bucket/") + path)
    at = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    with mock.patch.object(auth, "get_current_datetime", return_value=at):
        auth.S3SigV4Auth(credentials.get_frozen_credentials(), "s3", region).add_auth(theirs)
    assert {name: headers[name] for name in theirs.headers} == dict(theirs.headers.items())


def test_new_credentials_are_noticed(server: Listening) -> None:
    credentials = Credentials("one", "secret", "token")
    found: dict[int, bytes | None] = {}
    requests = Requests(way(server.base, credentials), 100, found.__setitem__)
    server.heard.clear()
    for number, (access, token) in enumerate((("one", "token"), ("two", "other"), ("three", None))):
        credentials.access_key, credentials.token = access, token
        requests.ask(number, "key")
        while number not in found:
            requests.turn(1)
    requests.close()
    assert [headers["Authorization"].split("=")[1].split("/")[0] for _, headers in server.heard] == [
        "one",
        "two",
        "three",
    ]
    assert [headers["X-Amz-Security-Token"] for _, headers in server.heard] == ["token", "other", None]


@pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "a b", "ä", "a\n"])
@pytest.mark.parametrize("where", ["access", "token"])
def test_nothing_slips_into_the_head(server: Listening, bad: str, where: str) -> None:
    server.heard.clear()
    credentials = Credentials(bad, "secret") if where == "access" else Credentials("access", "secret", bad)
    assert ask(way(server.base, credentials), "key", "key") == [None, None]
    assert server.heard == []


@pytest.mark.parametrize(
    ("base", "region"),
    [
        ("file:///etc/", "us-east-1"),
        ("gopher://127.0.0.1/", "us-east-1"),
        ("http://someone@127.0.0.1/", "us-east-1"),
        ("http://127.0.0.1/", "us-east-1:other"),
        ("http://127.0.0.1/", ""),
    ],
)
def test_strange_places_are_refused(base: str, region: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Requests(way(base, Credentials("access", "secret"), region), 100, lambda *_: None)


def test_proxies_and_netrc_of_the_environment_change_nothing(
    server: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login other password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    server.heard.clear()
    assert ask(way(server.base, Credentials("access", "secret")), "key") == [b"1"]
    assert "Credential=access/" in server.heard[0][1]["Authorization"]


def test_a_directory_of_certificates_is_one(server: Listening, tmp_path: Path) -> None:
    certificate(tmp_path)
    trusting = Way(server.base, "us-east-1", Credentials("access", "secret"), str(tmp_path), (5, 5))
    assert ask(trusting, "key") != [None]
