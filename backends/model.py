"""The small frozen values that every room shares.

Nothing in here does any work or knows any other room. Times are timezone-aware UTC, sizes are bytes, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal


class Asset(StrEnum):
    """One of the four things worth saving, in order of importance (docs/risk.md)."""

    DATABASE = "database"
    SECRETS = "secrets"
    MEDIA = "media"
    REDIS = "redis"

    @property
    def impact(self) -> int:
        """What losing it costs, 0 to 100, when no copy exists."""
        return _IMPACT[self]


_IMPACT = {Asset.DATABASE: 100, Asset.SECRETS: 90, Asset.MEDIA: 60, Asset.REDIS: 15}


class Level(StrEnum):
    """How urgent a risk score is; the words are what the screens show."""

    CRIT = "CRIT"
    HIGH = "HIGH"
    MED = "MED"
    LOW = "LOW"
    OK = "OK"
    UNKN = "UNKN"


class HostState(StrEnum):
    """What the last attempt to ask a host ended in."""

    UNASKED = "unasked"
    ONLINE = "online"
    OFFLINE = "offline"
    LOGIN_FAILED = "login_failed"
    HOST_KEY_UNKNOWN = "host_key_unknown"
    HOST_KEY_CHANGED = "host_key_changed"
    NO_MASTODON = "no_mastodon"
    FAILED = "failed"


class JobState(StrEnum):
    """Where a job is in its life; a job ends in one of the last four."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come from the job."""
        return self in {JobState.DONE, JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED}


class Secret:
    """A text that must never be seen: its repr, str and format are masked; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that hands it to a server."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


class Trust(StrEnum):
    """Whether the writer of a snapshot is one whom the configuration trusts; the values are the words to type."""

    UNCHECKED = "unchecked"
    """No signer is configured, so nobody can tell."""
    TRUSTED = "trusted"
    UNSIGNED = "unsigned"
    FOREIGN = "foreign"
    """Signed well, by a key that the configuration does not name."""
    CHANGED = "changed"
    """Not what was signed, or not what was written."""

    @property
    def good(self) -> bool:
        """Whether it may be restored without a word of its own."""
        return self in {Trust.UNCHECKED, Trust.TRUSTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnapshot:
    """How far one job is, as the screens see it; the newest one replaces all before it.

    `done` and `total` are bytes or items of the current step (`unit` says which), `rate` is per second.
    """

    id: str
    host: str
    asset: Asset
    state: JobState
    step: str = ""
    done: int = 0
    total: int | None = None
    rate: float | None = None
    unit: str = "bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How one job ended. `in_part` means a snapshot exists but lacks what `warnings` name."""

    host: str
    asset: Asset
    state: JobState
    snapshot: str | None = None
    bytes: int = 0
    seconds: float = 0.0
    error: str | None = None
    next_step: str | None = None
    in_part: bool = False
    warnings: tuple[str, ...] = ()
    vaults: tuple[str, ...] = ()
    exit_code: int = 0
    """That of the error which ended it; 0 when it is done or was skipped."""
    detail: str = ""
    """One sentence on what was found or done, for restores, verifies and drills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """One committed backup of one asset, merged over the vaults that hold it.

    `id` is `<host>/<asset>/<YYYYMMDDTHHMMSSZ>-<id>`; `checked_at` is the last time the host was seen to still hold
    exactly this content (secrets). `vaults` leaves out those whose copy failed its last verification or lacks something
    (`damaged`), as long as another copy is good; `verify_failed` says that none is.
    """

    id: str
    host: str
    asset: Asset
    at: datetime
    bytes: int
    vaults: tuple[str, ...]
    run: str
    checked_at: datetime | None = None
    verified_at: datetime | None = None
    verify_failed: bool = False
    drilled_at: datetime | None = None
    in_part: bool = False
    fingerprint: str | None = None
    seconds: float | None = None
    damaged: tuple[str, ...] = ()
    torn: str = ""
    """What is missing from a damaged copy, or of another length than it should be; empty where it is no such damage."""
    drill_failed: bool = False
    """The last drill of it failed; `drilled_at` is the last good one all the same."""
    drill_seconds: float | None = None
    """How long restoring it took in its last good drill."""
    signature: Literal["none", "good", "bad"] = "none"
    """Of the manifest, by the key that it names; `trust` in `archive.signing` judges it by the configuration."""
    signer: str = ""
    """The public key that the manifest names, in base64; empty without a signature."""
    altered: tuple[str, ...] = ()
    """Vaults whose manifest of it is trusted less than that of `vaults`: their copy is left aside."""
    opens_dump: bool | None = None
    """Secrets and databases: whether these secrets opened the database of the last drill; None when nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to back up one asset, as recorded in the vault; failures too."""

    host: str
    asset: Asset
    run: str
    at: datetime
    seconds: float
    state: JobState
    snapshot: str | None = None
    bytes: int = 0
    error: str | None = None
    in_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One line of a risk score: what it adds, why, and the action that lowers it."""

    points: int
    text: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetObservation:
    """What the last refresh saw of one asset on its host.

    `provider` names the object storage that keeps it (media), `fingerprint` is the keyed digest of the secrets,
    `bytes` an estimate of what a backup would read.
    """

    asset: Asset
    present: bool
    detail: str = ""
    bytes: int | None = None
    fingerprint: str | None = None
    provider: str | None = None
    warnings: tuple[str, ...] = ()
    healthy_standby: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostObservation:
    """What the last refresh saw of one host. `since` is when `state` began, `asked_at` when it was last asked."""

    host: str
    state: HostState
    asked_at: datetime
    since: datetime
    message: str = ""
    next_step: str = ""
    kind: str = ""
    version: str = ""
    machine_id: str = ""
    assets: tuple[AssetObservation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetStatus:
    """One row of the fleet: how old, how risky, and why. `stale` marks last known values of a host that is away."""

    host: str
    asset: Asset
    level: Level
    score: int
    state: str
    reasons: tuple[Reason, ...]
    goal_seconds: float | None
    newest: SnapshotInfo | None
    stale: bool = False
    proof: str = ""
    """In words, how the asset's last drill went; see `operations.fleet_words`."""


def utc_now() -> datetime:
    """The current time in UTC, to the microsecond."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """A time as RFC 3339 UTC with seconds, the form of every JSON document (`2026-11-22T14:02:11Z`)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
