"""The contract of an asset: probe, plan, back up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from backends.archive.manifest import Manifest
from backends.archive.snapshot import SnapshotWriter
from backends.connection.base import Connection
from backends.mastodon.installation import Installation
from backends.model import Asset, AssetObservation
from backends.progress import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan, with the exact command where there is one (never with a secret in it)."""

    name: str
    what: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operation will do, as a value, shown before it runs."""

    host: str
    asset: Asset
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    blocked: str = ""
    """Why it cannot run; empty when it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupContext:
    """What an asset needs for one backup. `previous` is its newest good manifest over all vaults, if any."""

    connection: Connection
    installation: Installation
    job: Job
    include_cache: bool = False
    previous: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a backup found, for the manifest.

    `unchanged` names the existing snapshot that stays good instead; `skipped` says why there is nothing to copy (media
    that an object storage keeps). With either of them nothing was written: discard, don't commit.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    unchanged: str | None = None
    skipped: str | None = None


class AssetHandler(Protocol):
    """What each module in this room provides. Handlers hold no state."""

    asset: ClassVar[Asset]

    def probe(self, connection: Connection, installation: Installation) -> AssetObservation:
        """A cheap look (seconds, read-only): is it there, how big, is anything wrong with it."""
        ...

    def plan_backup(self, connection: Connection, installation: Installation) -> Plan:
        """The steps that `back_up` will take, with their exact commands."""
        ...

    def back_up(self, context: BackupContext, writer: SnapshotWriter) -> Outcome:
        """Write the asset's objects through `writer`; the caller commits or discards.

        Raises:
            AssetFailed, CommandFailed, ConnectionFailed, VaultError: nothing was committed.
            Cancelled: the operator asked to stop; remote processes are ended.
        """
        ...
