"""One host of the lab: its plan, its files, its servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from backends.embedded.postgres import PostgresServer
from backends.embedded.redis_server import RedisServer
from backends.lab.database import DatabaseLogin
from backends.lab.fleet_plan import HostPlan
from backends.lab.population import Population
from backends.lab.ssh import SshHost, login_name
from backends.lab.systemd import Fault, Systemd
from backends.lab.units import WEB


@dataclass(slots=True)
class LabHost:
    """Everything about one host that a test or the demo may want to look at or break."""

    plan: HostPlan
    directory: Path
    ssh: SshHost
    postgres: PostgresServer
    """The one of all hosts, or a spare host's own."""
    redis: RedisServer
    database: DatabaseLogin
    population: Population
    systemd: Systemd
    web_port: int
    streaming_port: int
    online: bool = False
    booted: bool = False
    """Whether its units have been started once."""
    settings: dict[str, str] = field(default_factory=dict)
    """What its `.env.production` says; a spare host has none."""

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

    @property
    def web(self) -> str:
        """The address of its web server; nothing answers there without `services`."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def has_site(self) -> bool:
        """Whether its web server is a real one: it answers when it has been started."""
        return self.online and self.systemd.units[WEB].command is not None

    def fault(self, unit: str, fault: Fault, *, on: bool = True) -> None:
        """Let a unit misbehave from now on, or no more."""
        self.systemd.fault(unit, fault, on=on)
