"""Restores on a Debian host with systemd through sudo: damaged, restored in place, undone, restored again."""

from __future__ import annotations

import json
import os

import pytest

from tests.servers.debian_mastodon import ROOT
from tests.servers.debian_world import World, watched

pytestmark = [pytest.mark.apt, pytest.mark.root, pytest.mark.timeout(400)]

_DOWNTIME = 10.0
_ENV = f"{ROOT}/.env.production"

EVERY = bool(os.environ.get("MASTOVAULT_TEST_EVERY_STEP"))
"""Each of these takes half a minute, and the lab tries the same in each way."""


def test_a_dropped_table_comes_back(world: World) -> None:
    operator, mastodon = world.operator, world.mastodon
    world.host.sql("SET ROLE mastodon; DROP TABLE statuses CASCADE")
    assert mastodon.counts()["statuses"] == -1
    assert not mastodon.answers()

    plan = json.loads(operator.must("restore", "social/database", "--plan", "--json"))
    assert plan["confirm"] == "social/database"
    assert [finding for finding in plan["findings"] if finding["level"] == "block"] == []
    assert any("pg_restore" in command for step in plan["steps"] for command in step["commands"])
    refused = operator.results("restore", "social/database", "--confirm", "social")["database"]
    assert refused["result"] == "failed"
    assert "social/database" in refused["error"]
    assert world.leftovers() == []

    with watched(mastodon) as watch:
        operator.done("restore", "social/database", "--confirm", "social/database")
    assert mastodon.counts() == world.good.counts
    assert mastodon.healthy()
    assert watch.longest < _DOWNTIME
    assert len(kept := [name for name in mastodon.databases() if "_before_" in name]) == 1
    assert world.host.sql("SELECT to_regclass('public.statuses') IS NULL", kept[0]) == "t"
    assert world.host.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "mastodon"

    with watched(mastodon) as watch:
        world.undo()
    assert mastodon.counts() == {**world.good.counts, "statuses": -1}
    assert mastodon.states() == dict.fromkeys(mastodon.states(), "active")
    assert watch.longest < _DOWNTIME

    operator.done("restore", "social/database", "--confirm", "social/database")
    assert mastodon.counts() == world.good.counts
    world.forget_all()
    assert world.leftovers() == []
    assert world.pristine()


def test_secrets_come_back_with_mode_and_owner(world: World) -> None:
    operator, mastodon, host = world.operator, world.mastodon, world.host
    host.run(f"sed -i -e s/^SECRET_KEY_BASE=.*/SECRET_KEY_BASE=gone/ -e /^VAPID/d {_ENV}; echo NEW=1 >>{_ENV}")
    host.run(f"chmod 644 {_ENV}; chown root: {_ENV}")
    damaged = world.state()

    plan = operator.must("restore", "social/secrets", "--plan")
    assert "VAPID_PRIVATE_KEY" in plan
    operator.done("restore", "social/secrets", "--confirm", "social/secrets")
    assert world.state() == world.good
    assert mastodon.healthy()

    world.undo()
    assert world.state() == damaged
    operator.done("restore", "social/secrets", "--confirm", "social/secrets")
    world.forget_all()
    assert world.pristine()


def test_media_come_back_and_newer_files_stay(world: World) -> None:
    operator, mastodon, host = world.operator, world.mastodon, world.host
    system = f"{ROOT}/public/system"
    hidden = next(path for path, (mode, *_) in world.good.media.items() if mode == "600" and "cache" not in path)
    other = next(path for path, (mode, *_) in world.good.media.items() if mode == "644" and "cache" not in path)
    host.run(f'cd {system}; rm "$1"; echo broken >"$2"; chmod 600 "$2"; rm -r accounts', hidden, other)
    newer = "media_attachments/files/999/original/new.png"
    host.run(f'cd {system}; mkdir -p "${{1%/*}}"; echo new >"$1"', newer, user="mastodon")
    damaged = mastodon.media()

    with watched(mastodon) as watch:
        operator.done("restore", "social/media", "--confirm", "social/media")
    assert mastodon.media() == {**world.good.media, newer: ("644", "mastodon:mastodon", 4)}
    assert watch.longest < 1.0, "media come back while the site is up"
    folders = host.run(f"find {system} -type d -printf '%u:%g %m\\n' | sort -u").splitlines()
    assert folders == ["mastodon:mastodon 755"]

    world.undo()
    assert mastodon.media() == damaged
    operator.done("restore", "social/media", "--confirm", "social/media", "--path", "accounts")
    assert {path for path in world.good.media if path.startswith("accounts/")} <= set(mastodon.media())
    assert hidden not in mastodon.media()
    operator.done("restore", "social/media", "--confirm", "social/media")
    host.run(f'cd {system}; rm -r "${{1%%/original/*}}"', newer)
    world.forget_all()
    assert world.pristine()


