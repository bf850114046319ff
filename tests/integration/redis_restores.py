"""What tests of restored Redis servers share: a snapshot in a real vault, a target, the steps one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.archive.keys import new_identity
from backends.archive.manifest import Manifest
from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext
from backends.assets.redis import HANDLER
from backends.config.schema import DirectoryVault
from backends.connection.base import Command, Completed, Connection, Process
from backends.errors import ConnectionFailed
from backends.mastodon.installation import Installation, InstallKind, RedisPlace
from backends.model import Asset
from backends.restore.base import Action, Target, Way, Work
from backends.restore.plan import Look, RedisChoice, RestoreRequest
from backends.restore.redis import PART
from backends.restore.source import Source
from backends.vault.base import Vault
from backends.vault.format import prepare
from backends.vault.open import open_vault
from tests.servers.backup import WatchedJob, local_host
from tests.servers.redis_unit import RedisUnit

MARK = "20261122t140211"
SETTINGS = ("appendonly yes", "aof-use-rdb-preamble yes")


def fill(unit: RedisUnit, tag: str, feeds: int = 20) -> None:
    """Feeds, queues, retries and keys with a time to live, told apart by `tag`."""
    client = unit.client()
    client.flushall()
    for number in range(feeds):
        client.zadd(f"feed:home:{number}", {tag: 1.0, "110": 2.0})
    client.sadd("queues", "default", "push")
    client.rpush("queue:default", *(f"{tag}{number}" for number in range(3)))
    client.lpush("queue:push", tag)
    client.zadd("retry", {tag: 1.0})
    client.set("cache:long", tag, ex=3600)
    client.set("tag", tag)


def tag_of(unit: RedisUnit) -> str:
    """Whose data it serves: the tag it was filled with, `""` when it is empty."""
    client = unit.client()
    tag: Any = client.get("tag") or ""
    if tag:
        assert client.lrange("queue:default", 0, -1) == [f"{tag}{number}" for number in range(3)]
        assert client.zrange("feed:home:3", 0, 0) == [tag]
        assert 0 < client.ttl("cache:long") <= 3600
        assert client.dbsize() >= 25
    return str(tag)


def installation(*places: RedisPlace) -> Installation:
    return Installation(host="social", kind=InstallKind.NATIVE, root="/live", user="mastodon", redis=places)


@dataclass
class MemoryOfSteps:
    """The journal's notes, in memory."""

    notes: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        return self.notes.get(key)

    def set(self, key: str, value: Any) -> None:
        self.notes[key] = value


class Store:
    """A directory vault with one identity."""

    def __init__(self, directory: Path) -> None:
        import pyrage

        identity, self.recipient = new_identity()
        self.identities = [pyrage.x25519.Identity.from_str(identity.reveal())]
        (directory / "vault").mkdir()
        self.directory = directory / "vault"
        self.vault: Vault = open_vault("local", DirectoryVault(type="directory", path=self.directory))
        prepare(self.vault, [self.recipient])

    def back_up(self, *places: RedisPlace) -> Source:
        """A snapshot by the asset itself."""
        with local_host() as host:
            writer = begin_snapshot(
                [self.vault], host="social", asset=Asset.REDIS, run="run", recipients=[self.recipient]
            )
            context = BackupContext(connection=host, installation=installation(*places), job=WatchedJob())
            outcome = HANDLER.back_up(context, writer)
            return self.source(writer.commit(outcome.facts))

    def keep(self, rdb: bytes, **facts: Any) -> Source:
        """A snapshot that holds these bytes, as if a server had given them."""
        import io

        writer = begin_snapshot([self.vault], host="social", asset=Asset.REDIS, run="run", recipients=[self.recipient])
        entry = writer.write("dump.rdb", io.BytesIO(rdb), compress=True)
        server = {"object": entry.name, "roles": ["base", "sidekiq"], "flavour": "redis", "version": "7.0.15"}
        return self.source(writer.commit({"servers": [{**server, "rdb_version": 10, **facts}]}))

    def source(self, manifest: Manifest) -> Source:
        return Source(manifest=manifest, vaults=[self.vault], identities=self.identities)


class Cut(Connection):
    """A connection that is lost at its n-th use, as at the end of the network cable."""

    def __init__(self, inner: Connection, after: int) -> None:
        self.host, self.login_user = inner.host, inner.login_user
        self._inner, self._left = inner, after

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ConnectionFailed("the connection to social was lost")

    @property
    def was_cut(self) -> bool:
        return self._left < 0

    def start(self, command: Command, *, on_stderr: Callable[[bytes], None] | None = None) -> Process:
        self._count()
        return self._inner.start(command, on_stderr=on_stderr)

    def run(self, command: Command, *, stdin: bytes = b"", timeout: float = 60.0, limit: int = 1 << 23) -> Completed:
        self._count()
        return self._inner.run(command, stdin=stdin, timeout=timeout, limit=limit)

    def open_tcp(self, host: str, port: int) -> Any:
        self._count()
        return self._inner.open_tcp(host, port)

    def open_unix(self, path: str) -> Any:
        self._count()
        return self._inner.open_unix(path)

    def close(self) -> None:
        self._inner.close()


class Restore:
    """One restore of Redis onto one target, step by step."""

    def __init__(
        self,
        host: Connection,
        source: Source | None,
        *places: RedisPlace,
        empty: bool = False,
        extra: dict[Asset, Source] | None = None,
    ) -> None:
        self.host = host
        self.installation = installation(*places)
        self.job = WatchedJob()
        self.memory = MemoryOfSteps()
        self.sources = {**({Asset.REDIS: source} if source else {}), **(extra or {})}
        self.request = RestoreRequest(
            id=MARK,
            host="social",
            snapshots={asset: each.manifest.id for asset, each in self.sources.items()},
            redis=RedisChoice.EMPTY if empty else RedisChoice.RESTORE,
            at=datetime.now(UTC),
        )

    def target(self, connection: Connection | None = None) -> Target:
        return Target(name="social", connection=connection or self.host, installation=self.installation)

    def look(self) -> Look:
        return PART.look(self.request, self.target(), self.sources)

    def actions(self) -> list[Action]:
        found = self.look()
        assert found.facts, [finding.text for finding in found.findings]
        import json

        return list(PART.actions(self.request, json.loads(json.dumps(found.facts))))

    def work(self, connection: Connection | None = None, way: Way = "rollback") -> Work:
        return Work(
            request=self.request,
            target=self.target(connection),
            sources=self.sources,
            job=self.job,
            memory=self.memory,
            way=way,
        )

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            action.do(self.work())

    def undo(self, actions: list[Action], way: Way) -> None:
        for action in reversed(actions):
            action.undo(self.work(way=way))

    def forget(self, actions: list[Action]) -> None:
        for action in actions:
            action.forget(self.work())


@contextmanager
def cut_host(after: int) -> Iterator[Cut]:
    """This machine, lost at its n-th use."""
    with local_host() as host:
        yield Cut(host, after)
