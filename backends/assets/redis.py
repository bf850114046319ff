"""The Redis asset: Sidekiq's queues, retries and schedule, feeds and counters. The cache role is not worth saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import redis
from redis.exceptions import NoPermissionError, ResponseError

from backends.archive.snapshot import SnapshotWriter
from backends.assets.base import BackupContext, Outcome, Plan, Step
from backends.assets.redis_client import on_the_host, open_redis, where
from backends.assets.redis_fetch import RdbFile, find_file, from_cli, from_file, from_replication
from backends.assets.redis_rdb import RdbStream
from backends.assets.redis_save import save, server_time
from backends.connection.base import Connection
from backends.errors import AssetFailed
from backends.mastodon.installation import Installation, RedisPlace
from backends.model import Asset, AssetObservation
from backends.untrusted import clean

_SAVED_ROLES = ("base", "sidekiq")
_MOST_QUEUES = 100
_SIDEKIQ_SETS = ("schedule", "retry", "dead")


@dataclass(frozen=True, slots=True)
class Server:
    """One Redis server and the roles of Mastodon that it serves."""

    place: RedisPlace
    roles: tuple[str, ...]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: `Redis at localhost:6379`."""
        return f"Redis at {where(self.place)}"

    @property
    def flavour(self) -> str:
        """`redis`, `valkey`, `keydb` or `dragonfly`."""
        for other in ("dragonfly", "valkey", "keydb"):
            if f"{other}_version" in self.info or self.info.get("server_name") == other:
                return other
        return "redis"

    @property
    def version(self) -> str:
        """Of the server itself, cleaned."""
        return clean(str(self.info.get(f"{self.flavour}_version") or self.info.get("redis_version") or ""), 40)


@dataclass(slots=True)
class Depths:
    """Sidekiq's jobs: by queue, and in its sorted sets."""

    queues: dict[str, int] = field(default_factory=dict)
    schedule: int = 0
    retry: int = 0
    dead: int = 0

    @property
    def waiting(self) -> int:
        """Jobs that are still to run."""
        return sum(self.queues.values()) + self.schedule + self.retry


class RedisAsset:
    """`dump.rdb` of each server that holds more than a cache."""

    asset: ClassVar[Asset] = Asset.REDIS

    def probe(self, connection: Connection, installation: Installation) -> AssetObservation:
        """Does it answer, which version, how much memory, how many jobs wait."""
        places = saved_places(installation)
        if not places:
            return AssetObservation(asset=Asset.REDIS, present=False, detail="no Redis is known for this host")
        try:
            servers = find_servers(connection, installation)
            waiting = sum(depths_of(connection, server, installation).waiting for server in servers)
        except AssetFailed as error:
            return AssetObservation(asset=Asset.REDIS, present=True, detail="not asked", warnings=(error.sentence,))
        used = sum(_number(server.info, "used_memory") for server in servers)
        versions = ", ".join(dict.fromkeys(f"{server.flavour} {server.version}" for server in servers))
        aof = "on" if any(_number(server.info, "aof_enabled") for server in servers) else "off"
        detail = f"{versions}, {waiting} jobs waiting, AOF {aof}"
        warnings = tuple(warning for server in servers for warning in _concerns(server))
        return AssetObservation(asset=Asset.REDIS, present=True, detail=detail, bytes=used, warnings=warnings)

    def plan_backup(self, connection: Connection, installation: Installation) -> Plan:
        """Save, read, check, per server."""
        places = saved_places(installation)
        if not places:
            return Plan(host=connection.host, asset=Asset.REDIS, steps=(), blocked="No Redis is known for this host.")
        names = " and ".join(dict.fromkeys(where(place) for place in places))
        steps = (
            Step(
                name="save", what=f"let Redis at {names} write its snapshot and wait for it", command="BGSAVE SCHEDULE"
            ),
            Step(
                name="read",
                what="read the file, or fetch it as a replica",
                command="cat …/dump.rdb | redis-cli --rdb -",
            ),
            Step(name="check", what="check the header, the length and the end"),
        )
        return Plan(host=connection.host, asset=Asset.REDIS, steps=steps)

    def back_up(self, context: BackupContext, writer: SnapshotWriter) -> Outcome:
        """Store one snapshot per server: `dump.rdb`, and `dump-sidekiq.rdb` when Sidekiq has its own."""
        context.job.step("asking Redis")
        servers = find_servers(context.connection, context.installation)
        if not servers:
            raise AssetFailed(
                f"No Redis is known for {context.connection.host}.", "Set `redis_url` in the host's configuration."
            )
        facts = [_save_server(context, writer, server) for server in servers]
        return Outcome(
            facts={
                "servers": facts,
                "rdb_version": facts[0]["rdb_version"],
                "keys": sum(sum(one["keys"].values()) for one in facts),
                "jobs_waiting": sum(one["jobs"]["waiting"] for one in facts),
            }
        )


def find_servers(connection: Connection, installation: Installation) -> list[Server]:
    """The servers of the roles worth saving, each once however it is addressed. Raises `AssetFailed`."""
    servers: dict[str, Server] = {}
    for place in saved_places(installation):
        with open_redis(connection, place) as client:
            info = _info(client)
        identity = str(info.get("run_id") or where(place))
        known = servers.get(identity)
        roles = (*known.roles, place.role) if known else (place.role,)
        servers[identity] = replace(known, roles=roles) if known else Server(place, roles, info)
    return list(servers.values())


def saved_places(installation: Installation) -> list[RedisPlace]:
    """The roles worth saving, base first."""
    places = {place.role: place for place in reversed(installation.redis) if place.role in _SAVED_ROLES}
    return [places[role] for role in _SAVED_ROLES if role in places]


