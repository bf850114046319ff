"""Load a snapshot of Redis into a throwaway server here and count what it holds: the proof that it can be restored."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.assets.redis_rdb import RdbStream
from backends.embedded.processes import Processes
from backends.errors import AssetFailed
from backends.progress import Job, QuietJob
from backends.restore.redis_live import counts_of
from backends.restore.redis_saved import SavedServer, can_read, saved_servers
from backends.restore.redis_seen import databases, parse_version
from backends.restore.source import Source
from backends.untrusted import clean

if TYPE_CHECKING:
    import redis

_PROGRAMS = ("redis-server", "valkey-server")
_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
_SOCKET_LIMIT = 100
_LEAST_SECONDS = 30.0
_SLOWEST_LOAD = 10 * 1024 * 1024
_CHUNK = 256 * 1024
_MOST_QUEUES = 100


class NoReader(AssetFailed):
    """No redis-server of this machine reads the snapshot's format, which says nothing about the snapshot."""


@dataclass(slots=True, kw_only=True)
class RedisCounts:
    """What the snapshot's servers hold together, once loaded."""

    keys: int = 0
    queues: dict[str, int] = field(default_factory=dict)
    """Jobs by queue."""
    scheduled: int = 0
    retries: int = 0
    expired: int = 0
    """Keys whose time had passed since the snapshot; they are not among `keys`."""
    loaded_by: str = ""
    """`redis 7.0.15`."""

    @property
    def waiting(self) -> int:
        """Sidekiq's jobs that would still run."""
        return sum(self.queues.values()) + self.scheduled + self.retries


@dataclass(frozen=True, slots=True)
class _Program:
    path: str
    flavour: str
    version: str


def load_rdb(directory: Path, source: Source, processes: Processes, job: Job | None = None) -> RedisCounts:
    """Load every server of a snapshot, one after the other, and count.

    Args:
        directory: an empty one that only we may enter; decrypted data is in it meanwhile, and is removed.
        source: the snapshot.
        processes: who ends the server, however we end.
        job: is told of the progress, and can be cancelled.

    Raises:
        NoReader: no redis-server of this machine reads its format.
        AssetFailed: Redis does not load it.
        Damaged, KeyUnavailable, VaultError: as reading the source does.
        Cancelled: the operator asked to stop.
    """
    watched = job or QuietJob()
    saved = saved_servers(source.manifest)
    if not saved:
        raise AssetFailed(f"{source.manifest.id} holds no snapshot of a Redis.", "Choose another snapshot.")
    total = RedisCounts()
    for number, one in enumerate(saved):
        program = _program(one)
        place = directory / f"redis-{number}"
        place.mkdir(mode=0o700)
        try:
            _unpack(place / "dump.rdb", source, one, watched)
            with _served(place, program, processes, one, watched) as client:
                _count(client, total)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        total.loaded_by = f"{program.flavour} {program.version}"
    return total


def _program(saved: SavedServer) -> _Program:
    """The newest server here that reads the snapshot. Raises `AssetFailed`."""
    found = list(_programs())
    able = [one for one in found if can_read(one.flavour, one.version, saved)]
    if not able:
        here = ", ".join(f"{one.flavour} {one.version}" for one in found) or "no Redis at all"
        raise NoReader(
            f"No redis-server of this machine reads RDB format {saved.rdb_version}; here is {here}.",
            f"Install {saved.flavour} {saved.version or 'in a newer version'} here, or drill on another machine.",
        )
    # Redis itself rather than a fork, then the newest.
    return max(able, key=lambda one: (one.flavour == saved.flavour, [_number(part) for part in one.version.split(".")]))


def _programs() -> Iterator[_Program]:
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), *_DIRECTORIES))
    paths = [shutil.which(name, path=search) for name in _PROGRAMS]
    with suppress(ImportError):
        from backends.embedded.redis_server import newer_software, software

        paths += [str(path) for path in newer_software()]
        paths.append(str(software() / "redis-server"))
    for path in dict.fromkeys(path for path in paths if path):
        with suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run([path, "--version"], check=False, capture_output=True, timeout=20)
            flavour, version = parse_version(told.stdout.decode("utf-8", "replace"))
            if version:
                yield _Program(path, flavour, version)


