"""One host of the lab: its plan, its files, its servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from backends.embedded.redis_server import RedisServer
from backends.lab.database import DatabaseLogin
from backends.lab.fleet_plan import HostPlan
from backends.lab.population import Population
from backends.lab.ssh import SshHost, login_name


@dataclass(slots=True)
class LabHost:
    """Everything about one host that a test or the demo may want to look at or break."""

    plan: HostPlan
    directory: Path
    ssh: SshHost
    redis: RedisServer
    database: DatabaseLogin
    population: Population
    online: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    """What its `.env.production` says."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.plan.name

    @property
    def address(self) -> str:
        """As the configuration names it: `user@127.0.0.1:port`."""
        return f"{login_name()}@127.0.0.1:{self.ssh.port}"

    @property
    def home(self) -> Path:
        """The login user's home on the host."""
        return self.directory / "home/mastodon"

    @property
    def root(self) -> Path:
        """Mastodon's code directory."""
        return self.home / "live"
