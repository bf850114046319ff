"""The Redis servers of a target as they are found: running, or not running and known from their configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backends.assets.redis import Server as LiveServer
from backends.assets.redis import saved_places
from backends.assets.redis_client import on_the_host, open_redis, where
from backends.connection.base import Command, Connection
from backends.errors import AssetFailed
from backends.mastodon.installation import RedisPlace
from backends.restore.base import Target
from backends.restore.redis_config import RedisConfig, read_config, same_socket
from backends.restore.redis_live import setting
from backends.restore.redis_service import Unit, Units, find_units
from backends.untrusted import clean

_VERSION = re.compile(r"(Redis|Valkey|KeyDB) server v=(\d[\w.-]{0,30})")
_NOT_HERE = (
    "Stop it there, put the file in place yourself (`mastovault restore --to DIRECTORY` writes it), and start it; "
    "or leave Redis out of this restore."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One server: what it says, what runs it, how it is configured."""

    live: LiveServer
    unit: Unit
    config: RedisConfig
    directory: str
    file: str
    aof: bool
    aof_names: tuple[str, ...]
    running: bool
    flavour: str = "redis"
    version: str = ""
    databases: dict[int, int] = field(default_factory=dict)
    """Keys, by database."""


@dataclass(slots=True)
class _Found:
    place: RedisPlace
    roles: tuple[str, ...]
    info: dict[str, Any]
    fault: AssetFailed | None = None


def find_servers(target: Target) -> list[Seen]:
    """The servers of the roles worth saving, each once.

    Raises:
        AssetFailed: one of them is not to be restored here; why, and the way out.
        BecomeRefused, ConnectionFailed: as the connection does.
    """
    connection = target.connection
    found = _ask_all(connection, saved_places(target.installation))
    if not found:
        raise AssetFailed(f"No Redis is known for {target.name}.", "Set `redis_url` in the host's configuration.")
    return [_stopped(target, one, one.fault) if one.fault is not None else _running(target, one) for one in found]


def _ask_all(connection: Connection, places: Sequence[RedisPlace]) -> list[_Found]:
    servers: dict[str, _Found] = {}
    for place in places:
        info: dict[str, Any] = {}
        fault: AssetFailed | None = None
        if place.sentinel:
            raise AssetFailed(
                f"The {place.role} Redis of {connection.host} is behind Sentinel, which decides itself who serves.",
                "Restore it by hand on the server that Sentinel names, with Sentinel stopped; or leave Redis out.",
            )
        try:
            with open_redis(connection, place) as client:
                answer: Any = client.info()
                info = dict(answer)
        except AssetFailed as error:
            fault = error
        identity = str(info.get("run_id") or where(place))
        if identity in servers:
            servers[identity].roles += (place.role,)
        else:
            servers[identity] = _Found(place, (place.role,), info, fault)
    return list(servers.values())


def _running(target: Target, found: _Found) -> Seen:
    connection, root = target.connection, target.root
    live = LiveServer(found.place, found.roles, found.info)
    _require_plain(live)
    pid = live.info.get("process_id")
    units = find_units(connection, pid if isinstance(pid, int) else None, root)
    unit = _unit_of(target, live, units)
    path = str(live.info.get("config_file") or "")
    options = unit.arguments if unit.arguments[:1] and unit.arguments[0].startswith("--") else unit.arguments[1:]
    arguments = (path, *options) if path else unit.arguments
    config = read_config(connection, arguments, root)
    with open_redis(connection, found.place) as client:
        told = {name: setting(client, name) for name in ("dir", "dbfilename", "appenddirname", "appendfilename")}
    if not told["dir"] and _number(live.info, "aof_enabled"):
        raise AssetFailed(
            f"{live.name} has its append-only file on, and CONFIG is closed to Mastodon's user.",
            "Let that user run CONFIG while the restore lasts.",
        )
    directory = told["dir"] or config.get("dir")
    _require_directory(live.name, directory)
    names = (told["appenddirname"] or config.get("appenddirname"), told["appendfilename"] or "appendonly.aof")
    return Seen(
        live=live,
        unit=unit,
        config=config,
        directory=directory,
        file=told["dbfilename"] or config.get("dbfilename"),
        aof=bool(_number(live.info, "aof_enabled")),
        aof_names=_plain_names(names),
        running=True,
        flavour=live.flavour,
        version=live.version,
        databases=databases(live.info),
    )


