"""Media and Redis from a real OpenSSH server: names, streams in both directions, forwarded sockets, cancel."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.archive.file_index import read_index
from backends.assets.base import BackupContext, Outcome
from backends.assets.media import HANDLER as MEDIA
from backends.assets.redis import HANDLER as REDIS
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.errors import Cancelled, ConnectionFailed
from backends.mastodon.installation import Installation, InstallKind, MediaKind, MediaPlace, RedisPlace
from tests.servers.backup import MemoryWriter, WatchedJob
from tests.servers.need import need
from tests.servers.openssh import OpenSSH
from tests.servers.redis import RedisServer

NAMES = [b"a/new\nline.png", b"a/\xff\xfe.png", b"-dash", b"back\\n 'quote'", b"z"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: unix sockets allow 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mastovault-") as name:
        yield Path(name)


@pytest.fixture
def host(directory: Path) -> Iterator[Connection]:
    with (
        OpenSSH(directory / "sshd") as server,
        open_connection("social", server.host_config()) as connection,
    ):
        yield connection


def back_up(
    host: Connection, *redis: RedisPlace, tree: Path | None = None, job: WatchedJob | None = None
) -> tuple[Outcome, MemoryWriter]:
    place = MediaPlace(kind=MediaKind.LOCAL, path=str(tree))
    found = Installation(
        host="social", kind=InstallKind.NATIVE, root="/live", user=host.login_user, redis=redis, media=place
    )
    writer = MemoryWriter()
    handler = MEDIA if tree else REDIS
    return handler.back_up(BackupContext(connection=host, installation=found, job=job or WatchedJob()), writer), writer


def test_a_media_tree_comes_whole(host: Connection, directory: Path) -> None:
    tree = directory / "system"
    for name in NAMES:
        path = tree / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name * 20_000)
    outcome, writer = back_up(host, tree=tree)
    assert outcome.facts["files"] == len(NAMES)
    with tempfile.TemporaryFile() as file:
        file.write(writer.objects["files.ndjson"])
        file.seek(0)
        entries = list(read_index(file))
    assert [entry.path for entry in entries] == sorted(NAMES)
    for entry in entries:
        pack = writer.objects[f"hosts/social/media/packs/{entry.pack}.tar"]
        assert pack[entry.offset : entry.offset + entry.size] == entry.path * 20_000


def test_cancel_in_the_middle(host: Connection, directory: Path) -> None:
    (directory / "system").mkdir()
    with (directory / "system" / "big.mp4").open("wb") as file:
        file.truncate(300_000_000)
    job = WatchedJob()
    job._at = lambda step, done: job.cancel() if done > 1_000_000 else None
    with pytest.raises(Cancelled):
        back_up(host, tree=directory / "system", job=job)


def test_a_lost_connection_is_said_as_such(host: Connection, directory: Path) -> None:
    (directory / "system").mkdir()
    with (directory / "system" / "big.mp4").open("wb") as file:
        file.truncate(300_000_000)
    job = WatchedJob(lambda step, done: host.close() if done > 1_000_000 else None)
    with pytest.raises(ConnectionFailed):
        back_up(host, tree=directory / "system", job=job)


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("way", ["its file", "redis-cli --rdb", "replication"])
def test_redis_by_each_way(
    host: Connection, directory: Path, way: str, unix: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "its file":
        monkeypatch.setattr("backends.assets.redis.find_file", lambda *arguments: None)
    if way == "replication":
        monkeypatch.setattr(type(host), "has", lambda *arguments, **named: False)
    elif way != "its file":
        need("redis-cli")
    (directory / "one").mkdir()
    (directory / "two").mkdir()
    with RedisServer(directory / "one", password="p4ss-w0rd", unix=unix) as server:
        server.client().lpush("queue:default", *(os.urandom(500).hex() for _ in range(5000)))
        outcome, writer = back_up(host, server.place())
    assert outcome.facts["servers"][0]["way"] == way
    (directory / "two" / "dump.rdb").write_bytes(writer.objects["dump.rdb"])
    with RedisServer(directory / "two") as other:
        assert other.client().llen("queue:default") == 5000