@pytest.mark.parametrize("aof", [False, True] if EVERY else [True], ids=["aof-off", "aof-on"] if EVERY else ["aof-on"])
def test_redis_comes_back(world: World, aof: bool) -> None:
    operator, mastodon, host = world.operator, world.mastodon, world.host
    if aof:
        host.redis("CONFIG", "SET", "appendonly", "yes")
        host.redis("CONFIG", "REWRITE")
    host.redis("FLUSHALL")
    assert world.state().redis != world.good.redis

    with watched(mastodon) as watch:
        operator.done("restore", "social/redis", "--confirm", "social/redis")
    assert world.state() == world.good
    assert mastodon.healthy()
    assert watch.longest < _DOWNTIME
    assert host.redis("CONFIG", "GET", "appendonly").split()[1] == ("yes" if aof else "no")
    # A restart is where a restored RDB is lost to an AOF that does not know of it.
    host.run("systemctl restart redis-server")
    assert world.state() == world.good
    assert host.run("stat -c %U:%G /var/lib/redis/dump.rdb").strip() == "redis:redis"

    world.undo()
    assert world.state().redis != world.good.redis
    assert host.redis("CONFIG", "GET", "appendonly").split()[1] == ("yes" if aof else "no")
    operator.done("restore", "social/redis", "--confirm", "social/redis")
    world.forget_all()
    assert world.state() == world.good
    if aof:
        host.redis("CONFIG", "SET", "appendonly", "no")
        host.redis("CONFIG", "REWRITE")
        host.run("rm -rf /var/lib/redis/appendonlydir")
    assert world.pristine()


def test_a_whole_host_comes_back(world: World) -> None:
    operator, mastodon, host = world.operator, world.mastodon, world.host
    host.sql("SET ROLE mastodon; DROP TABLE statuses, accounts CASCADE")
    host.run(f"rm -r {ROOT}/public/system/media_attachments; sed -i /^SECRET_KEY_BASE/d {_ENV}")
    host.redis("FLUSHALL")
    damaged = world.state()

    with watched(mastodon) as watch:
        results = operator.done("restore", "social", "--confirm", "social")
    assert list(results) == ["database", "secrets", "media", "redis"]
    after = world.state()
    assert (after.counts, after.media, after.settings) == (world.good.counts, world.good.media, world.good.settings)
    assert after.redis[:-1] == world.good.redis[:-1]
    assert mastodon.healthy()
    assert watch.longest < _DOWNTIME

    world.undo()
    undone = world.state()
    assert (undone.counts, undone.media, undone.settings) == (damaged.counts, damaged.media, damaged.settings)
    world.forget_all()
    assert world.leftovers() == []


def test_redis_can_start_empty_and_feeds_are_built(world: World) -> None:
    operator, host = world.operator, world.host
    operator.done("restore", "social", "--only", "database", "--redis", "empty", "--confirm", "social")
    assert host.redis("LLEN", "queue:push") == "0"
    feeds = host.run("redis-cli --scan --pattern 'feed:home:*' | wc -l").strip()
    assert int(feeds) > 0
    assert world.mastodon.healthy()
    world.undo()
    world.forget_all()
    assert world.state().redis == world.good.redis
    assert world.leftovers() == []
