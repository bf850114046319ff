"""The shape of `config.toml` (docs/configuration.md); unknown keys are errors."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from backends.model import Asset

HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _duration(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*([smhdw])\s*", value)
        if not match:
            raise ValueError("a duration looks like 90m, 24h or 7d")
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    raise ValueError("a duration is a text such as 90m, 24h or 7d")


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Goal = Duration | Literal["on-change"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Encryption(_Table):
    """Who can read the backups, and whose they are. `identity` is only needed to read, never to back up."""

    recipients: tuple[str, ...] = ()
    identity: Path | None = None
    identity_command: str | None = None
    """Prints identities, one a line, instead of a file: a password manager's command. Run without a shell."""
    old_identities: tuple[Path, ...] = ()
    """Identities of before a rotation; they open what was encrypted to them."""
    recovery: str | None = None
    """The recipient whose identity is kept on paper; one of `recipients`."""
    custody_confirmed: str | None = None
    """The recovery recipient for which the operator confirmed a copy kept elsewhere."""
    custody_confirmed_at: datetime | None = None
    """When; it is asked for again after 180 days."""
    signing_key: Path | None = None
    """The Ed25519 key that signs the manifests which this machine writes."""


class _Stored(_Table):
    """What every kind of vault can say of itself."""

    offsite: bool | None = None
    """Guessed when left out: a directory is not, a bucket or another machine is."""
    price_per_gb_month: float | None = Field(default=None, ge=0)
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")


class DirectoryVault(_Stored):
    """A directory on this machine, or on one mounted here."""

    type: Literal["directory"]
    path: Path


class S3Vault(_Stored):
    """A bucket at any S3-compatible provider."""

    type: Literal["s3"]
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    access_key_command: str | None = None
    secret_key_command: str | None = None
    access_key_env: str | None = None
    secret_key_env: str | None = None
    storage_class: str | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    sse_kms_key: str | None = None
    lock_days: int | None = Field(default=None, ge=1, le=3650)
    """Every object is put under an Object Lock for that long."""
    lock_mode: Literal["governance", "compliance"] = "governance"


class SftpVault(_Stored):
    """A directory on another machine, over SFTP."""

    type: Literal["sftp"]
    address: str
    path: str
    identity_file: Path | None = None
    known_hosts: Path | None = None
    password_command: str | None = None
    key_passphrase_command: str | None = None


VaultConfig = Annotated[DirectoryVault | S3Vault | SftpVault, Field(discriminator="type")]


class Goals(_Table):
    """How old a snapshot may get, by asset; `on-change` compares content instead of counting days."""

    database: Duration = timedelta(hours=24)
    secrets: Goal = "on-change"
    media: Duration = timedelta(hours=24)
    redis: Duration = timedelta(hours=24)

    def of(self, asset: Asset) -> timedelta | None:
        """The goal of one asset; None for on-change."""
        goal: timedelta | str = getattr(self, asset.value)
        return None if isinstance(goal, str) else goal


class HostGoals(_Table):
    """A host's own goals; what is left out comes from `[goals]`."""

    database: Duration | None = None
    secrets: Goal | None = None
    media: Duration | None = None
    redis: Duration | None = None


class Policy(_Table):
    """How many snapshots of one asset are kept: the newest ones, the newest of each day, week, ..., all of a time."""

    last: int = Field(default=0, ge=0)
    daily: int = Field(default=0, ge=0)
    weekly: int = Field(default=0, ge=0)
    monthly: int = Field(default=0, ge=0)
    yearly: int = Field(default=0, ge=0)
    within: Duration = timedelta()

    @property
    def empty(self) -> bool:
        """Whether nothing would be kept."""
        return not (self.last or self.daily or self.weekly or self.monthly or self.yearly or self.within)


class _Policies(Policy):
    """A policy, and those of single assets, each of which stands instead of it as a whole."""

    database: Policy | None = None
    secrets: Policy | None = None
    media: Policy | None = None
    redis: Policy | None = None

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        own = [each for asset in Asset if (each := getattr(self, asset.value)) is not None]
        written = self.model_fields_set & set(Policy.model_fields)
        if any(each.empty for each in own) or (written and self.empty):
            raise ValueError("a retention that keeps nothing is refused: name at least one of last, daily, within ...")
        return self


