"""One Redis server of a target, as the steps of a restore need it: where its files are, and their names aside."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from backends.errors import AssetFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server and what takes the place of its data. Goes through JSON; nothing secret is in it."""

    role: str
    """The role whose address reaches it: `base` or `sidekiq`."""
    name: str
    """For people: `Redis at localhost:6379`."""
    object: str = ""
    """The snapshot's object; empty when it is to start empty."""
    unit: str
    running: bool
    directory: str
    file: str
    aof: bool
    aof_names: tuple[str, ...]
    """What an append-only file of it may be called in the directory."""
    config: str = ""
    """Its configuration file; needed only where the append-only file is on."""
    owner: str
    group: str
    mode: int = 0o660
    program: str = "redis-server"
    reads: tuple[int, int] = (0, 0)
    """The newest formats that it loads: Redis's, Valkey's own."""
    same_kind: bool = False
    """The snapshot comes from the same kind of server in the same or an older version."""
    keys: int = 0
    """What the snapshot should hold, by its manifest."""
    waiting: int = 0
    """Jobs that waited when the snapshot was made."""
    bytes: int = 0
    """Of the snapshot, unpacked."""
    old_bytes: int = 0
    """What its data takes in memory or on disk now."""

    @property
    def suffix(self) -> str:
        """What tells this server's names from those of the other one."""
        return "" if self.role == "base" else f"-{self.role}"

    def staged(self, mark: str) -> str:
        """The name of the staged snapshot in the directory."""
        return f".mastovault-restore-{mark}{self.suffix}.rdb"

    def path(self, name: str) -> str:
        """A file of the directory."""
        return posixpath.join(self.directory, name)


_SERVERS = TypeAdapter(tuple[Server, ...])


class Facts:
    """The facts of a look at Redis: the servers, to and from JSON values."""

    KEY: ClassVar[str] = "servers"

    @classmethod
    def write(cls, servers: tuple[Server, ...]) -> dict[str, object]:
        """As JSON values; without servers there are none."""
        return {cls.KEY: _SERVERS.dump_python(servers, mode="json")} if servers else {}

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> tuple[Server, ...]:
        """The servers again. Raises `AssetFailed` when they are not what `write` made."""
        try:
            return _SERVERS.validate_python(facts.get(cls.KEY, ()))
        except ValidationError:
            raise AssetFailed(
                "what was noted about Redis for this restore cannot be read", "Start the restore again."
            ) from None
