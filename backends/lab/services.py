"""What runs behind the units of a lab host: stand-ins for Mastodon's programs, and the host's real Redis."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from backends.embedded.processes import Processes
from backends.embedded.redis_server import RedisServer
from backends.lab.fleet_plan import HostPlan
from backends.lab.host import LabHost
from backends.lab.ssh import login_name
from backends.lab.systemd import Systemd
from backends.lab.tree import program_argv
from backends.lab.units import SIDEKIQ, STREAMING_PORT, WEB, units

_ROLES = {WEB: "web", SIDEKIQ: "sidekiq", STREAMING_PORT: "streaming"}
_PATIENCE = 15.0


def make_systemd(
    plan: HostPlan, directory: Path, redis: RedisServer, processes: Processes, *, ports: tuple[int, int], real: bool
) -> Systemd:
    """The service manager of a host. Without `real` only Redis is a process, and of the rest the state changes.

    Args:
        plan: of the host.
        directory: of the host.
        redis: its own; that of the cheap hosts belongs to all of them, and stays.
        processes: where its processes are started.
        ports: that web and streaming listen on.
        real: whether Mastodon's programs run.
    """
    manager = Systemd(processes, directory / "run/faults")
    root = directory / "home/mastodon/live"
    properties = units(plan.version, login_name(), root, web=ports[0], streaming=ports[1], redis_conf=redis.config)
    commands: dict[str, Callable[[], subprocess.Popen[bytes]]] = {}
    if real:
        (directory / "var/log").mkdir(parents=True)
        for name, role in _ROLES.items():
            environment = dict(word.split("=", 1) for word in shlex.split(properties[name]["Environment"]))
            commands[name] = partial(_program, directory, processes, role, name, environment)
    manager.define(properties, commands, None if plan.cheap else redis)
    return manager


def _program(
    directory: Path, processes: Processes, role: str, unit: str, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    home = directory / "home/mastodon"
    return processes.start(
        [*program_argv("mastodon"), role, str(home / "live"), unit, str(directory / "run/faults")],
        log=directory / f"var/log/{unit}.log",
        env={"HOME": str(home), **environment},
        cwd=home / "live",
    )


def wait_until_well(host: LabHost) -> bool:
    """Wait until web and streaming of a host answer; whether they did."""
    deadline = time.monotonic() + _PATIENCE
    pages = [f"http://127.0.0.1:{host.web_port}/health"]
    pages.append(f"http://127.0.0.1:{host.streaming_port}/api/v1/streaming/health")
    while pages and time.monotonic() < deadline:
        try:
            with urlopen(pages[0], timeout=5) as answer:  # noqa: S310 - an address of our own
                if answer.status == 200:
                    pages.pop(0)
        except (URLError, OSError):
            time.sleep(0.02)
    return not pages