def _require_plain(live: LiveServer) -> None:
    """Raise for a server whose data is not its own, or not such as can be loaded."""
    if live.flavour == "dragonfly":
        raise AssetFailed(f"{live.name} is Dragonfly, which loads no snapshot of Redis's.", _NOT_HERE)
    if str(live.info.get("role", "master")) != "master":
        raise AssetFailed(
            f"{live.name} is a replica: it takes its data from "
            f"{clean(str(live.info.get('master_host', 'its master')), 100)}.",
            "Restore on the master, or make it a master (`redis-cli REPLICAOF NO ONE`).",
        )
    if _number(live.info, "cluster_enabled"):
        raise AssetFailed(f"{live.name} is part of a cluster, which Mastodon does not support.", _NOT_HERE)
    if _number(live.info, "loading"):
        raise AssetFailed(f"{live.name} is still loading its data.", "Try again in a few minutes.")


def _unit_of(target: Target, live: LiveServer, units: Units) -> Unit:
    if not units.has_systemd:
        raise AssetFailed(f"{target.name} has no systemctl, so {live.name} cannot be stopped from here.", _NOT_HERE)
    elsewhere = not on_the_host(live.place) and not _is_here(target.connection, live)
    if elsewhere or units.process == "":
        raise AssetFailed(
            f"{live.name} does not run on {target.name} itself, but in a container or on another machine.", _NOT_HERE
        )
    if units.of_process is None:
        raise AssetFailed(
            f"No systemd unit of {target.name} runs {live.name} (process {live.info.get('process_id')}).", _NOT_HERE
        )
    return units.of_process


def _is_here(connection: Connection, live: LiveServer) -> bool:
    """Whether a server that is addressed by a name is the one that answers on this machine's loopback."""
    try:
        with open_redis(connection, replace(live.place, host="127.0.0.1", tls=False)) as client:
            answer: Any = client.info("server")
    except AssetFailed:
        return False
    return bool(answer.get("run_id")) and answer.get("run_id") == live.info.get("run_id")


def _stopped(target: Target, found: _Found, fault: AssetFailed) -> Seen:
    """A server that does not answer, from the unit that would run it."""
    connection, root, place = target.connection, target.root, found.place
    if not on_the_host(place):
        raise fault
    units = find_units(connection, None, root)
    if not units.has_systemd:
        raise fault
    configured = [(unit, read_config(connection, unit.arguments, root)) for unit in units.units]
    fitting = [(unit, config) for unit, config in configured if _serves(config, place)]
    if len(fitting) != 1:
        many = "more than one unit is" if fitting else "no unit is"
        raise AssetFailed(
            f"Redis at {where(place)} on {target.name} does not answer, and {many} configured for it.",
            "Install redis-server there, or start it, and try again.",
        )
    unit, config = fitting[0]
    if unit.state == "active":
        raise fault
    if not config.whole:
        raise AssetFailed(
            f"{unit.name} does not run, and its configuration cannot be read whole.", "Start it and try again."
        )
    name = f"Redis at {where(place)}"
    _require_directory(name, config.get("dir"))
    flavour, version = _program_version(connection, unit)
    return Seen(
        live=LiveServer(place, found.roles, {}),
        unit=unit,
        config=config,
        directory=config.get("dir"),
        file=config.get("dbfilename"),
        aof=config.aof,
        aof_names=_plain_names((config.get("appenddirname"), config.get("appendfilename"))),
        running=False,
        flavour=flavour,
        version=version,
    )


def _serves(config: RedisConfig, place: RedisPlace) -> bool:
    if place.unix_path:
        return same_socket(config.get("unixsocket"), place.unix_path)
    return bool(config.path) and config.get("port") == str(place.port)


def _program_version(connection: Connection, unit: Unit) -> tuple[str, str]:
    program = unit.program if unit.program.startswith("/") else "redis-server"
    done = connection.run(Command((program, "--version")), timeout=20)
    return parse_version(done.text)


def parse_version(text: str) -> tuple[str, str]:
    """Kind and version from `redis-server --version`; an empty version when it cannot be told; never raises."""
    told = _VERSION.search(text[:2000])
    return (told[1].lower(), told[2]) if told else ("redis", "")


def databases(info: dict[str, Any]) -> dict[int, int]:
    """Keys by database, as INFO keyspace says; never raises."""
    return {
        int(name[2:]): _number(value, "keys")
        for name, value in info.items()
        if name.startswith("db") and name[2:].isascii() and name[2:].isdigit() and isinstance(value, dict)
    }


def _require_directory(name: str, directory: str) -> None:
    if not directory.startswith("/") or directory == "/":
        raise AssetFailed(
            f"Where {name} keeps its data cannot be told.", "Let its configuration name an absolute `dir`."
        )


def _plain_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name and "/" not in name and name not in {".", ".."}))


def _number(values: dict[str, Any], name: str) -> int:
    value = values.get(name, 0)
    return value if isinstance(value, int) else 0
