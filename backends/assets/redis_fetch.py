"""Ways to a Redis snapshot's bytes: the file on the host, `redis-cli --rdb`, or a replication transfer.

Each way is a context manager that yields an `RdbStream` whose header has been seen, and raises `AssetFailed` before
that when it is not open to us, so that the next one can be tried.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ResponseError

from backends.archive.snapshot import Source
from backends.assets.redis_client import where
from backends.assets.redis_rdb import RdbStream, UnmarkedSource
from backends.connection.base import Command, Connection, Process, sh
from backends.errors import AssetFailed, BecomeRefused, MastovaultError
from backends.mastodon.installation import RedisPlace
from backends.progress import Job
from backends.untrusted import clean

_CLOCK_SLACK = 2
"""Seconds: file times are read from another clock tick than the server's."""
_TRANSFER_SECONDS = 90.0
"""How long a server may say nothing; while it prepares a transfer it sends a line feed every 10 s."""
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_MAY_READ = '[ -d "$1" ] && [ -x "$1" ] && { [ ! -e "$1/$2" ] || [ -r "$1/$2" ]; }'
_READ = 'exec <"$1/$2" || exit 9; stat -L -c "%s %Y" /proc/self/fd/0 && exec cat'
_CLI = (
    'socket=$1 host=$2 port=$3 user=$4 tls=$5; set --; [ -z "$user" ] || set -- --user "$user"; '
    '[ -z "$tls" ] || set -- "$@" --tls; '
    'if [ -n "$socket" ]; then set -- "$@" -s "$socket"; else set -- "$@" -h "$host" -p "$port"; fi; '
    'exec redis-cli "$@" --rdb -'
)


@dataclass(frozen=True, slots=True)
class RdbFile:
    """Where the server keeps its snapshot, and as whom it can be read (None: the login user)."""

    directory: str
    name: str
    as_user: str | None


def find_file(connection: Connection, client: redis.Redis, pid: int | None) -> RdbFile | None:
    """The server's snapshot file with the least right that opens it; None when no right does, or CONFIG is closed."""
    try:
        answer: Any = client.config_get("dir") | client.config_get("dbfilename")
    except (ResponseError, TypeError):
        return None
    directory, name = _text(answer, "dir"), _text(answer, "dbfilename")
    if not directory or not name or "/" in name:
        return None
    for user in _readers(connection, pid):
        with contextlib.suppress(BecomeRefused):
            if connection.run(Command(sh(_MAY_READ, directory, name), as_user=user), timeout=20).status == 0:
                return RdbFile(directory, name, user)
    return None


def _text(answer: Any, name: str) -> str:
    value = answer.get(name, answer.get(name.encode(), ""))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _readers(connection: Connection, pid: int | None) -> Iterator[str | None]:
    """As whom to try: the login user, the owner of the server's process, root."""
    yield None
    if pid:
        told = connection.run(Command(("stat", "-c", "%U", f"/proc/{pid}")), timeout=20)
        owner = told.text.strip()
        if told.status == 0 and owner not in {connection.login_user, "UNKNOWN", "root"} and _USER.fullmatch(owner):
            yield owner
    if connection.login_user != "root":
        yield "root"


@contextmanager
def from_file(connection: Connection, file: RdbFile, since: int, job: Job) -> Iterator[RdbStream]:
    """Read the file that was just saved. It is renamed into place, so an open one stays whole."""
    with _started(connection, Command(sh(_READ, file.directory, file.name), as_user=file.as_user), job) as process:
        first = _first_line(process)
        size, _, changed = first.partition(b" ")
        if not (size.isdigit() and changed.isdigit()):
            raise AssetFailed(f"{_path(file)} could not be read: {process.stderr_tail() or 'it is not there'}")
        if int(changed) < since - _CLOCK_SLACK:
            raise AssetFailed(f"{_path(file)} is older than the save: it belongs to another Redis")
        job.step("reading the snapshot", int(size))
        stream = RdbStream(process, int(size), job)
        _must_be_new(stream, since)
        yield stream
        _must_end_well(process, "cat")


