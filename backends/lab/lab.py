"""The embedded fleet: real SSH, PostgreSQL, Redis and S3 servers with Mastodon's files and data, in one directory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh

from backends.config.paths import Paths
from backends.embedded.postgres import PostgresServer
from backends.embedded.processes import Processes, ServerFailed
from backends.embedded.redis_server import RedisServer
from backends.errors import MastovaultError
from backends.lab import tree
from backends.lab.bucket import BucketServer
from backends.lab.configuration import write_configuration, write_ssh_files
from backends.lab.control import Control
from backends.lab.damage import damage
from backends.lab.database import add_statuses_sql, clone_database
from backends.lab.directory import Claim
from backends.lab.environment import record_encryption_keys
from backends.lab.fleet_plan import STATUSES, plan_fleet
from backends.lab.host import LabHost
from backends.lab.making import Common, fill_host, new_host
from backends.lab.relay import Relay
from backends.lab.services import wait_until_well
from backends.lab.ssh import SshServers
from backends.lab.systemctl import systemctl
from backends.lab.units import POSTGRES, REDIS
from backends.model import Asset

_CLONERS = 3


class Lab:
    """A fleet of `hosts` hosts, made from `seed`, with `rows` posts each.

    Use `start` and `stop`, or as a context manager. With `history` it begins with real backups of the past days; with
    `services` the units of its hosts are real processes that answer on `host.web`; with `spare` there is an empty host
    to restore onto; with `s3_vault` the vault `offsite` is a bucket, else a directory. A `temporary` one's directory is
    removed at the end, also after a crash.

    Attributes:
        directory: everything is in it.
        paths: configuration, state and cache of this fleet.
        hosts: by name, in order: `social`, `art`, `club`, `lan` (offline), `host005`..., `spare`.
        postgres: the database server of all hosts but `spare`.
        bucket: the S3 server; None without a host that uses it.
    """

    def __init__(
        self,
        directory: Path,
        hosts: int = 4,
        seed: int = 1,
        rows: int = STATUSES,
        *,
        history: bool = False,
        temporary: bool = False,
        services: bool = False,
        spare: bool = False,
        s3_vault: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.config_file = self.directory / "config.toml"
        self.paths = Paths(self.config_file, self.directory / "state", self.directory / "cache")
        self.mark = secrets.token_hex(8)
        self.hosts: dict[str, LabHost] = {}
        self.postgres: PostgresServer
        self.bucket: BucketServer | None = None
        self._plans = plan_fleet(hosts, seed, rows, demo=history, spare=spare)
        self._services = services
        self._s3_vault = s3_vault
        self._history = history
        self._temporary = temporary
        self._say = say or (lambda _text: None)
        self._claim: Claim | None = None
        self._processes: Processes | None = None
        self._ssh: SshServers | None = None
        self._shared_redis: RedisServer | None = None
        self._control: Control | None = None

    def start(self) -> Self:
        """Make the fleet and wait until every part answers.

        Raises:
            ConfigurationError: the directory is in use, or holds something else.
            ServerFailed: a server did not come up; what was started is stopped again.
        """
        self._claim = Claim(self.directory, self.mark)
        try:
            self._build()
        except OSError as error:
            self.stop()
            raise ServerFailed(f"the lab could not be made in {self.directory}: {error.strerror or error}") from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything that was started; the files stay. Idempotent."""
        if self._ssh:
            for host in self.hosts.values():
                self._ssh.stop(host.ssh)
                host.ssh.let_go()
            self._ssh.close()
            self._ssh = None
        if self._control:
            self._control.close()
            self._control = None
        for host in self.hosts.values():
            host.systemd.close()
        if self._processes:
            self._processes.close()
            self._processes = None
        if self._claim:
            self._claim.release()
            self._claim = None

    def start_host(self, name: str) -> None:
        """Let a host's SSH server listen again, on the same port."""
        self._servers().start(self.hosts[name].ssh)
        self.hosts[name].online = True
        self._boot([self.hosts[name]])

    def stop_host(self, name: str) -> None:
        """Take a host off the net: connections are cut, its commands end, new connections are refused."""
        self._servers().stop(self.hosts[name].ssh)
        self.hosts[name].online = False

    def cut_connections(self, name: str) -> None:
        """Break the SSH connections that a host has now."""
        self._servers().cut(self.hosts[name].ssh)

    def change_host_key(self, name: str) -> None:
        """Give a host another SSH key, as after a new installation, or an attack."""
        self.stop_host(name)
        self.hosts[name].ssh.make_key()
        self.start_host(name)

    def relay(self, name: str, delay: float) -> Relay:
        """A relay to a host's SSH port that delays `delay` seconds each way; start it, stop it when done."""
        return Relay(self.hosts[name].ssh.port, delay)

    def add_statuses(self, name: str, count: int, seed: int = 7) -> None:
        """Let a host's database grow by `count` posts of about 700 bytes with their indexes. Raises `ServerFailed`."""
        host = self.hosts[name]
        # As superuser, so that no foreign key is looked up for each row: they are right as they are made.
        script = f"SET session_replication_role = replica;\n{add_statuses_sql(count, seed, host.plan.domain)}"
        self.postgres.run_sql(script, host.database.name)

    def damage(self, name: str, asset: Asset = Asset.DATABASE) -> str:
        """Lose an asset of a host (the database loses its posts); returns what was done. See `lab.damage`."""
        return damage(self.hosts[name], asset)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _servers(self) -> SshServers:
        if self._ssh is None:
            raise RuntimeError("the lab is not running")
        return self._ssh

    def _build(self) -> None:
        if self._claim is None:
            raise RuntimeError("the directory is not claimed")
        self._processes = Processes(self.mark, hold=(self._claim.lock,))
        if self._temporary:
            self._processes.delete_at_end(self.directory)
        self._say(f"starting PostgreSQL, Redis and S3 for {len(self._plans)} hosts")
        self._start_servers()
        self._say("making databases, files and queues")
        self._make_client_key()
        self._make_hosts()
        self._say("starting the SSH servers")
        self._start_ssh()
        self._boot([host for host in self.hosts.values() if not host.plan.offline])
        write_configuration(self, s3_vault=self._s3_vault)
        self._end_of_build()

    def _end_of_build(self) -> None:
        if self._history:
            from backends.lab import history

            history.seed_history(self, self._say)
        for host in self.hosts.values():
            if host.plan.offline:
                self.stop_host(host.name)
        if self._history:
            history.notice_absence(self)
        for host in self.hosts.values():
            host.ssh.rate = host.plan.rate

    def _start_servers(self) -> None:
        processes = self._running()
        self.postgres = PostgresServer(self.directory / "postgres", processes)
        work: list[Callable[[], None]] = [self.postgres.start]
        if self._s3_vault or any(plan.bucket for plan in self._plans):
            self.bucket = BucketServer(self.directory / "s3", processes)
            work.append(self.bucket.start)
        if any(plan.cheap for plan in self._plans):
            self._shared_redis = RedisServer(self.directory / "redis", processes)
            work.append(self._shared_redis.start)
        _all_of(work)

    def _make_client_key(self) -> None:
        place = self.directory / "client"
        place.mkdir(mode=0o700)
        key = asyncssh.generate_private_key("ssh-ed25519", comment="mastovault lab")
        (place / "id_ed25519").touch(mode=0o600)
        key.write_private_key(str(place / "id_ed25519"))
        key.write_public_key(str(place / "authorized_keys"))
        tree.make_tools(self.directory / "tools")

    def _make_hosts(self) -> None:
        processes = self._running()
        self._control = Control(self.directory, processes, self._answer)
        common = Common(
            directory=self.directory,
            processes=processes,
            postgres=self.postgres,
            redis=self._shared_redis,
            bucket=self.bucket,
            control=self._control.path,
            password=secrets.token_hex(12),
            services=self._services,
        )
        for plan in self._plans:
            self.hosts[plan.name] = new_host(common, plan)
        many = record_encryption_keys()
        cheap = [host for host in self.hosts.values() if host.plan.cheap]
        # An empty host's servers take longest.
        whole = sorted(
            (host for host in self.hosts.values() if not host.plan.cheap), key=lambda each: not each.plan.empty
        )
        work = [partial(fill_host, common, host, record_encryption_keys()) for host in whole]
        work += [partial(fill_host, common, host, many, template=True) for host in cheap[:1]]
        _all_of(work)
        clones = [host.database for host in cheap[1:]]
        work = [partial(fill_host, common, host, many, template=False) for host in cheap[1:]]
        work += [
            partial(clone_database, self.postgres, cheap[0].database.name, clones[part::_CLONERS])
            for part in range(_CLONERS)
            if clones
        ]
        _all_of(work)

    def _boot(self, hosts: list[LabHost]) -> None:
        """Start the units of hosts that were not started before; of those without settings only the servers."""
        fresh = [host for host in hosts if not host.booted]
        for host in fresh:
            host.booted = True
            host.systemd.boot(None if not host.plan.empty else (POSTGRES, REDIS))
        for host in fresh:
            if self._services and not (host.plan.cheap or host.plan.empty) and not wait_until_well(host):
                raise ServerFailed(f"the services of {host.name} do not answer")

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What a command on a host, or `mastovault demo --damage`, is told."""
        host = self.hosts.get(str(question["host"]))
        if host is None:
            return {"error": f"the demo has no host {question['host']}: it has {', '.join(self.hosts)}"}
        if "damage" in question:
            try:
                return {"done": damage(host, Asset(question["damage"]))}
            except MastovaultError as error:
                return {"error": error.sentence}
        return asdict(systemctl(host.systemd, [str(word) for word in question["systemctl"]]))

    def _start_ssh(self) -> None:
        self._ssh = SshServers()
        for host in self.hosts.values():
            self._ssh.start(host.ssh)
            host.online = True
        write_ssh_files(self)

    def _running(self) -> Processes:
        if self._processes is None:
            raise RuntimeError("the lab is not running")
        return self._processes


def _all_of(work: Iterable[Callable[[], None]]) -> None:
    """Do all at once, some at a time; the first error wins after all have ended."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(step) for step in work]:
            done.result()
