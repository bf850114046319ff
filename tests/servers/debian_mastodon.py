"""Mastodon on a Debian host as its guide installs it, with stand-ins for the programs that would need Ruby and Node.

The database, the media and the secrets are the lab's: one population in all of them, keys really encrypted.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from backends.lab.database import DatabaseLogin, create_database
from backends.lab.environment import record_encryption_keys, settings, written
from backends.lab.feeds import fill
from backends.lab.fleet_plan import HostPlan
from backends.lab.population import Population, populate
from backends.lab.rails_encryption import RailsCipher
from backends.lab.tree import make_mastodon, make_media
from tests.servers.debian import Debian
from tests.servers.debian_image import FILES
from tests.servers.debian_network import Relay

ROOT = "/home/mastodon/live"
SERVICES = ("mastodon-web", "mastodon-sidekiq", "mastodon-streaming", "mastodon-streaming@4000")
TABLES = ("accounts", "users", "statuses", "media_attachments", "keypairs", "follows", "schema_migrations")


@dataclass(frozen=True)
class Mastodon:
    """A Mastodon that was installed on a host.

    Attributes:
        host: the machine.
        values: the settings in `.env.production`, secrets among them.
        population: who and what lives there.
    """

    host: Debian
    values: Mapping[str, str]
    population: Population

    def counts(self) -> dict[str, int]:
        """Rows of the tables that matter; -1 for one that is not there."""
        found = {}
        for table in TABLES:
            there = self.host.sql(f"SELECT to_regclass('public.{table}') IS NOT NULL") == "t"
            found[table] = int(self.host.sql(f"SELECT count(*) FROM {table}")) if there else -1
        return found

    def media(self) -> dict[str, tuple[str, str, int]]:
        """Every file of the media tree with its mode, owner and size."""
        lines = self.host.run(f"cd {ROOT}/public/system; find . -type f -printf '%P\\t%m\\t%u:%g\\t%s\\n'").splitlines()
        rows = (line.split("\t") for line in lines)
        return {path: (mode, owner, int(size)) for path, mode, owner, size in rows}

    def healthy(self) -> bool:
        """Whether web and streaming answer `OK`, and every service is up."""
        return self.answers() and self.states() == dict.fromkeys(SERVICES, "active")

    def await_health(self) -> None:
        """Wait until all of it is up."""
        until = time.monotonic() + 20
        while not self.healthy():
            assert time.monotonic() < until, self.host.run("journalctl -n 30 --no-pager -u 'mastodon-*'")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether web and streaming answer `OK`."""
        pages = ((3000, "/health"), (4000, "/api/v1/streaming/health"))
        return all(self.host.get(port, page) == (200, "OK") for port, page in pages)

    def states(self) -> dict[str, str]:
        """What systemd says of each service."""
        said = self.host.run('systemctl is-active "$@" || true', *SERVICES).split()
        return dict(zip(SERVICES, said, strict=True))

    def databases(self) -> list[str]:
        """The databases that are there, the templates left out."""
        return self.host.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1", "postgres").split()


def install_code(host: Debian, *, version: str = "4.7.4") -> None:
    """The code in /home/mastodon/live, the programs and the units: all but settings, database and media."""
    draft = host.directory / "code"
    make_mastodon(draft, HostPlan(name="social", seed=1, version=version), "")
    (draft / ".env.production").unlink()
    (draft / "bin/tootctl").write_text((FILES / "tootctl").read_text().replace("@VERSION@", version))
    (draft / "bin/tootctl").chmod(0o755)
    _send(host, draft, ROOT)
    shutil.rmtree(draft)
    host.run("install -D -m 755 /dev/stdin /home/mastodon/.rbenv/shims/bundle", stdin=_file("standin.py"))
    host.run("install -D -m 755 /dev/stdin /usr/bin/node", stdin=_file("standin.py"))
    host.run("chown -R mastodon: /home/mastodon")
    for unit in (FILES / "units").iterdir():
        host.run('install -m 644 /dev/stdin "/etc/systemd/system/$1"', unit.name, stdin=unit.read_bytes())
    host.run("systemctl daemon-reload")


def install(host: Debian, *, domain: str = "social", seed: int = 11, statuses: int = 2000) -> Mastodon:
    """A whole Mastodon, up and running."""
    plan = HostPlan(name=domain, seed=seed, statuses=statuses)
    population = populate(seed, people=12, remote=60, media=40, cached=10, statuses=statuses)
    login = DatabaseLogin("/var/run/postgresql", 5432, "mastodon_production", "mastodon", "unused")
    keys = record_encryption_keys()
    cipher = RailsCipher(
        keys["ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"], keys["ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT"]
    )
    # Peer authentication needs no password, and Debian's Redis asks for none.
    redis = SimpleNamespace(port=6379, password="")
    values = settings(plan, login, cast(Any, redis), keys, None)
    values = {name: value for name, value in values.items() if name not in {"DB_PASS", "REDIS_PASSWORD"}}

    install_code(host, version=plan.version)
    host.run(
        f"install -m 600 -o mastodon -g mastodon /dev/stdin {ROOT}/.env.production", stdin=written(values).encode()
    )
    create_database(cast(Any, _Superuser(host)), plan, login, population, cipher)
    _media(host, plan, population)
    _feeds(host, population, seed)
    host.run("systemctl enable --quiet --now mastodon-web mastodon-sidekiq mastodon-streaming")
    mastodon = Mastodon(host, values, population)
    mastodon.await_health()
    return mastodon


class _Superuser:
    """What the lab takes for a server that runs SQL."""

    def __init__(self, host: Debian) -> None:
        self._host = host

    def run_sql(self, script: str) -> None:
        self._host.run("psql -Xq -v ON_ERROR_STOP=1 -d postgres", user="postgres", stdin=script.encode())


def _media(host: Debian, plan: HostPlan, population: Population) -> None:
    draft = host.directory / "media"
    make_media(draft, plan, population)
    _send(host, draft, f"{ROOT}/public/system")
    shutil.rmtree(draft)
    host.run(f"chown -R mastodon: {ROOT}/public")


def _feeds(host: Debian, population: Population, seed: int) -> None:
    import redis

    with Relay(host.leader, 6379) as relay, redis.Redis(port=relay.port, protocol=2) as client:
        fill(client, population, seed)
    host.redis("SAVE")


def _send(host: Debian, directory: Path, to: str) -> None:
    packed = subprocess.run(("tar", "-C", str(directory), "-c", "."), capture_output=True, check=True).stdout
    host.run('mkdir -p "$1"; tar -C "$1" -x', to, stdin=packed)


def _file(name: str) -> bytes:
    return (FILES / name).read_bytes()
