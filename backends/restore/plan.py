"""A restore as values: what was asked for, what will be done, what was found on looking. All goes through JSON."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from backends.model import Asset


class Phase(IntEnum):
    """When a step of a restore runs; steps of all assets are ordered by it, and within it secrets come first."""

    STAGE = 20
    """Beside the live data: nothing live is touched."""
    PROVE = 30
    """What was staged is compared with the manifest; the secrets must open the database."""
    PLACE = 40
    """Media files that are missing are moved in; the site is up."""
    STOP = 50
    """Mastodon's services stop: the downtime begins."""
    SWAP = 60
    """What was staged takes the place of the live data, by renaming."""
    START = 70
    """Redis, web and streaming start: the downtime ends."""
    HEALTH = 80
    """Mastodon is asked whether it is well; then Sidekiq starts."""
    AFTER = 90
    """Feeds are built again."""

    @property
    def live(self) -> bool:
        """Whether steps of this phase change what is live."""
        return self in {Phase.PLACE, Phase.SWAP}


ORDER = (Asset.SECRETS, Asset.DATABASE, Asset.MEDIA, Asset.REDIS)
"""The order of the assets within a phase: settings first, for the others are opened with them."""


class RedisChoice(StrEnum):
    """What becomes of Redis."""

    RESTORE = "restore"
    EMPTY = "empty"
    """Start empty, and build the feeds from the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """What the operator asked for. `id` is also the mark in every name that is made on the target (`20261122t140211`).

    `snapshots` names one snapshot for each asset to bring back; Redis needs none when it is to start empty.
    """

    id: str
    host: str
    """The target, by its name in the configuration."""
    snapshots: dict[Asset, str]
    redis: RedisChoice = RedisChoice.RESTORE
    subtree: str = ""
    """Media: only what is below this path, relative to the tree's root."""
    exact: bool = False
    """Media: files that the snapshot does not hold are moved aside."""
    accept: tuple[str, ...] = ()
    """Findings that were overridden by typing their word: see `Finding.accept`."""
    confirm: str = ""
    """What the operator typed; a restore does not run unless it is its plan's `confirm`."""
    at: datetime

    @property
    def assets(self) -> tuple[Asset, ...]:
        """What comes back, in order of importance."""
        empty = {Asset.REDIS} if self.redis is RedisChoice.EMPTY else set()
        return tuple(asset for asset in Asset if asset in self.snapshots or asset in empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """One step of a plan. `commands` are exact, as they can be typed, never with a secret; `seconds` is expected."""

    id: str
    """`<asset>.<verb>`, or `services.<verb>`; unique within a plan."""
    asset: Asset | None
    phase: Phase
    name: str
    """Two or three words for a list: `restore beside`."""
    what: str
    """One line: `new database mastodon_restore_1122, the site stays up`."""
    commands: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the look before a restore found.

    `ok` is good news, `note` worth knowing, `block` keeps the restore from running. One that blocks and has a word in
    `accept` (`domain`, `pair`, ...) may be overridden by typing `<host>/<word>`.
    """

    level: Literal["ok", "note", "block"]
    text: str
    way_out: str = ""
    asset: Asset | None = None
    accept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Room that a step needs on the target, in bytes; `free` is None where it cannot be told."""

    what: str
    path: str
    need: int
    free: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Which snapshot an asset comes from."""

    asset: Asset
    snapshot: str
    at: datetime
    bytes: int
    vault: str
    """The one that is read first."""
    vaults: tuple[str, ...]
    verified_at: datetime | None = None
    drilled_at: datetime | None = None
    in_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """Everything that is known before a restore runs; shown as it is, by the app and by `restore --plan --json`."""

    request: RestoreRequest
    target: str
    """For people: `social (mastodon@social.example:22), Mastodon 4.6.5 in /home/mastodon/live`."""
    copies: tuple[Copy, ...]
    steps: tuple[StepInfo, ...]
    findings: tuple[Finding, ...]
    spaces: tuple[Space, ...] = ()
    lost: tuple[str, ...] = ()
    """What is gone from the site afterwards (kept aside for an undo): sentences."""
    untouched: tuple[str, ...] = ()
    seconds: float | None = None
    """Expected, in all."""
    downtime_seconds: float | None = None
    confirm: str = ""
    """What must be typed to run it: `<host>/<asset>`, or `<host>` for more than one asset."""

    @property
    def blocked(self) -> tuple[Finding, ...]:
        """The findings that keep it from running: those that block and were not overridden."""
        return tuple(
            found for found in self.findings if found.level == "block" and found.accept not in (*self.request.accept,)
        )

    def to_json(self) -> bytes:
        """As a JSON document."""
        return _PLAN.dump_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one asset's look at the target gave: the part of the plan that is its own.

    `facts` are JSON values from which `Part.actions` makes the steps, now and when a restore is resumed by another
    process; nothing secret is in them.
    """

    facts: dict[str, object] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    spaces: tuple[Space, ...] = ()
    lost: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()


def plan_from_json(data: bytes) -> RestorePlan:
    """Read a plan. Raises `ValueError` when it is none."""
    return _PLAN.validate_json(data)


def request_to_json(request: RestoreRequest) -> bytes:
    """As a JSON document."""
    return _REQUEST.dump_json(request)


def request_from_json(data: bytes) -> RestoreRequest:
    """Read a request. Raises `ValueError` when it is none."""
    return _REQUEST.validate_json(data)


_PLAN = TypeAdapter(RestorePlan)
_REQUEST = TypeAdapter(RestoreRequest)