def _info(client: redis.Redis) -> dict[str, Any]:
    try:
        answer: Any = client.info()
    except NoPermissionError:
        client.ping()
        return {}
    return dict(answer)


def _save_server(context: BackupContext, writer: SnapshotWriter, server: Server) -> dict[str, Any]:
    job = context.job
    if server.flavour == "dragonfly":
        raise AssetFailed(
            f"{server.name} on {context.connection.host} is Dragonfly, whose snapshots are not Redis's.",
            "Leave `redis` out of the host's `assets`; feeds can be rebuilt with `tootctl feeds build`.",
        )
    for concern in _concerns(server):
        job.log(concern)
    depths = depths_of(context.connection, server, context.installation)
    with open_redis(context.connection, server.place) as client, _open_snapshot(context, client, server) as (way, rdb):
        job.log(f"{server.name}: reading the snapshot by {way}")
        name = "dump.rdb" if "base" in server.roles else f"dump-{server.roles[0]}.rdb"
        entry = writer.write(name, rdb, compress=True)
        rdb.finish()
        job.log(f"{rdb.bytes_read} bytes, RDB format {rdb.header.version}")
    return {
        "object": entry.name,
        "roles": list(server.roles),
        "flavour": server.flavour,
        "version": server.version,
        "rdb_version": rdb.header.version,
        "saved_at": rdb.header.created_at,
        "way": way,
        "keys": keys_of(server.info),
        "jobs": asdict(depths) | {"waiting": depths.waiting},
        "replication_role": clean(str(server.info.get("role", "")), 20),
        "aof": bool(_number(server.info, "aof_enabled")),
        "used_memory": _number(server.info, "used_memory"),
    }


@contextmanager
def _open_snapshot(context: BackupContext, client: redis.Redis, server: Server) -> Iterator[tuple[str, RdbStream]]:
    """The snapshot by the first way that is open to us."""
    connection, job, place = context.connection, context.job, server.place
    ways: list[tuple[str, Callable[[], AbstractContextManager[RdbStream]]]] = []
    file = _saved_file(context, client, server)
    since = server_time(client)
    if file is not None:
        found, since = file
        ways.append(("its file", lambda: from_file(connection, found, since, job)))
    ways.append(("redis-cli --rdb", lambda: from_cli(connection, place, since, job)))
    ways.append(("replication", lambda: from_replication(client, place, since, job)))
    refusals = []
    with ExitStack() as stack:
        for way, opened in ways:
            job.check_cancelled()
            try:
                rdb = stack.enter_context(opened())
            except AssetFailed as error:
                refusals.append(error.sentence)
                job.log(f"not by {way}: {error.sentence}")
                continue
            yield way, rdb
            return
        raise AssetFailed(
            f"No way to the snapshot of {server.name} on {connection.host} is open: {refusals[-1]}",
            "Set `become` for this host, or let its Redis user run SYNC and REPLCONF.",
        )


def _saved_file(context: BackupContext, client: redis.Redis, server: Server) -> tuple[RdbFile, int] | None:
    """Let the server save, when its file can be read; returns the file and when the save began."""
    job = context.job
    if not on_the_host(server.place):
        return None
    file = find_file(context.connection, client, _number(server.info, "process_id") or None)
    if file is None:
        job.log(f"{server.name}: its file cannot be read, asking for a transfer instead")
        return None
    job.step("waiting for BGSAVE")
    try:
        return file, save(client, job, f"{server.name} on {context.connection.host}")
    except NoPermissionError:
        job.log(f"{server.name}: BGSAVE is not allowed, asking for a transfer instead")
        return None


def depths_of(connection: Connection, server: Server, installation: Installation) -> Depths:
    """How many jobs wait, by queue and in Sidekiq's sets; what may not be asked is left out."""
    places = {place.role: place for place in saved_places(installation)}
    if "sidekiq" in places and "sidekiq" not in server.roles:
        return Depths()  # another server has them
    namespace = installation.environment.get("REDIS_NAMESPACE")
    prefix = f"{namespace.reveal()}:".encode() if namespace else b""
    depths = Depths()
    with open_redis(connection, places[server.roles[-1]]) as client, suppress(NoPermissionError):
        names: Any = client.smembers(prefix + b"queues")
        for name in sorted(names)[:_MOST_QUEUES]:
            with suppress(ResponseError):
                depths.queues[clean(name, 60)] = _int(client.llen(prefix + b"queue:" + name))
        for name in ("schedule", "retry", "dead"):
            with suppress(ResponseError):
                setattr(depths, name, _int(client.zcard(prefix + name.encode())))
    return depths


def keys_of(info: dict[str, Any]) -> dict[str, int]:
    """Keys per database, as INFO keyspace says."""
    return {
        clean(name, 10): _number(value, "keys")
        for name, value in info.items()
        if name.startswith("db") and name[2:].isdigit() and isinstance(value, dict)
    }


def _concerns(server: Server) -> Iterator[str]:
    info = server.info
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield f"{server.name} failed to save its data the last time; its disk may be full"
    if info.get("aof_last_write_status", "ok") != "ok":
        yield f"{server.name} failed to write its append-only file"
    if str(info.get("role", "master")) != "master":
        yield f"{server.name} is a replica: its data may lag behind"


def _number(values: dict[str, Any], name: str) -> int:
    value = values.get(name, 0)
    return value if isinstance(value, int) else 0


def _int(value: Any) -> int:
    return int(value)


HANDLER = RedisAsset()
