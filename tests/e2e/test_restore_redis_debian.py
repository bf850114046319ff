"""Redis restored on a real Debian: its own unit, its own user, over SSH as somebody who may use sudo."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from backends.archive.keys import load_identities
from backends.archive.reader import read_manifest
from backends.config.load import load
from backends.connection.open import open_connection
from backends.model import Asset
from backends.restore.base import Work
from backends.restore.plan import RestoreRequest
from backends.restore.redis import PART
from backends.restore.source import Source
from backends.restore.target import find_target
from backends.vault.open import open_vault
from tests.integration.redis_restores import MARK, MemoryOfSteps
from tests.servers.backup import WatchedJob
from tests.servers.debian import Debian
from tests.servers.debian_world import World

REDIS = "/var/lib/redis"


@contextmanager
def prepared(world: World) -> Iterator[Work]:
    """What a step of a restore has at hand, over SSH and sudo."""
    config = load(world.operator.config)
    vault = open_vault("local", config.vaults["local"])
    snapshot = world.snapshots["redis"]["snapshot"]
    identities = load_identities(world.operator.home / "identity.age", lambda _: None)
    source = Source(manifest=read_manifest(vault, snapshot), vaults=[vault], identities=identities)
    request = RestoreRequest(id=MARK, host="social", snapshots={Asset.REDIS: snapshot}, at=datetime.now(UTC))
    with open_connection("social", config.hosts["social"]) as connection:
        found = find_target(connection, config.hosts["social"], request, {Asset.REDIS: source})
        yield Work(
            request=request,
            target=found,
            sources={Asset.REDIS: source},
            job=WatchedJob(),
            memory=MemoryOfSteps(),
        )


@contextmanager
def without_mastodon(world: World) -> Iterator[None]:
    """As the services' part leaves it."""
    host = world.host
    host.run("systemctl stop 'mastodon-*.service'")
    try:
        yield
    finally:
        host.run("systemctl start mastodon-web mastodon-streaming mastodon-sidekiq")
        until = time.monotonic() + 20
        while not world.mastodon.healthy() and time.monotonic() < until:
            time.sleep(0.05)


_LASTING = """
local count = 0
for _, key in ipairs(redis.call("KEYS", "*")) do
  if redis.call("TTL", key) == -1 then count = count + 1 end
end
return count
"""


def lasting(host: Debian) -> int:
    """Keys that do not go away by themselves."""
    return int(host.redis("EVAL", _LASTING, "0"))


@pytest.mark.parametrize("aof", [False, True], ids=["rdb", "aof"])
def test_debian_s_own_redis(world: World, monkeypatch: pytest.MonkeyPatch, aof: bool) -> None:
    monkeypatch.setenv("HOME", str(world.operator.home))  # where the host's key is known
    host = world.host
    jobs, keys = host.redis("LLEN", "queue:default"), lasting(host)
    config = host.run("sha256sum </etc/redis/redis.conf; stat -c '%a %U:%G' /etc/redis/redis.conf")
    with without_mastodon(world), prepared(world) as work:
        if aof:
            host.run("sed -i 's/^appendonly no/appendonly yes/' /etc/redis/redis.conf")
            host.redis("CONFIG", "SET", "appendonly", "yes")
            host.run("until redis-cli INFO persistence | grep -q aof_rewrite_in_progress:0; do sleep 0.05; done")
        edited = host.run("sha256sum </etc/redis/redis.conf; stat -c '%a %U:%G' /etc/redis/redis.conf")
        host.redis("FLUSHALL")
        host.redis("SET", "only", "now")
        looked = PART.look(work.request, work.target, work.sources)
        assert looked.facts, looked.findings
        actions = PART.actions(work.request, looked.facts)
        for action in actions:
            action.do(work)
        assert host.redis("LLEN", "queue:default") == jobs
        assert abs(lasting(host) - keys) <= 2
        assert host.redis("EXISTS", "only") == "0"
        assert host.run(f"stat -c '%a %U:%G' {REDIS}/dump.rdb").strip() == "660 redis:redis"
        assert host.run("sha256sum </etc/redis/redis.conf; stat -c '%a %U:%G' /etc/redis/redis.conf") == edited
        host.run("systemctl restart redis-server")
        assert host.redis("LLEN", "queue:default") == jobs
        assert host.redis("CONFIG", "GET", "appendonly").split()[-1] == ("yes" if aof else "no")

        work.way = "undo"
        for action in reversed(actions):
            action.undo(work)
        assert host.redis("GET", "only") == "now"
        host.run("systemctl restart redis-server")
        assert host.redis("GET", "only") == "now"
        for action in actions:
            action.forget(work)
        assert MARK not in host.run(f"ls -A {REDIS} /etc/redis")

        # Back to what the other tests find.
        work.way = "rollback"
        work.memory = MemoryOfSteps()
        for action in actions:
            action.do(work)
        for action in actions:
            action.forget(work)
        if aof:
            host.run("sed -i 's/^appendonly yes/appendonly no/' /etc/redis/redis.conf")
            host.redis("CONFIG", "SET", "appendonly", "no")
            host.run(f"rm -r {REDIS}/appendonlydir")
    assert host.run("sha256sum </etc/redis/redis.conf; stat -c '%a %U:%G' /etc/redis/redis.conf") == config
