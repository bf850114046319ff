"""What discovery found on a host, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from backends.model import Secret


class InstallKind(StrEnum):
    """How Mastodon was installed (docs.joinmastodon.org/admin/install, docker-compose.yml, YunoHost, NixOS, Helm)."""

    NATIVE = "native"
    DOCKER = "docker"
    LINUXSERVER = "linuxserver"
    YUNOHOST = "yunohost"
    NIXOS = "nixos"
    KUBERNETES = "kubernetes"
    UNKNOWN = "unknown"

    @property
    def supported(self) -> bool:
        """Whether this release can back it up; the others are recognised and explained."""
        return self is InstallKind.NATIVE


class MediaKind(StrEnum):
    """Where Mastodon keeps uploads; the first that is enabled wins (config/initializers/paperclip.rb)."""

    LOCAL = "local"
    S3 = "s3"
    SWIFT = "swift"
    AZURE = "azure"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePlace:
    """Where PostgreSQL is, for a direct connection (never through PgBouncer).

    `host` is a name, an address or the directory of a unix socket; `as_user` the system user whose peer
    authentication opens it, None for the login user.
    """

    host: str
    port: int
    name: str
    user: str
    password: Secret | None = None
    sslmode: str = "prefer"
    as_user: str | None = None
    server_version: int | None = None
    """As `server_version_num`, for example 150018."""
    bin_dir: str | None = None
    """Where the server's own pg_dump is; None means on the PATH."""
    warnings: tuple[str, ...] = ()

    @property
    def is_socket(self) -> bool:
        """Whether `host` is a directory that holds a unix socket."""
        return self.host.startswith("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPlace:
    """One Redis role. `unix_path` wins over host and port."""

    role: str
    """`base`, `sidekiq` or `cache`."""
    host: str = "localhost"
    port: int = 6379
    unix_path: str | None = None
    database: int = 0
    user: str | None = None
    password: Secret | None = None
    tls: bool = False
    sentinel: bool = False
    """`host` and `port` are those of the first sentinel, which knows where `sentinel_master` is."""
    sentinel_master: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPlace:
    """Where uploads are: a directory, or a bucket at a provider."""

    kind: MediaKind
    path: str | None = None
    provider: str = ""
    bucket: str = ""
    region: str = ""
    endpoint_url: str | None = None
    key_prefix: str = ""
    access_key: Secret | None = None
    secret_key: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """One file that holds settings or secrets of the installation (`.env.production` and its equivalents)."""

    path: str
    mode: int
    owner: str
    group: str
    bytes: int
    format: str = "dotenv"
    """`dotenv`, `systemd` (an EnvironmentFile), or `raw` (kept as it is, its settings not read)."""
    read_as: str | None = None
    """The user who may read it; None is the login user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One Mastodon on one host."""

    host: str
    kind: InstallKind
    root: str
    """The code's directory, `/home/mastodon/live`."""
    user: str
    """The system user that Mastodon runs as."""
    version: str = ""
    """`4.6.3`, without the leading v; empty when unknown."""
    domain: str = ""
    units: tuple[str, ...] = ()
    environment: dict[str, Secret] = field(default_factory=dict)
    """Effective settings from the dotenv files; the first definition of a name wins."""
    secret_files: tuple[SecretFile, ...] = ()
    database: DatabasePlace | None = None
    redis: tuple[RedisPlace, ...] = ()
    media: MediaPlace | None = None
    machine_id: str = ""
    warnings: tuple[str, ...] = ()
