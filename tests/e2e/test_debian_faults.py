"""Bad days on a Debian host with systemd: what hangs, dies or will not stop while a restore is at work."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.debian_mastodon import ROOT
from tests.servers.debian_world import World, watched

pytestmark = [pytest.mark.apt, pytest.mark.root, pytest.mark.timeout(400)]

_DATABASE = ("social/database", "--confirm", "social/database")
_BUSY = """
while true; do
    psql -Xq -d mastodon_production -c "BEGIN; SELECT count(*) FROM accounts; SELECT pg_sleep(60)" || sleep 0.05
done
"""

EVERY = bool(os.environ.get("MASTOVAULT_TEST_EVERY_STEP"))
"""Each of these takes half a minute, and the lab tries the same in each way."""


def damage(world: World) -> None:
    """What every test here restores from."""
    world.host.sql("ALTER TABLE statuses RENAME TO statuses_lost")


def mend(world: World) -> None:
    """Take the damage back where it still is, so that the next test need not boot a host."""
    world.host.sql("ALTER TABLE IF EXISTS statuses_lost RENAME TO statuses")


def assert_as_damaged(world: World) -> None:
    """The damaged server is up, with what it held, and nothing of a restore is left on it."""
    assert world.mastodon.counts() == {**world.good.counts, "statuses": -1}
    assert set(world.mastodon.states().values()) == {"active"}
    assert world.leftovers() == []
    mend(world)


def assert_restored(world: World) -> None:
    """The restored server is up and whole."""
    assert world.mastodon.counts() == world.good.counts
    assert world.mastodon.healthy()


def test_a_client_that_keeps_the_database_busy(world: World) -> None:
    damage(world)
    world.host.run(f"systemd-run --quiet --unit busy --uid mastodon bash -c '{_BUSY}'")
    try:
        with watched(world.mastodon) as watch:
            world.operator.done("restore", *_DATABASE)
    finally:
        world.host.run("systemctl stop busy; systemctl reset-failed")
    assert_restored(world)
    assert watch.longest < 10
    world.forget_all()
    assert world.pristine()


@contextmanager
def stubborn_sidekiq(world: World, seconds: int) -> Iterator[None]:
    """Sidekiq ignores SIGTERM; systemd kills it after so many seconds."""
    host = world.host
    drop_in = "/etc/systemd/system/mastodon-sidekiq.service.d/slow.conf"
    host.run(f"install -D -m 644 /dev/stdin {drop_in}", stdin=f"[Service]\nTimeoutStopSec={seconds}\n".encode())
    host.run(f"systemctl daemon-reload; touch {ROOT}/tmp/stubborn; systemctl restart mastodon-sidekiq")
    ignores = "grep -qE 'SigIgn:.*[4567cdef]...$' /proc/$(systemctl show -P MainPID mastodon-sidekiq)/status"
    host.run(f"for _ in $(seq 100); do {ignores} && exit; sleep 0.1; done; exit 1")
    try:
        yield
    finally:
        host.run(f"rm -rf {drop_in.rpartition('/')[0]} {ROOT}/tmp/stubborn; systemctl daemon-reload")
        host.run("systemctl kill -s KILL mastodon-sidekiq || true; systemctl restart mastodon-sidekiq")


def test_a_service_that_is_slow_to_stop(world: World) -> None:
    damage(world)
    with stubborn_sidekiq(world, 12), watched(world.mastodon) as watch:
        world.operator.done("restore", *_DATABASE)
    assert_restored(world)
    assert watch.longest < 10, "the site waits for Sidekiq"
    world.forget_all()
    assert world.pristine()


def test_cancelled_while_a_service_does_not_stop(world: World) -> None:
    damage(world)
    with stubborn_sidekiq(world, 20), watched(world.mastodon) as watch:
        begun = world.begin(*_DATABASE)
        begun.await_step("services.stop")
        world.host.run("until systemctl is-active mastodon-sidekiq | grep -q deactivating; do sleep 0.1; done")
        world.operator.must("cancel", begun.run()["run"])
        code, out, err = begun.end()
    assert code != 0
    assert "cancelled" in out + err
    assert watch.longest < 2, "the site was not to be stopped yet"
    assert_as_damaged(world)


def test_no_room_is_said_before_anything_begins(world: World) -> None:
    host = world.host
    free = int(host.run("df --output=avail -B1 /var | tail -n 1"))
    host.run(f"fallocate -l {free - 6_000_000} /var/fill")
    try:
        done = world.operator.run("restore", "social/database", "--plan", "--json")
        findings = [finding["text"] for finding in json.loads(done.stdout)["findings"] if finding["level"] == "block"]
        assert done.returncode == 1
        assert findings
        result = world.operator.results("restore", *_DATABASE)["database"]
        assert result["result"] == "failed"
        # The machine's own services write on meanwhile, so the free space differs a little from look to look.
        assert _uncounted(findings[0]) in _uncounted(result["error"])
    finally:
        host.run("rm /var/fill")
    assert world.pristine()


def _uncounted(sentence: str) -> str:
    return re.sub(r"has [\d.]+ [KMGT]?i?B free", "has … free", sentence)


@pytest.mark.parametrize("step", ["database.load", "database.swap"])
def test_the_connection_is_cut(world: World, step: str) -> None:
    damage(world)
    begun = world.begin(*_DATABASE)
    begun.await_step(step)
    world.host.relay.cut()
    code, out, err = begun.end()
    assert code == 0, out + err
    assert_restored(world)
    world.forget_all()
    assert world.pristine()


def test_cancelled_while_it_stages(world: World) -> None:
    damage(world)
    begun = world.begin(*_DATABASE)
    begun.await_step("database.load")
    world.host.relay.hold()
    try:
        second = world.operator.run("restore", *_DATABASE, "--json")
        assert second.returncode == 11, second
        world.operator.must("cancel", begun.run()["run"])
    finally:
        world.host.relay.go_on()
    code, out, err = begun.end()
    assert code != 0
    assert "cancelled" in out + err
    assert_as_damaged(world)


@pytest.mark.parametrize(
    ("step", "way"),
    [
        *([("database.load", "--roll-back"), ("database.swap", "--roll-back")] if EVERY else []),
        ("database.swap", "--resume"),
    ],
)
def test_killed_in_the_middle(world: World, step: str, way: str) -> None:
    damage(world)
    begun = world.begin(*_DATABASE)
    begun.await_step(step)
    begun.kill()
    record = world.restores()[0]
    assert record["state"] == "interrupted"
    assert {"resume", "rollback"} <= set(record["can"])
    # Whoever forgets it and begins anew is told.
    world.operator.done("restore", way, begun.id)
    if way == "--resume":
        assert_restored(world)
        world.forget_all()
        assert world.pristine()
    else:
        assert_as_damaged(world)
