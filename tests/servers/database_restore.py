"""A database's restore without the engine: a snapshot in a vault, and a driver that carries out the part's steps."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage

from backends.archive.keys import new_identity
from backends.archive.manifest import Manifest
from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext
from backends.assets.database import HANDLER
from backends.connection.base import Connection
from backends.mastodon.installation import Installation
from backends.model import Asset
from backends.restore.base import Action, Target, Way, Work
from backends.restore.database import PART
from backends.restore.plan import Look, Phase, RestoreRequest
from backends.restore.source import Source
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.servers.backup import WatchedJob
from tests.servers.postgres import Postgres

ID = "20261122t140211"


class Snapshots:
    """A vault with database snapshots and the identity that opens them."""

    def __init__(self, directory: Path) -> None:
        identity, self.recipient = new_identity()
        self.identity = pyrage.x25519.Identity.from_str(identity.reveal())
        self.directory = directory
        self.vault = DirectoryVault("local", directory)
        prepare(self.vault, [self.recipient])

    def take(self, connection: Connection, installation: Installation, **facts: Any) -> Source:
        """Back the database up; `facts` replace some of the manifest's."""
        writer = begin_snapshot(
            [self.vault], host=connection.host, asset=Asset.DATABASE, run="run-1", recipients=[self.recipient]
        )
        context = BackupContext(connection=connection, installation=installation, job=WatchedJob())
        outcome = HANDLER.back_up(context, writer)
        return self.source(writer.commit({**outcome.facts, **facts}, warnings=()))

    def source(self, manifest: Manifest) -> Source:
        """A snapshot to read."""
        return Source(manifest=manifest, vaults=[self.vault], identities=[self.identity])

    def stored(self, source: Source) -> Path:
        """The file of the dump in the vault."""
        entry = source.entry("database.pgdump")
        assert entry is not None
        return self.directory / "hosts" / source.manifest.id / entry.name


class Notes:
    """What steps remember, through JSON as on disk."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}

    def get(self, key: str) -> Any:
        return json.loads(self.stored[key]) if key in self.stored else None

    def set(self, key: str, value: Any) -> None:
        self.stored[key] = json.dumps(value)


@dataclass
class Driver:
    """Looks, then carries out the steps in order, as the engine does it in short."""

    connection: Connection
    installation: Installation
    source: Source
    job: WatchedJob = field(default_factory=WatchedJob)
    id: str = ID
    bare: bool = False
    same_host: bool = True
    notes: Notes = field(default_factory=Notes)
    change: Callable[[dict[str, Any]], None] = lambda facts: None
    began: list[Action] = field(default_factory=list)
    took: dict[str, float] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        return Target(
            name=self.connection.host,
            connection=self.connection,
            installation=self.installation,
            bare=self.bare,
            same_host=self.same_host,
        )

    @property
    def request(self) -> RestoreRequest:
        return RestoreRequest(
            id=self.id,
            host=self.connection.host,
            snapshots={Asset.DATABASE: self.source.manifest.id},
            at=datetime.now(UTC),
        )

    def look(self) -> Look:
        """The look, through JSON as the journal keeps it."""
        return PART.look(self.request, self.target, {Asset.DATABASE: self.source})

    def actions(self, look: Look | None = None) -> list[Action]:
        """The steps."""
        known: dict[str, Any] = json.loads(json.dumps((look or self.look()).facts))
        if known.get("staging"):
            # Tests in several processes restore at the same time into this machine, by one and the same name.
            known["staging"] += f"-{os.getpid()}"
        self.change(known)
        return sorted(PART.actions(self.request, known), key=lambda action: action.info.phase)

    def work(self, way: Way = "rollback") -> Work:
        """What the steps get."""
        sources: Mapping[Asset, Source] = {Asset.DATABASE: self.source}
        return Work(request=self.request, target=self.target, sources=sources, job=self.job, memory=self.notes, way=way)

    def run(self, until: Phase = Phase.AFTER, *, walk_back: bool = True) -> Look:
        """Look and do everything up to a phase; on a fault walk back (when asked to) and raise it again."""
        look = self.look()
        assert not [finding for finding in look.findings if finding.level == "block"], look.findings
        try:
            for action in self.actions(look):
                if action.info.phase <= until:
                    self.began.append(action)
                    began = time.monotonic()
                    action.do(self.work())
                    self.took[action.info.id] = time.monotonic() - began
        except Exception:
            if walk_back:
                self.back("rollback")
            raise
        return look

    def back(self, way: Way) -> None:
        """Undo all that began, the last first."""
        for action in reversed(self.began):
            action.undo(self.work(way))

    def forget(self) -> None:
        """Give up what is kept."""
        for action in self.began:
            action.forget(self.work())


def counts(postgres: Postgres, database: str) -> dict[str, int]:
    """Rows of each table, counted past everything that is tested."""
    names = postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", database).split()
    query = " UNION ALL ".join(f"SELECT '{name} ' || count(*) FROM public.{name}" for name in names)
    rows = (line.split() for line in postgres.sql(query, database).splitlines())
    return {name: int(count) for name, count in rows}


def databases(postgres: Postgres) -> set[str]:
    """All but PostgreSQL's own."""
    named = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')"
    return set(postgres.sql(named).splitlines()) - {""}


def lose(postgres: Postgres, database: str) -> None:
    """Take a third of the posts away."""
    script = "DELETE FROM media_attachments; DELETE FROM statuses WHERE id / 65536 % 3 = 0"
    postgres.sql(script, database, "mastodon")