def _unpack(path: Path, source: Source, saved: SavedServer, job: Job) -> None:
    entry = source.entry(saved.object)
    if entry is None:
        raise AssetFailed(f"{source.manifest.id} holds no {clean(saved.object, 100)}.", "Choose another snapshot.")
    job.step("unpacking the Redis snapshot", entry.plain_bytes)
    with closing(source.open(entry)) as plain, path.open("wb") as file:
        rdb = RdbStream(plain, entry.plain_bytes, job)
        while chunk := rdb.read(_CHUNK):
            file.write(chunk)
        rdb.finish()


@contextmanager
def _served(
    directory: Path, program: _Program, processes: Processes, saved: SavedServer, job: Job
) -> Iterator[redis.Redis]:
    """A server on the data of a directory, reached by its unix socket alone; it writes nothing."""
    import redis

    job.step("loading the snapshot into a throwaway Redis")
    job.check_cancelled()
    address, log, settings = directory / "redis.sock", directory / "redis.log", directory / "redis.conf"
    short: Path | None = None
    if len(str(address)) > _SOCKET_LIMIT:
        short = Path(tempfile.mkdtemp(prefix="mastovault-redis-"))
        processes.delete_at_end(short)
        address = short / "redis.sock"
    settings.write_text(
        f'port 0\nunixsocket "{address}"\nunixsocketperm 700\ndir "{directory}"\ndbfilename dump.rdb\n'
        'appendonly no\nsave ""\ndaemonize no\ndatabases 1024\nloglevel notice\n'
    )
    process = processes.start([program.path, str(settings)], log=log, cwd=directory)
    client = redis.Redis(unix_socket_path=str(address), protocol=2)
    try:
        deadline = time.monotonic() + _LEAST_SECONDS + saved.plain_bytes / _SLOWEST_LOAD
        while not _ready(client):
            job.check_cancelled()
            if process.poll() is not None or time.monotonic() > deadline:
                raise _refused(saved, log)
            time.sleep(0.02)
        yield client
    finally:
        client.close()
        processes.stop(process)
        if short is not None:
            shutil.rmtree(short, ignore_errors=True)


def _ready(client: redis.Redis) -> bool:
    from redis.exceptions import RedisError

    with suppress(RedisError, OSError):
        state: Any = client.info("persistence")
        return not state.get("loading")
    return False


def _refused(saved: SavedServer, log: Path) -> AssetFailed:
    said = log.read_text(errors="replace").strip().splitlines()
    telling = [line for line in said if "rror" in line or "an't" in line or "orrupt" in line or "hecksum" in line]
    why = clean((telling or said or ["it said nothing"])[-1], 300)
    return AssetFailed(
        f"{clean(saved.object, 100)} is not loaded by Redis: {why}", "Use another snapshot, and take a new one."
    )


def _count(client: redis.Redis, total: RedisCounts) -> None:
    """Add what a server holds; Sidekiq's jobs are looked for in every database."""
    info: Any = client.info()
    counts = counts_of(info)
    total.keys += counts.keys
    total.expired += counts.expired_at_load
    for number in sorted(databases(info)):
        client.select(number)
        names: Any = client.smembers("queues") if client.type("queues") == b"set" else set()
        for name in sorted(names)[:_MOST_QUEUES]:
            if client.type(b"queue:" + name) == b"list":
                shown = clean(name, 60)
                length: Any = client.llen(b"queue:" + name)
                total.queues[shown] = total.queues.get(shown, 0) + int(length)
        total.scheduled += _cardinality(client, "schedule")
        total.retries += _cardinality(client, "retry")


def _cardinality(client: redis.Redis, name: str) -> int:
    size: Any = client.zcard(name) if client.type(name) == b"zset" else 0
    return int(size)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
