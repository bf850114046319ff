"""Reading many objects of a bucket at once: past the client where all is plain, by the client where it is not."""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import psutil
import pycurl
import pytest

from backends.errors import NotFound, VaultError
from backends.vault import s3_bucket, s3_curl, s3_many
from backends.vault.s3 import S3Vault
from backends.vault.s3_errors import VaultGone
from tests.servers.certificate import certificate
from tests.servers.s3 import S3Server, moto_server, rclone_server, s3_keys
from tests.servers.s3_faults import Fault, FaultyS3

__all__ = ["moto_server", "rclone_server", "s3_keys"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are short."""
    monkeypatch.setattr(s3_bucket, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(s3_bucket, "_LONGEST_PAUSE", 0.01)


@pytest.fixture
def proxy(rclone_server: S3Server) -> Iterator[FaultyS3]:
    with FaultyS3(rclone_server.endpoint_url) as running:
        yield running


@pytest.fixture
def vault(proxy: FaultyS3, rclone_server: S3Server) -> Iterator[S3Vault]:
    made = rclone_server.vault(endpoint_url=proxy.endpoint_url)
    yield made
    made.close()


class Counted:
    """Reads by the client, counted."""

    def __init__(self, vault: S3Vault) -> None:
        self.vault, self.keys = vault, list[str]()

    def __call__(self, key: str) -> BinaryIO:
        self.keys.append(key)
        return self.vault.read(key)

    def many(self, keys: list[str], limit: int = 5000) -> Iterator[tuple[str, bytes | VaultError]]:
        return s3_many.read_many(self.vault._bucket, keys, limit, self)


def fill(vault: S3Vault, count: int, size: int = 2000) -> dict[str, bytes]:
    there = {f"some/{number:03}": secrets.token_bytes(size) for number in range(count)}
    for key, data in there.items():
        vault.put_new(key, data)
    return there


@pytest.mark.parametrize("server", ["rclone_server", "moto_server"])
def test_only_the_first_is_read_by_the_client(request: pytest.FixtureRequest, server: str) -> None:
    vault = request.getfixturevalue(server).vault()
    there = fill(vault, 24)
    wanted = [*reversed(there), "some/001", "some/001"]
    counted = Counted(vault)
    found = list(counted.many(wanted))
    assert found == [(key, there[key]) for key in wanted], "in the order that was asked for"
    assert len(counted.keys) == 1
    vault.close()


def test_over_tls_too(rclone_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, context = certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with FaultyS3(rclone_server.endpoint_url, context) as proxy:
        vault = rclone_server.vault(endpoint_url=proxy.endpoint_url)
        there = fill(vault, 12, 50_000)  # some records of TLS each
        counted = Counted(vault)
        assert dict(counted.many(list(there), 60_000)) == there
        assert len(counted.keys) == 1
        vault.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_an_untrusted_certificate_is_no_way_around(
    rclone_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    bundle, context = certificate(tmp_path)
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with FaultyS3(rclone_server.endpoint_url, context) as proxy:
        direct = rclone_server.vault()
        there = fill(direct, 1)
        vault = rclone_server.vault(direct._bucket.config.bucket, endpoint_url=proxy.endpoint_url)
        found: list[bytes | None] = []
        base = f"{proxy.endpoint_url}/{vault._bucket.config.bucket}/"
        asks = s3_many._requests(vault._bucket, base, "us-east-1", 5000, lambda _, content: found.append(content))
        asks.ask(0, vault._bucket.prefix + next(iter(there)))
        while not found:
            asks.turn(1)
        asks.close()
        assert found == ([*there.values()] if trusted else [None])


def test_a_limit_and_what_is_longer(vault: S3Vault) -> None:
    there = fill(vault, 6, 300_000)
    counted = Counted(vault)
    assert dict(counted.many(list(there), 9)) == {key: data[:10] for key, data in there.items()}
    assert dict(counted.many(list(there), 299_999)) == there
    assert len(counted.keys) == 2


def test_what_is_missing_and_what_is_no_key(vault: S3Vault) -> None:
    there = fill(vault, 3)
    found = dict(vault.read_many([*there, "some/none", "../etc", "a\r\nb"], 5000))
    assert isinstance(found.pop("some/none"), NotFound)
    assert isinstance(found.pop("../etc"), VaultError)
    assert isinstance(found.pop("a\r\nb"), VaultError)
    assert found == there


def test_each_fault_is_repaired_by_the_client(vault: S3Vault, proxy: FaultyS3) -> None:
    there = fill(vault, 50)
    for number, how in enumerate(({"status": 503}, {"cut_answer": 100}, {"lose_request": True}, {"lose_answer": True})):
        has = f"/some/0{number + 1}"
        proxy.fail(Fault(method="GET", has=has, times=3, **how))  # type: ignore[arg-type]
    counted = Counted(vault)
    assert dict(counted.many(list(there))) == there
    assert 1 < len(counted.keys) <= 1 + 12
    assert all(fault.times == 0 for fault in proxy.faults)


def test_a_vault_that_goes_away_is_said(vault: S3Vault, proxy: FaultyS3) -> None:
    there = fill(vault, 9)
    reading = vault.read_many(there, 5000)
    assert next(reading)[0] == "some/000"
    proxy.fail(Fault(status=404, code="NoSuchBucket"))
    with pytest.raises(VaultGone):
        list(reading)


def test_who_stops_early_leaves_nothing_open(vault: S3Vault) -> None:
    there = fill(vault, 24)
    reading = iter(vault.read_many(there, 5000))
    assert [next(reading)[0] for _ in range(5)] == list(there)[:5]
    before = connections()
    reading.close()  # type: ignore[attr-defined]
    assert connections() < before
    assert not any(thread.name.startswith("read ") for thread in threading.enumerate())


def connections() -> int:
    """Of this process."""
    return len(psutil.Process().net_connections("tcp"))


def test_little_is_read_ahead(rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_many, "_AHEAD_BYTES", 20_000)
    with odd_server(lambda request: plain(bytes(10_000))) as (url, heard):
        vault = rclone_server.vault("bucket", endpoint_url=url)
        wanted = [f"key{number}" for number in range(120)]
        reading = vault.read_many(wanted, 20_000)
        for _ in range(50):
            next(reading)
        assert len(heard) < 50 + 2 * s3_curl.LINES
        assert len(list(reading)) == 70
        vault.close()


def test_a_proxy_of_the_environment_is_left_to_the_client(
    vault: S3Vault, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = fill(vault, 5)
    monkeypatch.setenv("http_proxy", proxy.endpoint_url)
    monkeypatch.setattr(s3_many, "get_environ_proxies", lambda _: {"http": proxy.endpoint_url})
    counted = Counted(vault)
    assert dict(counted.many(list(there))) == there
    assert sorted(counted.keys) == sorted(there)


@contextmanager
def odd_server(answer: Callable[[bytes], bytes], hangs_up_after: int = 1000) -> Iterator[tuple[str, list[bytes]]]:
    """Answers each request as a function says; hangs up after some without having announced it."""
    heard: list[bytes] = []
    stop = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.05)
            data, left = b"", hangs_up_after
            while left > 0 and not stop.is_set():
                try:
                    piece = connection.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not piece:
                    return
                data += piece
                while b"\r\n\r\n" in data:
                    one, _, data = data.partition(b"\r\n\r\n")
                    heard.append(one)
                    connection.sendall(answer(one))
                    left -= 1

    def accept(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", heard
        finally:
            stop.set()
            listening.shutdown(socket.SHUT_RDWR)


def plain(body: bytes) -> bytes:
    return b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body)


def by_client(request: bytes) -> bool:
    return b"Boto3" in request


def test_a_server_that_falls_silent(rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_many, "READ_SECONDS", 1)
    with odd_server(lambda request: plain(b"late") if by_client(request) or b"/3" not in request[:40] else b"") as it:
        vault = rclone_server.vault("bucket", endpoint_url=it[0])
        counted = Counted(vault)
        assert dict(counted.many([str(number) for number in range(6)])) == dict.fromkeys("012345", b"late")
        assert counted.keys == ["0", "3"]
        vault.close()


@pytest.mark.parametrize(
    "odd",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nlate\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nla",
        b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_who_speaks_otherwise_is_not_asked_for_ever(rclone_server: S3Server, odd: bytes) -> None:
    with odd_server(lambda request: plain(b"late") if by_client(request) else odd) as (url, heard):
        vault = rclone_server.vault("bucket", endpoint_url=url)
        wanted = [f"key{number}" for number in range(250)]
        assert dict(vault.read_many(wanted, 100)) == dict.fromkeys(wanted, b"late")
        tried = [request for request in heard if not by_client(request)]
        assert 1 <= len(tried) <= s3_curl._PATIENCE + s3_curl.LINES
        vault.close()


def test_a_server_that_hangs_up_unannounced(rclone_server: S3Server) -> None:
    with odd_server(lambda request: plain(b"data"), hangs_up_after=7) as (url, heard):
        vault = rclone_server.vault("bucket", endpoint_url=url)
        wanted = [f"key{number}" for number in range(400)]
        reading = vault.read_many(wanted, 100)
        found = [next(reading) for _ in range(100)]
        assert dict([*found, *reading]) == dict.fromkeys(wanted, b"data")
        assert sum(map(by_client, heard)) < len(wanted) / 4
        vault.close()


def test_where_nobody_else_may_connect_the_client_reads(vault: S3Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    there = fill(vault, 9)

    whole = s3_curl.Requests._new

    def refused(requests: s3_curl.Requests) -> pycurl.Curl:
        handle = whole(requests)
        handle.setopt(pycurl.INTERFACE, "no-such-interface")
        return handle

    monkeypatch.setattr(s3_curl.Requests, "_new", refused)
    counted = Counted(vault)
    assert dict(counted.many(list(there))) == there
    assert len(counted.keys) == len(there)


def test_what_is_asked_for_says_no_more_than_it_must(vault: S3Vault, proxy: FaultyS3) -> None:
    there = fill(vault, 4)
    proxy.asked.clear()
    assert dict(vault.read_many(there, 5000)) == there
    own = [asked for asked in proxy.asked if asked.headers["User-Agent"] == "mastovault"]
    assert len(own) == 3
    assert {re.sub(r"\d+$", "", asked.path) for asked in own} == {f"/{vault._bucket.config.bucket}/some/prefix/some/"}
    names = {"host", "accept", "user-agent", "x-amz-content-sha256", "x-amz-date", "authorization"}
    assert all({name.lower() for name in asked.headers} == names for asked in own)
