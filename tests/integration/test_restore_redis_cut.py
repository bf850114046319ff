"""The connection is lost between any two commands of a restore of Redis: it answers with the old or the new data."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.connection.base import Connection
from backends.errors import ConnectionFailed
from backends.restore.base import Way
from tests.integration.redis_restores import MARK, SETTINGS, Cut, Restore, Store, fill, tag_of
from tests.servers.backup import local_host
from tests.servers.redis_unit import RedisUnit


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[RedisUnit]:
    with tempfile.TemporaryDirectory(prefix="mastovault-redis-") as name:
        made = RedisUnit(Path(name), settings=request.param)
        monkeypatch.setenv("PATH", f"{made.bin}:/usr/sbin:/usr/bin:/sbin:/bin")
        with made:
            yield made


BOTH = pytest.mark.parametrize("unit", [(), SETTINGS], ids=["rdb", "aof"], indirect=True)


@BOTH
def test_cut_on_the_way_there(host: Connection, unit: RedisUnit, tmp_path: Path) -> None:
    """At every other cut the machine is started anew before somebody goes on, and half of them are rolled back."""
    store = Store(tmp_path)
    fill(unit, "then")
    source = store.back_up(unit.place())
    fill(unit, "now")
    original = unit.config.read_text()
    for after in itertools.count():
        restore = Restore(host, source, unit.place())
        stage, swap = restore.actions()
        stage.do(restore.work())
        cut = Cut(host, after)
        with contextlib.suppress(ConnectionFailed):
            swap.do(restore.work(cut))
        if after % 2:
            unit.restart()
        if unit.systemctl("is-active", unit.UNIT) == 0:
            assert tag_of(unit) in {"now", "then"}, after
        if after // 2 % 2:
            swap.do(restore.work())
            assert tag_of(unit) == "then", after
            assert unit.config.read_text() == original
            unit.restart()
            assert tag_of(unit) == "then", after
        restore.undo([stage, swap], "rollback")
        assert tag_of(unit) == "now", after
        assert unit.config.read_text() == original
        assert not [name for name in unit.names() if MARK in name], after
        if not cut.was_cut:
            break
    assert after > 10


@BOTH
def test_cut_on_the_way_back(host: Connection, unit: RedisUnit, tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(unit, "then")
    source = store.back_up(unit.place())
    fill(unit, "now")
    original = unit.config.read_text()
    for after in itertools.count():
        restore = Restore(host, source, unit.place())
        stage, swap = restore.actions()
        restore.do([stage, swap])
        cut = Cut(host, after)
        way: Way = "undo" if after // 2 % 2 else "rollback"
        with contextlib.suppress(ConnectionFailed):
            swap.undo(restore.work(cut, way=way))
        if after % 2 or unit.systemctl("is-active", unit.UNIT) == 0:
            unit.start()
            assert tag_of(unit) in {"now", "then"}, after
        restore.undo([stage, swap], way)
        assert tag_of(unit) == "now", after
        assert unit.config.read_text() == original
        left = {name for name in unit.names() if MARK in name}
        assert (f"dump.rdb.undone-{MARK}" in left) == (way == "undo"), after
        restore.forget([stage, swap])
        assert not [name for name in unit.names() if MARK in name], after
        unit.restart()
        assert tag_of(unit) == "now", after
        if not cut.was_cut:
            break
    assert after > 6


@BOTH
def test_a_cut_before_anything_leaves_it_running(host: Connection, unit: RedisUnit, tmp_path: Path) -> None:
    """A step that never began can be taken back, too: Redis is not even stopped."""
    store = Store(tmp_path)
    fill(unit, "now")
    restore = Restore(host, store.back_up(unit.place()), unit.place())
    actions = restore.actions()
    run_id = unit.client().info("server")["run_id"]
    restore.undo(actions, "rollback")
    assert unit.client().info("server")["run_id"] == run_id
    assert tag_of(unit) == "now"
