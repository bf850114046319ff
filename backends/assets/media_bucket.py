"""Media that an object storage keeps: which one, does it answer, does it keep old versions.

Asked with the host's own keys, which are read from its settings and never shown. Only reads are made.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from backends.connection.base import Connection
from backends.errors import MastovaultError
from backends.mastodon.installation import MediaKind, MediaPlace
from backends.model import Asset, AssetObservation
from backends.untrusted import clean

if TYPE_CHECKING:
    from botocore.client import BaseClient

_CONNECT_SECONDS = 3
_READ_SECONDS = 5
_KINDS = {MediaKind.S3: "S3", MediaKind.SWIFT: "OpenStack Swift", MediaKind.AZURE: "Azure Blob Storage"}
_CODES = {
    "403": "refuses the host's keys",
    "AccessDenied": "refuses the host's keys",
    "InvalidAccessKeyId": "does not know the host's access key",
    "SignatureDoesNotMatch": "does not accept the host's secret key",
    "404": "has no such bucket",
    "NoSuchBucket": "has no such bucket",
    "301": "says that the bucket is in another region",
    "PermanentRedirect": "says that the bucket is in another region",
}


def storage_name(place: MediaPlace) -> str:
    """For people: `Wasabi bucket media-club`."""
    provider = clean(place.provider or _KINDS.get(place.kind, "object storage"), 80)
    return f"{provider} bucket {clean(place.bucket, 80)}" if place.bucket else provider


def observe_bucket(connection: Connection, place: MediaPlace) -> AssetObservation:
    """What can be said of the storage: its name, and for S3 whether it answers and keeps versions. Never raises."""
    name = storage_name(place)
    if place.kind is not MediaKind.S3 or not place.bucket or not (place.access_key and place.secret_key):
        what = (
            "its keys are not known" if place.kind is MediaKind.S3 else f"{_KINDS.get(place.kind, 'it')} is not asked"
        )
        return _observation(name, f"{name} keeps it; {what}", ())
    try:
        with _endpoint(connection, place) as url:
            versioning, warnings = _ask(_client(place, url), place.bucket, name)
    except MastovaultError as error:
        versioning, warnings = "", (f"{name} could not be asked: {error.sentence}",)
    detail = f"{name} keeps it" + (f", {versioning}" if versioning else "")
    return _observation(name, detail, warnings)


def _observation(name: str, detail: str, warnings: tuple[str, ...]) -> AssetObservation:
    return AssetObservation(asset=Asset.MEDIA, present=True, detail=detail, provider=name, warnings=warnings)


def _ask(client: BaseClient, bucket: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Versioning in words, and what is wrong."""
    from botocore.exceptions import BotoCoreError, ClientError

    calls: Any = client
    try:
        calls.head_bucket(Bucket=bucket)
    except ClientError as error:
        return "", (f"{name} {_reason(error.response)}",)
    except (BotoCoreError, ValueError, OSError) as error:
        return "", (f"{name} does not answer ({type(error).__name__})",)
    try:
        status = calls.get_bucket_versioning(Bucket=bucket).get("Status")
    except (ClientError, BotoCoreError, ValueError, OSError):
        return "it answers, versioning unknown", ()
    if status == "Enabled":
        return "it answers, versioning on", ()
    return "it answers, versioning off", (f"{name} keeps no old versions: what is deleted there is gone",)


def _reason(response: Any) -> str:
    """A sentence for an S3 error code; the service's own message is left out, it may repeat the access key."""
    code = clean(str(response.get("Error", {}).get("Code", "")), 60)
    return _CODES.get(code, f"answered with the error {code or 'unknown'}")


def _client(place: MediaPlace, url: str | None) -> BaseClient:
    from botocore.config import Config

    boto3: Any = import_module("boto3")  # loaded late: it costs half a second
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"} if url else {},
        proxies={} if url and place.endpoint_url != url else None,
    )
    if place.access_key is None or place.secret_key is None:
        raise ValueError("keys are needed")
    session = boto3.session.Session(
        aws_access_key_id=place.access_key.reveal(),
        aws_secret_access_key=place.secret_key.reveal(),
        region_name=place.region or "us-east-1",
    )
    client: BaseClient = session.client("s3", endpoint_url=url, config=config)
    return client


@contextmanager
def _endpoint(connection: Connection, place: MediaPlace) -> Iterator[str | None]:
    """Where boto3 should connect to: an address that only the host can reach is forwarded over the connection."""
    parts = urlsplit(place.endpoint_url or "")
    if not parts.hostname or parts.scheme != "http" or not _inside(parts.hostname):
        yield place.endpoint_url
        return
    connection.open_tcp(parts.hostname, parts.port or 80).close()  # says at once when nobody answers there
    with _Relay(connection, parts.hostname, parts.port or 80) as port:
        yield f"http://127.0.0.1:{port}{parts.path}"


def _inside(name: str) -> bool:
    """Whether an address means something else, or nothing, when it is not the host that asks."""
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return "." not in name or name.endswith((".local", ".internal", ".lan", ".localhost"))


class _Relay:
    """Passes connections to a loopback port on to an address as the host sees it."""

    def __init__(self, connection: Connection, host: str, port: int) -> None:
        self._connection = connection
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, name="bucket-relay", daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = self._connection.open_tcp(*self._target)
            except (OSError, MastovaultError):
                return
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), name="bucket-relay", daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(64 * 1024):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
