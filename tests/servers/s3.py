"""S3 servers on loopback: rclone's real one, and moto's for what that one lacks (versions, Object Lock, conditions)."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError

from backends.config.schema import S3Vault as S3Config
from backends.embedded.processes import Processes
from backends.lab.bucket import REGION, BucketServer
from backends.vault.s3 import S3Vault

_NUMBERS = itertools.count(1)
ACCESS, SECRET = "MASTOVAULT_TEST_S3_KEY", "MASTOVAULT_TEST_S3_SECRET"
"""Variables that hold the keys of the servers; those of both servers are the same."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a server is, and what it takes."""

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)
    rclone: BucketServer | None = None

    @property
    def directory(self) -> Path:
        """Of rclone's server: its buckets are the directories in it."""
        assert self.rclone is not None
        return self.rclone.directory

    def await_bucket(self, name: str) -> None:
        """Have rclone's server see a bucket that was made in its directory."""
        assert self.rclone is not None
        self.rclone.forget()
        client = self.client()
        for _ in range(500):  # it looks soon, not at once
            with contextlib.suppress(ClientError):
                client.head_bucket(Bucket=name)
                return
            time.sleep(0.01)
        raise AssertionError(f"{name} is not seen")

    def client(self) -> Any:
        """A boto3 client past everything that is tested."""
        return _client(self.endpoint_url, self.access_key, self.secret_key)

    def make_bucket(self, *, lock: bool = False) -> str:
        """A new bucket, with versions and Object Lock when asked for."""
        name = f"bucket-{next(_NUMBERS)}-{secrets.token_hex(3)}"
        self.client().create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        return name

    def config(self, bucket: str | None = None, **settings: Any) -> S3Config:
        """Settings of a vault in a bucket (a new one when not named) of this server."""
        given = {"endpoint_url": self.endpoint_url, "prefix": "some/prefix", **settings}
        return S3Config(
            type="s3", bucket=bucket or self.make_bucket(), access_key_env=ACCESS, secret_key_env=SECRET, **given
        )

    def vault(self, bucket: str | None = None, **settings: Any) -> S3Vault:
        """A vault in a bucket of this server."""
        return S3Vault("v", self.config(bucket, **settings))


@cache
def _client(endpoint_url: str, access_key: str, secret_key: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=REGION,
    )


@pytest.fixture(scope="session")
def s3_keys() -> Iterator[tuple[str, str]]:
    """The keys of both servers, which are in the environment."""
    access, secret = f"TEST{secrets.token_hex(8).upper()}", secrets.token_hex(20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ACCESS, access)
        patch.setenv(SECRET, secret)
        yield access, secret


@pytest.fixture(scope="session")
def rclone_server(s3_keys: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server over a directory."""
    processes = Processes(f"s3-{secrets.token_hex(8)}")
    server = BucketServer(tmp_path_factory.mktemp("rclone") / "buckets", processes, keys=s3_keys)
    try:
        server.start()
        yield S3Server(server.endpoint_url, *s3_keys, server)
    finally:
        server.stop()
        processes.close()


@pytest.fixture(scope="session")
def moto_server(s3_keys: tuple[str, str]) -> Iterator[S3Server]:
    """moto's server in a thread of this process; it takes any keys."""
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    WSGIRequestHandler.disable_nagle_algorithm = True  # or the second of two writes waits for 40 ms
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}", *s3_keys)
    finally:
        server.stop()
