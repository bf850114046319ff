"""A host with settings of Mastodon and snapshots of them, for tests of their restore."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext
from backends.assets.secrets import HANDLER, tar_of
from backends.connection.base import Connection
from backends.lab.environment import record_encryption_keys
from backends.mastodon.environment import effective
from backends.mastodon.host_files import FileState, HostFile
from backends.mastodon.installation import Installation, InstallKind, SecretFile
from backends.model import Asset
from backends.restore.base import Action, Target, Way, Work
from backends.restore.plan import Look, RestoreRequest
from backends.restore.secrets import PART
from backends.restore.source import Source
from backends.vault.directory import DirectoryVault
from tests.integration.redis_restores import MemoryOfSteps
from tests.servers.backup import WatchedJob

MARK = "20261122t140211"
KEYS = {**record_encryption_keys(), "SECRET_KEY_BASE": os.urandom(64).hex()}
SETTINGS = {"LOCAL_DOMAIN": "social.example", **KEYS, "DB_HOST": "/run/postgresql", "DB_PASS": "hunter2"}


def written(values: dict[str, str]) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


@dataclass
class Host:
    """A machine whose Mastodon is in a directory; its settings can be backed up and restored."""

    root: Path
    connection: Connection
    vault: DirectoryVault
    identity: Any
    recipient: str
    job: WatchedJob = field(default_factory=WatchedJob)
    memory: MemoryOfSteps = field(default_factory=MemoryOfSteps)
    same_host: bool = True
    bare: bool = False
    become: str = "none"
    extra: tuple[SecretFile, ...] = ()

    @property
    def env(self) -> Path:
        return self.root / ".env.production"

    def installation(self) -> Installation:
        found = [path for path in (self.root / ".env.production.local", self.env) if path.exists()]
        files = tuple(
            SecretFile(
                path=str(path),
                mode=path.stat().st_mode & 0o777,
                owner=path.owner(),
                group=path.group(),
                bytes=path.stat().st_size,
            )
            for path in found
        )
        contents = [(str(path), "dotenv", path.read_bytes()) for path in found]
        values = effective(contents).values
        return Installation(
            host="social",
            kind=InstallKind.NATIVE,
            root=str(self.root),
            user=getpass.getuser(),
            version="4.7.4",
            domain=values["LOCAL_DOMAIN"].reveal() if "LOCAL_DOMAIN" in values else "",
            units=("mastodon-web.service",),
            environment=values,
            secret_files=(*files, *self.extra),
        )

    def back_up(self) -> Source:
        writer = begin_snapshot(
            [self.vault], host="social", asset=Asset.SECRETS, run="run", recipients=[self.recipient]
        )
        context = BackupContext(connection=self.connection, installation=self.installation(), job=WatchedJob())
        return self.source(writer.commit(HANDLER.back_up(context, writer).facts))

    def keep(self, *files: tuple[str, bytes, str], mode: int = 0o600, owner: str = "") -> Source:
        """A snapshot of files that no host has to have: path, content, format."""
        import io

        writer = begin_snapshot(
            [self.vault], host="social", asset=Asset.SECRETS, run="run", recipients=[self.recipient]
        )
        owner = owner or getpass.getuser()
        made = [
            HostFile(path=path, state=FileState.READ, content=content, mode=mode, owner=owner, group=owner)
            for path, content, _ in files
        ]
        writer.write("environment.tar", io.BytesIO(tar_of(made)), compress=False)
        return self.source(writer.commit({"files": [{"path": path, "format": form} for path, _, form in files]}))

    def source(self, manifest: Any) -> Source:
        return Source(manifest=manifest, vaults=[self.vault], identities=[self.identity])

    def target(self, connection: Connection | None = None) -> Target:
        return Target(
            name="social",
            connection=connection or self.connection,
            installation=self.installation(),
            become=self.become,
            bare=self.bare,
            same_host=self.same_host,
        )

    def request(self, source: Source) -> RestoreRequest:
        return RestoreRequest(
            id=MARK, host="social", snapshots={Asset.SECRETS: source.manifest.id}, at=datetime.now(UTC)
        )

    def look(self, source: Source) -> Look:
        return PART.look(self.request(source), self.target(), {Asset.SECRETS: source})

    def actions(self, source: Source, look: Look | None = None) -> Sequence[Action]:
        found = look or self.look(source)
        assert found.facts, [finding.text for finding in found.findings]
        return PART.actions(self.request(source), json.loads(json.dumps(found.facts)))

    def work(self, source: Source, way: Way = "rollback", connection: Connection | None = None) -> Work:
        return Work(
            request=self.request(source),
            target=self.target(connection),
            sources={Asset.SECRETS: source},
            job=self.job,
            memory=self.memory,
            way=way,
        )

    def do(self, source: Source, actions: Sequence[Action]) -> None:
        for action in actions:
            action.do(self.work(source))

    def undo(self, source: Source, actions: Sequence[Action], way: Way) -> None:
        for action in reversed(actions):
            action.undo(self.work(source, way))

    def forget(self, source: Source, actions: Sequence[Action]) -> None:
        for action in actions:
            action.forget(self.work(source))

    def files(self) -> dict[str, tuple[bytes, int]]:
        return {
            str(path.relative_to(self.root)): (path.read_bytes(), path.stat().st_mode & 0o7777)
            for path in self.root.rglob("*")
            if path.is_file()
        }
