"""How one host of the lab is made: its directory, its servers, its files, its database and queues."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from backends.embedded import keeper
from backends.embedded.ports import free_port
from backends.embedded.postgres import PostgresServer
from backends.embedded.processes import Processes
from backends.embedded.redis_server import RedisServer
from backends.embedded.redis_server import software as redis_software
from backends.lab import tree
from backends.lab.bucket import BucketServer
from backends.lab.database import DatabaseLogin, create_database
from backends.lab.environment import settings, written
from backends.lab.feeds import fill
from backends.lab.fleet_plan import HostPlan
from backends.lab.host import LabHost
from backends.lab.rails_encryption import RailsCipher
from backends.lab.services import make_systemd
from backends.lab.ssh import SshHost, login_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all hosts of a lab share."""

    directory: Path
    processes: Processes
    postgres: PostgresServer
    redis: RedisServer | None
    """Of the cheap hosts."""
    bucket: BucketServer | None
    control: Path
    """The socket that a host's systemctl asks."""
    password: str
    """Of the role that the cheap hosts share."""
    services: bool
    """Whether Mastodon's programs run on the hosts."""


def new_host(common: Common, plan: HostPlan) -> LabHost:
    """A host with its keys, its ports and its servers, none of which runs yet."""
    directory = common.directory / "hosts" / plan.name
    for place in ("home/mastodon", "etc/ssh", "run"):
        (directory / place).mkdir(parents=True)
    redis = common.redis if plan.cheap else None
    config = directory / "etc/redis/redis.conf"
    redis = redis or RedisServer(directory / "var/lib/redis", common.processes, config)
    postgres = common.postgres
    if plan.empty:
        postgres = PostgresServer(directory / "postgres", common.processes, operator=login_name())
    ssh = SshHost(
        name=plan.name,
        home=directory / "home/mastodon",
        environment=tree.environment(
            home=directory / "home/mastodon",
            programs=directory / "usr/bin",
            tools=common.directory / "tools",
            user=login_name(),
            extra={keeper.VARIABLE: common.processes.mark},
        ),
        host_key=directory / "etc/ssh/ssh_host_ed25519_key",
        authorized_keys=common.directory / "client/authorized_keys",
    )
    ssh.hold()
    ssh.make_key()
    ports = (free_port(), free_port())
    real = common.services and not plan.cheap
    return LabHost(
        plan=plan,
        directory=directory,
        ssh=ssh,
        postgres=postgres,
        redis=redis,
        database=_login(common, plan, postgres),
        population=plan.population(),
        systemd=make_systemd(plan, directory, redis, common.processes, ports=ports, real=real),
        web_port=ports[0],
        streaming_port=ports[1],
    )


def _login(common: Common, plan: HostPlan, postgres: PostgresServer) -> DatabaseLogin:
    """How Mastodon reaches its database; on an empty host nothing of it is there yet."""
    if plan.empty:
        return DatabaseLogin(str(postgres.socket_dir), postgres.port, "mastodon_production", "mastodon", "")
    return DatabaseLogin(
        host=str(postgres.socket_dir) if plan.socket else "127.0.0.1",
        port=postgres.port,
        name=f"{plan.name}_production",
        user="mastodon_many" if plan.cheap else f"mastodon_{plan.name}",
        password=common.password if plan.cheap else secrets.token_hex(12),
    )


def fill_host(common: Common, host: LabHost, keys: dict[str, str], *, template: bool = True) -> None:
    """Give a host its files and, as its own or as the `template` of others, its database and queues."""
    plan = host.plan
    tree.make_programs(
        host.directory / "usr/bin",
        host.home,
        host.name,
        postgres=host.postgres.bin,
        redis=redis_software(),
        control=common.control,
    )
    if plan.empty:
        tree.make_mastodon(host.root, plan, None)
        host.postgres.start()
        host.redis.start()
        return
    bucket = common.bucket if plan.bucket else None
    host.settings = settings(plan, host.database, host.redis, keys, bucket)
    tree.make_mastodon(host.root, plan, written(host.settings))
    media = bucket.make(host.settings["S3_BUCKET"]) if bucket else host.root / "public/system"
    tree.make_media(media, plan, host.population)
    if template:
        cipher = RailsCipher(
            keys["ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"], keys["ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT"]
        )
        create_database(common.postgres, plan, host.database, host.population, cipher)
        if not plan.cheap:
            host.redis.start()
        with host.redis.client() as client:
            fill(client, host.population, plan.seed)
            client.save()
