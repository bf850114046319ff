"""What tests of whole restores need: a backed-up host, connections that fail on command, and what must hold."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from backends.catalog import Catalog
from backends.connection.base import Command, Completed, Connection, Process
from backends.connection.open import open_connection
from backends.errors import ConnectionFailed
from backends.lab.host import LabHost
from backends.model import Asset, JobResult, JobState
from backends.operations import line
from backends.operations.backup import back_up_host
from backends.operations.choose import points
from backends.operations.restore import confirmation, restore_host
from backends.operations.restores import RestoreRecord, restores
from backends.operations.undo import go_on
from backends.restore.plan import RestoreRequest
from tests.runs_world import World
from tests.servers.backup import WatchedJob


class Faults:
    """Counts the commands that a restore gives; at the chosen one, and for good when `dead`, the line is cut."""

    def __init__(self) -> None:
        self.count = 0
        self.at: int | None = None
        self.dead = False
        self.when: Callable[[], None] = lambda: None

    def next(self, host: str) -> bool:
        """Count one more; whether it is to be cut off after its effect. Raises `ConnectionFailed` instead before."""
        self.count += 1
        if self.at is None or self.count < self.at or (self.count > self.at and not self.dead):
            return False
        self.when()
        if self.count > self.at or self.at % 2:
            raise ConnectionFailed(f"the connection to {host} was lost")
        return True


class Cut(Connection):
    """A connection whose line is cut as `faults` says."""

    def __init__(self, inner: Connection, faults: Faults) -> None:
        self._inner, self._faults = inner, faults
        self.host, self.login_user = inner.host, inner.login_user

    def start(self, command: Command, *, on_stderr: Callable[[bytes], None] | None = None) -> Process:
        after = self._faults.next(self.host)
        process = self._inner.start(command, on_stderr=on_stderr)
        if after:
            process.terminate()
            raise ConnectionFailed(f"the connection to {self.host} was lost")
        return process

    def run(self, command: Command, *, stdin: bytes = b"", timeout: float = 60.0, limit: int = 1 << 23) -> Completed:
        after = self._faults.next(self.host)
        completed = self._inner.run(command, stdin=stdin, timeout=timeout, limit=limit)
        if after:
            raise ConnectionFailed(f"the connection to {self.host} was lost")
        return completed

    def open_tcp(self, host: str, port: int) -> Any:
        return self._inner.open_tcp(host, port)

    def open_unix(self, path: str) -> Any:
        return self._inner.open_unix(path)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Puts a `Cut` around every connection that a restore opens."""
    made = Faults()
    real = open_connection

    def opened(*arguments: Any, **options: Any) -> Connection:
        if made.dead and made.at is not None and made.count >= made.at:
            raise ConnectionFailed("social does not answer")
        return Cut(real(*arguments, **options), made)

    monkeypatch.setattr(line, "open_connection", opened)
    monkeypatch.setattr(line, "_PAUSE", 0.01)
    return made


class Restores:
    """One host of the lab with a restore point, and the questions whose answers must stay the same."""

    def __init__(self, world: World, name: str = "social") -> None:
        self.world, self.name = world, name
        self.host: LabHost = world.lab.hosts[name]

    def back_up(self, *assets: Asset, run: str = "") -> None:
        """Make a restore point."""
        wanted = assets or tuple(Asset)
        jobs = dict.fromkeys(wanted, WatchedJob())
        run = run or f"run{secrets.token_hex(4)}"
        results = back_up_host(self.world.config, self.world.paths, self.name, wanted, jobs, run)
        assert {result.state for result in results} == {JobState.DONE}, results

    def request(self, *assets: Asset, host: str = "", **changes: Any) -> RestoreRequest:
        """A confirmed request for the newest restore point, or for some assets of it."""
        point = points(Catalog(self.world.paths.cache_dir), self.name)[0]
        now = datetime.now(UTC)
        request = RestoreRequest(
            id=f"{now:%Y%m%dt%H%M%S}{secrets.token_hex(2)}",
            host=host or self.name,
            snapshots={asset: info.id for asset, info in point.snapshots.items() if not assets or asset in assets},
            at=now,
        )
        request = dataclasses.replace(request, **changes)
        return dataclasses.replace(request, confirm=confirmation(request))

    def restore(self, request: RestoreRequest, job: WatchedJob | None = None) -> list[JobResult]:
        """Carry it out."""
        jobs = dict.fromkeys(request.assets, job or WatchedJob())
        return restore_host(self.world.config, self.world.paths, request, jobs, f"run{secrets.token_hex(4)}")

    def go_on(self, request: RestoreRequest, what: str) -> list[JobResult]:
        """Undo, resume, roll back or forget it."""
        jobs = dict.fromkeys(request.assets, WatchedJob())
        return go_on(self.world.config, self.world.paths, request.id, what, jobs, f"run{secrets.token_hex(4)}")

    def record(self, request: RestoreRequest) -> RestoreRecord:
        """How it stands."""
        return next(record for record in restores(self.world.paths) if record.id == request.id)

    def sql(self, query: str, database: str = "") -> str:
        """One answer of the live database."""
        return self.host.postgres.run_sql(query, database or self.host.database.name).strip()

    def counts(self) -> dict[str, str]:
        """Rows of the tables that matter; `-` for one that is not there."""
        tables = ("accounts", "statuses", "users", "media_attachments")
        there = self.sql("SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'").split(",")
        return {name: self.sql(f"SELECT count(*) FROM {name}") if name in there else "-" for name in tables}

    def databases(self) -> list[str]:
        """Databases of this host besides the live one."""
        like = f"{self.host.database.name}!_%"
        found = self.sql(
            f"SELECT datname FROM pg_database WHERE datname LIKE '{like}' ESCAPE '!' ORDER BY 1", "postgres"
        )
        return found.split()

    def leftovers(self) -> list[str]:
        """What restores left in the host's directory."""
        marks = (".mastovault-", ".restore-", ".before-")
        return sorted(
            str(path.relative_to(self.host.directory))
            for path in self.host.directory.rglob("*")
            if any(mark in path.name for mark in marks)
        )


@contextlib.contextmanager
def as_it_was(restores_: Restores) -> Iterator[None]:
    """What is live before must be live after, and nothing half-made remains."""
    counts, environment = restores_.counts(), (restores_.host.root / ".env.production").read_bytes()
    jobs = _jobs(restores_.host)
    yield
    assert restores_.counts() == counts
    assert (restores_.host.root / ".env.production").read_bytes() == environment
    assert _jobs(restores_.host) == jobs
    assert restores_.databases() == []
    assert restores_.leftovers() == []


def _jobs(host: LabHost) -> int:
    """Jobs that wait in Sidekiq's queues; feeds may have been built again meanwhile."""
    with contextlib.closing(host.redis.client()) as client:
        ask: Any = client
        names = ask.smembers("queues")
        queued = [ask.llen(b"queue:" + name) for name in names] + [ask.zcard("schedule"), ask.zcard("retry")]
        return int(sum(queued))