@contextmanager
def from_cli(connection: Connection, place: RedisPlace, since: int, job: Job) -> Iterator[RdbStream]:
    """Let redis-cli on the host act as a replica; the password goes in over `secret_env`."""
    if not connection.has("redis-cli"):
        raise AssetFailed(f"{connection.host} has no redis-cli.")
    script = sh(_CLI, place.unix_path or "", place.host, str(place.port), place.user or "", "tls" if place.tls else "")
    secret = {"REDISCLI_AUTH": place.password} if place.password else None
    with _started(connection, Command(script, secret_env=secret), job) as process:
        job.step("reading the snapshot")
        try:
            stream = RdbStream(UnmarkedSource(process), None, job)
        except AssetFailed:
            raise AssetFailed(f"redis-cli could not fetch it: {_last(process.stderr_tail())}") from None
        _must_be_new(stream, since)
        yield stream
        _must_end_well(process, "redis-cli")


@contextmanager
def from_replication(client: redis.Redis, place: RedisPlace, since: int, job: Job) -> Iterator[RdbStream]:
    """Act as a replica ourselves over the forwarded socket: SYNC, the snapshot, goodbye."""
    pool: Any = client.connection_pool
    link: Any = pool.get_connection()
    forget = job.on_cancel(lambda: _hang_up(link.raw))
    try:
        with contextlib.suppress(ResponseError):  # older than 7.0: it also gets what changes meanwhile
            link.send_command("REPLCONF", "rdb-only", "1")
            link.read_response()
        if link.raw is None:
            raise AssetFailed(f"Redis at {where(place)} closed the connection.")
        link.raw.settimeout(_TRANSFER_SECONDS)
        link.raw.sendall(b"SYNC\r\n")
        job.step("reading the snapshot")
        transfer = _Transfer(link.raw)
        job.step("reading the snapshot", transfer.size)
        source: Source = transfer if transfer.size is not None else UnmarkedSource(transfer)
        stream = RdbStream(source, transfer.size, job)
        _must_be_new(stream, since)
        yield stream
    except OSError as error:
        job.check_cancelled()
        raise AssetFailed(f"Redis at {where(place)} broke the transfer off: {clean(str(error), 120)}") from error
    finally:
        forget()
        link.disconnect()
        pool.release(link)


class _Transfer:
    """What follows SYNC: line feeds while the server prepares, `$<length>` or `$EOF:<mark>`, the snapshot."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._mark = b""
        self._end = b""
        line = self._line()
        while not line:
            line = self._line()
        if line.startswith(b"$EOF:") and len(line) == 45:
            self._mark = line[5:]
            self.size: int | None = None
        elif re.fullmatch(rb"\$\d{1,18}", line):
            self.size = int(line[1:])
        else:
            raise AssetFailed(f"Redis refused the transfer: {clean(line.lstrip(b'-'), 120)}")
        self._left = self.size

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes of the snapshot; of a diskless one with its mark, which comes last."""
        if self._left == 0 or (self._mark and self._end == self._mark):
            return b""
        wanted = 64 * 1024 if size < 0 else size
        chunk = self._link.recv(wanted if self._left is None else min(wanted, self._left))
        if self._left is not None:
            self._left -= len(chunk)
        self._end = (self._end + chunk)[-len(self._mark) :] if self._mark else b""
        return chunk

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            byte = self._link.recv(1)
            if not byte or len(line) > 200:
                raise AssetFailed("Redis closed the connection instead of sending its snapshot.")
            line += byte
        return line.rstrip(b"\r\n")


@contextmanager
def _started(connection: Connection, command: Command, job: Job) -> Iterator[Process]:
    with connection.start(command) as process:
        forget = job.on_cancel(process.terminate)
        try:
            yield process
        except MastovaultError:
            job.check_cancelled()  # a lost stream is how a cancel looks from here
            raise
        finally:
            forget()


def _first_line(process: Process) -> bytes:
    line = b""
    while len(line) < 64 and (byte := process.read(1)) and byte != b"\n":
        line += byte
    return line


def _must_be_new(stream: RdbStream, since: int) -> None:
    created = stream.header.created_at
    if created is not None and created < since - _CLOCK_SLACK:
        raise AssetFailed("What came is an older snapshot than the one just made: it belongs to another Redis.")


def _must_end_well(process: Process, program: str) -> None:
    try:
        status = process.wait(timeout=60)
    except TimeoutError:
        raise AssetFailed(f"{program} on the host does not end.", "Run the backup again.") from None
    if status != 0:
        said = _last(process.stderr_tail())
        raise AssetFailed(f"{program} on the host ended with status {status}: {said}", "Run the backup again.")


def _hang_up(link: socket.socket | None) -> None:
    if link is not None:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _path(file: RdbFile) -> str:
    return clean(f"{file.directory}/{file.name}", 200)
