"""redis-py over a socket that the connection forwards, with every fault in one sentence."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from backends.connection.base import Command, Connection
from backends.errors import AssetFailed, ConnectionFailed
from backends.mastodon.installation import RedisPlace
from backends.untrusted import clean

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 20.0
_LOOPBACK = frozenset({"localhost", "::1", "ip6-localhost"})


def where(place: RedisPlace) -> str:
    """For people: `localhost:6379` or `/run/redis/redis.sock`."""
    return clean(place.unix_path or f"{place.host}:{place.port}", 120)


def on_the_host(place: RedisPlace) -> bool:
    """Whether the server runs on the host itself, as far as its address tells."""
    return place.unix_path is not None or place.host in _LOOPBACK or place.host.startswith("127.")


class ForwardedConnection(redis.Connection):
    """A redis-py connection whose socket comes from `opener`. AUTH, SELECT and the protocol are redis-py's own."""

    def __init__(self, *, opener: Callable[[], socket.socket], **arguments: Any) -> None:
        super().__init__(**arguments)  # type: ignore[no-untyped-call]
        self._opener = opener
        self.raw: socket.socket | None = None

    def _connect(self) -> socket.socket:
        opened = self._opener()
        opened.settimeout(self.socket_timeout)
        self.raw = opened
        return opened


@contextmanager
def open_redis(connection: Connection, place: RedisPlace) -> Iterator[redis.Redis]:
    """A client for one role. Whatever goes wrong with it inside the `with` comes out as an error of ours.

    Raises:
        AssetFailed: Redis is down, refuses the password, lacks a right, is loading, or is behind Sentinel.
        ConnectionFailed: the host itself is lost.
    """
    if place.sentinel:
        raise AssetFailed(
            f"Redis on {connection.host} is found through Sentinel, which is not supported yet.",
            "Give the address of one server with `redis_url` in the host's configuration.",
        )
    pool = redis.ConnectionPool(
        connection_class=ForwardedConnection,
        opener=lambda: _open(connection, place),
        host=place.unix_path or place.host,
        port=place.port,
        db=place.database,
        username=place.user or None,
        password=place.password.reveal() if place.password else None,
        protocol=2,  # RESP3 needs Redis 6
        driver_info=None,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_CONNECT_SECONDS,
        max_connections=2,
        retry=Retry(NoBackoff(), 0),  # whoever waits for a Redis to come up asks again himself, sooner
    )
    client = redis.Redis(connection_pool=pool)
    try:
        yield client
    except RedisError as error:
        raise explain(connection, place, error) from None  # redis-py's traceback may hold the arguments of AUTH
    finally:
        with contextlib.suppress(RedisError, OSError):
            pool.disconnect()


def explain(connection: Connection, place: RedisPlace, error: Exception) -> AssetFailed:
    """One sentence for what redis-py raised."""
    name = f"Redis at {where(place)} on {connection.host}"
    prefix = "" if place.role == "base" else f"{place.role.upper()}_"
    if isinstance(error, AuthenticationError) or "NOAUTH" in str(error):
        return AssetFailed(
            f"{name} does not accept the password it was given.",
            f"Check {prefix}REDIS_PASSWORD (or {prefix}REDIS_URL) in .env.production.",
        )
    said = clean(str(error), 200)
    if isinstance(error, NoPermissionError):
        return AssetFailed(f"{name} does not allow what a backup needs: {said}", "Extend the rights of its user (ACL).")
    if isinstance(error, BusyLoadingError):
        return AssetFailed(f"{name} is still loading its data.", "Run the backup again in a few minutes.")
    if isinstance(error, ResponseError):
        return AssetFailed(f"{name} answered with an error: {said}", "Look at the log of redis-server.")
    return AssetFailed(f"{name} does not answer: {said}", "Look at `systemctl status redis-server` there.")


def _open(connection: Connection, place: RedisPlace) -> socket.socket:
    try:
        plain = (
            connection.open_unix(place.unix_path)
            if place.unix_path
            else connection.open_tcp(place.host or "localhost", place.port)
        )
    except ConnectionFailed as error:
        connection.run(Command(("true",)), timeout=20)  # raises ConnectionFailed when the host itself is lost
        raise AssetFailed(
            f"Redis at {where(place)} on {connection.host} cannot be reached: {error.sentence}",
            "Look at `systemctl status redis-server` there; over SSH, forwarding must be allowed.",
        ) from error
    return _with_tls(connection, plain, place) if place.tls else plain


def _with_tls(connection: Connection, plain: socket.socket, place: RedisPlace) -> socket.socket:
    plain.settimeout(_CONNECT_SECONDS)
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=place.host)
    except (ssl.SSLError, OSError) as error:
        plain.close()
        reason = getattr(error, "verify_message", "") or type(error).__name__
        raise AssetFailed(
            f"Redis at {where(place)} on {connection.host} cannot be trusted over TLS: {clean(reason, 120)}.",
            "Its certificate must be valid for that name, by an authority that this machine knows.",
        ) from error
