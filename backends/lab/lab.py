"""The embedded fleet: real SSH, PostgreSQL, Redis and S3 servers with Mastodon's files and data, in one directory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncssh

from backends.config.paths import Paths
from backends.embedded import keeper
from backends.embedded.postgres import PostgresServer
from backends.embedded.processes import Processes, ServerFailed
from backends.embedded.redis_server import RedisServer
from backends.embedded.redis_server import software as redis_software
from backends.lab import tree
from backends.lab.bucket import BucketServer
from backends.lab.configuration import write_configuration
from backends.lab.database import DatabaseLogin, add_statuses_sql, clone_database, create_database
from backends.lab.directory import Claim
from backends.lab.environment import record_encryption_keys, settings, written
from backends.lab.feeds import fill
from backends.lab.fleet_plan import STATUSES, HostPlan, plan_fleet
from backends.lab.host import LabHost
from backends.lab.rails_encryption import RailsCipher
from backends.lab.relay import Relay
from backends.lab.ssh import SshHost, SshServers, login_name

_CLONERS = 3


class Lab:
    """A fleet of `hosts` hosts, made from `seed`, with `rows` posts each.

    Use `start` and `stop`, or as a context manager. With `history` it begins with real backups of the past days; a
    `temporary` one's directory is removed at the end, also after a crash.

    Attributes:
        directory: everything is in it.
        paths: configuration, state and cache of this fleet.
        hosts: by name, in order: `social`, `art`, `club`, `lan` (offline), `host005`...
        postgres: the database server of all hosts.
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
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.config_file = self.directory / "config.toml"
        self.paths = Paths(self.config_file, self.directory / "state", self.directory / "cache")
        self.mark = secrets.token_hex(8)
        self.hosts: dict[str, LabHost] = {}
        self.postgres: PostgresServer
        self.bucket: BucketServer | None = None
        self._plans = plan_fleet(hosts, seed, rows, demo=history)
        self._history = history
        self._temporary = temporary
        self._say = say or (lambda _text: None)
        self._claim: Claim | None = None
        self._processes: Processes | None = None
        self._ssh: SshServers | None = None
        self._shared_redis: RedisServer | None = None

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
        write_configuration(self)
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
        if any(plan.bucket for plan in self._plans):
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
        many = record_encryption_keys()
        password = secrets.token_hex(12)
        for plan in self._plans:
            self.hosts[plan.name] = self._new_host(plan, password)
        cheap = [host for host in self.hosts.values() if host.plan.cheap]
        whole = [host for host in self.hosts.values() if not host.plan.cheap]
        work = [partial(self._fill_host, host, record_encryption_keys()) for host in whole]
        work += [partial(self._fill_host, host, many, template=True) for host in cheap[:1]]
        _all_of(work)
        clones = [host.database for host in cheap[1:]]
        work = [partial(self._fill_host, host, many, template=False) for host in cheap[1:]]
        work += [
            partial(clone_database, self.postgres, cheap[0].database.name, clones[part::_CLONERS])
            for part in range(_CLONERS)
            if clones
        ]
        _all_of(work)

    def _new_host(self, plan: HostPlan, password: str) -> LabHost:
        directory = self.directory / "hosts" / plan.name
        (directory / "home/mastodon").mkdir(parents=True)
        (directory / "etc/ssh").mkdir(parents=True)
        redis = self._shared_redis if plan.cheap else RedisServer(directory / "var/lib/redis", self._running())
        if redis is None:
            raise RuntimeError("the shared Redis is missing")
        programs = directory / "usr/bin"
        ssh = SshHost(
            name=plan.name,
            home=directory / "home/mastodon",
            environment=tree.environment(
                home=directory / "home/mastodon",
                programs=programs,
                tools=self.directory / "tools",
                user=login_name(),
                extra={keeper.VARIABLE: self.mark},
            ),
            host_key=directory / "etc/ssh/ssh_host_ed25519_key",
            authorized_keys=self.directory / "client/authorized_keys",
        )
        ssh.hold()
        ssh.make_key()
        login = DatabaseLogin(
            host=str(self.postgres.socket_dir) if plan.socket else "127.0.0.1",
            port=self.postgres.port,
            name=f"{plan.name}_production",
            user="mastodon_many" if plan.cheap else f"mastodon_{plan.name}",
            password=password if plan.cheap else secrets.token_hex(12),
        )
        return LabHost(plan, directory, ssh, redis, login, plan.population())

    def _fill_host(self, host: LabHost, keys: dict[str, str], *, template: bool = True) -> None:
        plan = host.plan
        bucket = self.bucket if plan.bucket else None
        host.settings = settings(plan, host.database, host.redis, keys, bucket)
        tree.make_mastodon(host.root, plan, written(host.settings))
        tree.make_programs(
            host.directory / "usr/bin", postgres=self.postgres.bin, redis=redis_software(), state=host.directory / "run"
        )
        tree.make_state(host.directory / "run", plan, login_name(), host.root)
        media = bucket.make(host.settings["S3_BUCKET"]) if bucket else host.root / "public/system"
        tree.make_media(media, plan, host.population)
        if template:
            cipher = RailsCipher(
                keys["ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"], keys["ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT"]
            )
            create_database(self.postgres, plan, host.database, host.population, cipher)
            if not plan.cheap:
                host.redis.start()
            with host.redis.client() as client:
                fill(client, host.population, plan.seed)
                client.save()

    def _start_ssh(self) -> None:
        self._ssh = SshServers()
        for name in self.hosts:
            self.start_host(name)
        known = self.directory / "client/known_hosts"
        known.write_text("".join(host.ssh.known_hosts_line for host in self.hosts.values()))

    def _running(self) -> Processes:
        if self._processes is None:
            raise RuntimeError("the lab is not running")
        return self._processes


def _all_of(work: Iterable[Callable[[], None]]) -> None:
    """Do all at once, some at a time; the first error wins after all have ended."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(step) for step in work]:
            done.result()
