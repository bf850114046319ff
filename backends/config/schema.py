"""The shape of `config.toml` (docs/configuration.md); unknown keys are errors."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

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
    """Who can read the backups. `identity` is only needed to read, never to back up."""

    recipients: tuple[str, ...] = ()
    identity: Path | None = None
    recovery: str | None = None
    """The recipient whose identity is kept on paper; one of `recipients`."""
    custody_confirmed: str | None = None
    """The recovery recipient for which the operator confirmed a copy kept elsewhere."""


class DirectoryVault(_Table):
    """A directory on this machine, or on one mounted here."""

    type: Literal["directory"]
    path: Path
    offsite: bool | None = None


class S3Vault(_Table):
    """A bucket at any S3-compatible provider."""

    type: Literal["s3"]
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    offsite: bool | None = None
    access_key_command: str | None = None
    secret_key_command: str | None = None
    access_key_env: str | None = None
    secret_key_env: str | None = None


class SftpVault(_Table):
    """A directory on another machine, over SFTP."""

    type: Literal["sftp"]
    address: str
    path: str
    offsite: bool | None = None


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


class Retention(_Table):
    """What `prune` keeps."""

    last: int = Field(default=0, ge=0)
    daily: int = Field(default=7, ge=0)
    weekly: int = Field(default=4, ge=0)
    monthly: int = Field(default=6, ge=0)
    yearly: int = Field(default=0, ge=0)


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

    def goal(self, host: str, asset: Asset) -> timedelta | None:
        """How old the newest snapshot may get; None means compared by content (`on-change`)."""
        own: timedelta | str | None = getattr(self.hosts[host].goals, asset.value) if host in self.hosts else None
        if own is None:
            return self.goals.of(asset)
        return None if isinstance(own, str) else own