class Retention(_Policies):
    """What `prune` keeps."""

    after_backup: bool = True
    """Prune by itself after a backup that succeeded."""

    @model_validator(mode="before")
    @classmethod
    def _default(cls, value: object) -> object:
        """What is kept when nobody wrote how much: all of two days, then 7 days, 4 weeks, 6 months."""
        if isinstance(value, dict) and not set(value) & set(Policy.model_fields):
            return {"within": "2d", "daily": 7, "weekly": 4, "monthly": 6, **value}
        return value


class HostRetention(_Policies):
    """A host's own policies; what is left out comes from `[retention]`."""


class Limits(_Table):
    """How much work goes on at once."""

    runs: int = Field(default=4, ge=1, le=64)
    jobs_per_host: int = Field(default=1, ge=1, le=4)


class HostConfig(_Table):
    """One host. Everything below `become` is discovered and can be overridden."""

    address: str
    vaults: tuple[str, ...] = ()
    """Empty means every vault."""
    become: Literal["none", "sudo", "su"] = "none"
    become_user: str = "root"
    goals: HostGoals = HostGoals()
    retention: HostRetention = HostRetention()
    root: str | None = None
    user: str | None = None
    database_host: str | None = None
    database_port: int | None = Field(default=None, ge=1, le=65535)
    database_user: str | None = None
    redis_url: str | None = None
    include_cache: bool = False
    assets: tuple[Asset, ...] = tuple(Asset)
    identity_file: Path | None = None
    known_hosts: Path | None = None
    password_command: str | None = None
    """Prints the login password; also asked for in the app."""
    become_password_command: str | None = None
    key_passphrase_command: str | None = None

    @field_validator("assets")
    @classmethod
    def _some(cls, value: tuple[Asset, ...]) -> tuple[Asset, ...]:
        if not value:
            raise ValueError("a host needs at least one asset")
        return tuple(asset for asset in Asset if asset in value)


class Config(_Table):
    """The whole file."""

    encryption: Encryption = Encryption()
    vaults: dict[str, VaultConfig] = Field(default_factory=dict)
    signers: dict[str, str] = Field(default_factory=dict)
    """Whose snapshots are trusted: a name and the Ed25519 public key in base64. Empty: signatures are not judged."""
    goals: Goals = Goals()
    retention: Retention = Retention()
    limits: Limits = Limits()
    hosts: dict[str, HostConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for kind, names in (("host", self.hosts), ("vault", self.vaults)):
            for name in names:
                if not HOST_NAME.fullmatch(name):
                    raise ValueError(f"the {kind} name {name!r} may hold letters, digits, dots, dashes and underscores")
        for name, host in self.hosts.items():
            for vault in host.vaults:
                if vault not in self.vaults:
                    raise ValueError(f"host {name} names the vault {vault}, which is not configured")
        return self

    def vaults_of(self, host: str) -> tuple[str, ...]:
        """Names of the vaults that a host's backups go to."""
        return self.hosts[host].vaults or tuple(self.vaults)

    def policy(self, host: str, asset: Asset) -> tuple[Policy, bool]:
        """What is kept of an asset, and whether somebody wrote it for this very asset. The host's comes first."""
        own = self.hosts[host].retention if host in self.hosts else HostRetention()
        for level in (own, self.retention):
            particular: Policy | None = getattr(level, asset.value)
            if particular is not None:
                return particular, True
            if not level.empty:
                return level, False
        return self.retention, False

    def goal(self, host: str, asset: Asset) -> timedelta | None:
        """How old the newest snapshot may get; None means compared by content (`on-change`)."""
        own: timedelta | str | None = getattr(self.hosts[host].goals, asset.value) if host in self.hosts else None
        if own is None:
            return self.goals.of(asset)
        return None if isinstance(own, str) else own
