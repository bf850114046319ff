"""Redis restored onto a real redis-server that a unit runs: there, back, and given up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.connection.base import Connection
from backends.restore.plan import Phase
from tests.integration.redis_restores import MARK, SETTINGS, Restore, Store, fill, tag_of
from tests.servers.backup import local_host
from tests.servers.redis_unit import PASSWORD, RedisUnit


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="mastovault-redis-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def unit_in(directory: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> RedisUnit:
    unit = RedisUnit(directory, settings=settings)
    monkeypatch.setenv("PATH", f"{unit.bin}:/usr/sbin:/usr/bin:/sbin:/bin")
    return unit


@pytest.mark.parametrize("settings", [(), SETTINGS], ids=["rdb", "aof"])
def test_there_back_and_forgotten(
    host: Connection, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    with unit_in(directory, monkeypatch, *settings) as unit:
        fill(unit, "then")
        source = store.back_up(unit.place())
        fill(unit, "now")
        original = unit.config.read_text()
        restore = Restore(host, source, unit.place(), unit.place("sidekiq"))
        actions = restore.actions()
        assert [action.info.id for action in actions] == ["redis.stage", "redis.swap"]
        assert [action.info.phase for action in actions] == [Phase.STAGE, Phase.SWAP]
        actions[0].do(restore.work())
        assert tag_of(unit) == "now"
        assert f".mastovault-restore-{MARK}.rdb" in unit.names()
        actions[1].do(restore.work())
        assert tag_of(unit) == "then"
        assert unit.config.read_text() == original
        assert f"dump.rdb.before-{MARK}" in unit.names()
        assert (unit.dump.owner(), unit.dump.stat().st_mode & 0o777) == (unit.user, 0o660)
        unit.restart()
        assert tag_of(unit) == "then"
        assert restore.job.warnings == []
        assert PASSWORD not in repr(restore.job.lines) + repr(restore.memory.notes) + repr(actions)

        fill(unit, "later")
        restore.undo(actions, "undo")
        assert tag_of(unit) == "now"
        assert f"dump.rdb.undone-{MARK}" in unit.names()
        assert f"dump.rdb.before-{MARK}" not in unit.names()
        unit.restart()
        assert tag_of(unit) == "now"
        assert b"later" in (unit.data / f"dump.rdb.undone-{MARK}").read_bytes()

        restore.forget(actions)
        assert not [name for name in unit.names() if MARK in name]
        assert unit.config.read_text() == original


@pytest.mark.parametrize("settings", [(), SETTINGS], ids=["rdb", "aof"])
def test_a_rollback_leaves_nothing(
    host: Connection, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    with unit_in(directory, monkeypatch, *settings) as unit:
        fill(unit, "then")
        source = store.back_up(unit.place())
        fill(unit, "now")
        before = unit.names()
        restore = Restore(host, source, unit.place())
        actions = restore.actions()
        restore.do(actions)
        restore.undo(actions, "rollback")
        assert tag_of(unit) == "now"
        assert unit.names() == before | {"dump.rdb"}
