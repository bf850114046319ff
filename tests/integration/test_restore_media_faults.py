"""Restores of media on bad days: cut, cancelled, damaged, without room, across disks."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.connection.base import Command, Completed, Connection, Process
from backends.errors import AssetFailed, Cancelled, ConnectionFailed, Damaged
from backends.model import Asset
from backends.restore.base import Way
from backends.restore.media import PART
from tests.media_world import AVATAR, CLOSED, FILES, HEADER, MARK, NEWER, MediaWorld, at, files, lose_all, put, seen
from tests.media_world import host as host
from tests.media_world import perl as perl
from tests.media_world import world as world
from tests.restore_world import Cut, Faults
from tests.servers.backup import WatchedJob
from tests.servers.need import need_root


@pytest.mark.parametrize("way", ["rollback", "undo"])
def test_cut_at_any_command_it_can_be_done_again_or_taken_back(
    world: MediaWorld, host: Connection, perl: bool, way: Way
) -> None:
    good = files(world.root)
    at(world.root, AVATAR).unlink()
    put(world.root, HEADER, b"half a header")
    put(world.root, NEWER, b"newer")
    at(world.root, CLOSED).chmod(0o644)
    damaged = seen(world.root)
    faults = Faults()
    whole = world.restore(Cut(host, faults), exact=True, perl=perl)
    looked = whole.look()
    faults.count = 0
    whole.do()
    assert files(world.root) == good
    total = faults.count
    whole.undo(way)
    whole.forget()
    assert seen(world.root) == damaged
    for number in range(1, total + 1):
        restore = world.restore(Cut(host, faults), exact=True, perl=perl)
        restore.looked = looked
        faults.count, faults.at = 0, number
        with pytest.raises(ConnectionFailed):
            restore.do()
        faults.at = None
        if number % 3:
            restore.do()
            assert files(world.root) == good, number
        restore.undo(way)
        assert seen(world.root) == damaged, number
        restore.forget()
        assert world.leftovers() == [], number


def test_an_undo_that_is_cut_at_any_command_is_gone_on_with(world: MediaWorld, host: Connection, perl: bool) -> None:
    at(world.root, AVATAR).unlink()
    put(world.root, HEADER, b"half a header")
    put(world.root, NEWER, b"newer")
    damaged = seen(world.root)
    faults = Faults()
    restore = world.restore(Cut(host, faults), exact=True, perl=perl)
    restore.do()
    faults.count, number = 0, 1
    while True:
        faults.count, faults.at = 0, number
        try:
            restore.undo()
        except ConnectionFailed:
            number += 1
            continue
        break
    faults.at = None
    assert number > 4
    assert seen(world.root) == damaged
    restore.forget()
    assert world.leftovers() == []


class Dying(Connection):
    """A connection that is lost for good in the middle of sending."""

    def __init__(self, inner: Connection, after: int) -> None:
        self._inner, self.left = inner, after
        self.host, self.login_user = inner.host, inner.login_user

    def start(self, command: Command, *, on_stderr: Callable[[bytes], None] | None = None) -> Process:
        process = self._inner.start(command, on_stderr=on_stderr)
        if "tar --extract" not in command.argv[2]:
            return process
        real = process.write

        def write(data: bytes) -> None:
            self.left -= len(data)
            if self.left < 0:
                process.terminate()
                raise ConnectionFailed("the connection to social was lost")
            real(data)

        process.write = write  # type: ignore[method-assign]
        return process

    def run(self, command: Command, **options: Any) -> Completed:
        return self._inner.run(command, **options)

    def open_tcp(self, host: str, port: int) -> Any:
        return self._inner.open_tcp(host, port)

    def open_unix(self, path: str) -> Any:
        return self._inner.open_unix(path)

    def close(self) -> None:
        self._inner.close()


def test_what_was_staged_before_a_cut_is_not_sent_again(world: MediaWorld, host: Connection) -> None:
    good = seen(world.root)
    lose_all(world)
    restore = world.restore(Dying(host, 300_000))
    with pytest.raises(ConnectionFailed):
        restore.do()
    staged = world.root.parent / f".mastovault-restore-{MARK}" / "tree"
    at(staged, AVATAR).write_bytes(b"X" * len(FILES[AVATAR]))  # a power cut leaves such files
    os.utime(at(staged, AVATAR), ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    restore.connection = host
    restore.target = dataclasses.replace(restore.target, connection=host)
    job = WatchedJob()
    restore.do(job)
    assert seen(world.root) == good
    [sent] = [line for line in job.lines if line.startswith("sending")]
    assert sent.startswith("sending 5 files")  # the header was whole, the avatar spoilt, the closed one not provable


def test_cancel_ends_tar_and_everything_can_be_taken_back(world: MediaWorld, host: Connection) -> None:
    lose_all(world)
    job = WatchedJob()
    job._at = lambda step, done: job.cancel() if step == "staging media" and done > 200_000 else None
    restore = world.restore(host)
    with pytest.raises(Cancelled):
        restore.do(job)
    assert seen(world.root) == {}
    restore.undo("rollback")
    assert world.leftovers() == []


def test_cancel_while_placing_can_be_taken_back(world: MediaWorld, host: Connection, perl: bool) -> None:
    at(world.root, AVATAR).unlink()
    before = seen(world.root)
    job = WatchedJob()
    job._at = lambda step, done: job.cancel() if step == "placing media" else None
    restore = world.restore(host, perl=perl)
    with pytest.raises(Cancelled):
        restore.do(job)
    restore.undo("rollback")
    assert seen(world.root) == before
    assert world.leftovers() == []


@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"])
def test_a_damaged_pack_is_read_from_another_vault(world: MediaWorld, host: Connection, how: str) -> None:
    good = seen(world.root)
    lose_all(world)
    [pack] = world.packs()
    data = bytearray(pack.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    pack.unlink()
    if how != "gone":
        pack.write_bytes(data if how == "flipped" else data[: len(data) * 2 // 3])
    restore = world.restore(host)
    stage, place = restore.actions()
    source = restore.sources[Asset.MEDIA]
    if how == "gone":
        stage.do(restore.work())
    else:
        with pytest.raises(Damaged) as caught:
            stage.do(restore.work())
        assert source.give_up_copy(caught.value)
        stage.do(restore.work())
    place.do(restore.work())
    assert seen(world.root) == good


def test_damage_everywhere_changes_nothing(world: MediaWorld, host: Connection) -> None:
    lose_all(world)
    for vault in (0, 1):
        [pack] = world.packs(vault)
        pack.write_bytes(pack.read_bytes()[:-100])
    restore = world.restore(host)
    stage = restore.actions()[0]
    for _ in range(2):
        with pytest.raises(Damaged) as caught:
            stage.do(restore.work())
        restore.sources[Asset.MEDIA].give_up_copy(caught.value)
    stage.undo(restore.work())
    assert seen(world.root) == {}
    assert world.leftovers() == []


def test_a_damaged_index_is_said_before_anything_begins(world: MediaWorld, host: Connection) -> None:
    for index in world.place.rglob("files.ndjson.zst.age"):
        index.write_bytes(index.read_bytes()[:-50])
    [blocked] = world.restore(host).look().findings
    assert blocked.level == "block"
    assert blocked.way_out


@pytest.fixture
def small(world: MediaWorld) -> Iterator[Path]:
    """A file system of 300 kB for the media, which the snapshot does not fit in."""
    need_root("it mounts a small file system")
    shutil.rmtree(world.root)
    world.root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k,nr_inodes=60", "none", world.root], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield world.root
    subprocess.run(["umount", world.root], check=True)


def test_a_disk_that_is_too_small_is_said_in_the_plan(world: MediaWorld, host: Connection, small: Path) -> None:
    restore = world.restore(host)
    [blocked] = [found for found in restore.look().findings if found.level == "block"]
    assert "and 307.2 kB are free." in blocked.text
    assert blocked.way_out
    stage = PART.actions(restore.request, restore.look().facts)[0]
    with pytest.raises(AssetFailed, match=r"need .* kB at .* are free") as caught:
        stage.do(restore.work())
    assert caught.value.next_step
    stage.undo(restore.work())
    assert list(small.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(
    world: MediaWorld, host: Connection, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.restore.media_stage._require_room", lambda *_: None)
    restore = world.restore(host)
    stage = PART.actions(restore.request, restore.look().facts)[0]
    with pytest.raises(AssetFailed, match="there is no room left for the media at") as caught:
        stage.do(restore.work())
    assert caught.value.next_step
    stage.undo(restore.work())
    assert list(small.iterdir()) == []


def test_a_mounted_root_is_staged_within_and_backups_pass_over_that(
    world: MediaWorld, host: Connection, small: Path, perl: bool
) -> None:
    restore = world.restore(host, subtree="accounts", perl=perl)
    restore.do()
    assert at(small, AVATAR).read_bytes() == FILES[AVATAR]
    assert (small / f".mastovault-restore-{MARK}").is_dir()
    put(small, NEWER, b"newer")
    world.back_up()
    assert world.manifest is not None
    assert world.manifest.facts["files"] == 3
    restore.undo()
    assert set(files(small)) == {NEWER}
    restore.forget()
    assert [path.name for path in small.iterdir()] == ["media_attachments"]


def test_a_directory_of_the_tree_on_another_disk_is_copied_to(
    world: MediaWorld, host: Connection, small: Path, perl: bool
) -> None:
    subprocess.run(["umount", small], check=True)
    (small / "accounts").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small / "accounts"], check=True)
    try:
        put(small, HEADER, b"half a header")
        damaged = seen(small)
        restore = world.restore(host, perl=perl)
        restore.do()
        assert at(small, AVATAR).read_bytes() == FILES[AVATAR]
        assert at(small, AVATAR).stat().st_mtime_ns == 1_700_000_000_123_456_789
        assert at(small, HEADER).read_bytes() == FILES[HEADER]
        restore.undo()
        assert seen(small) == damaged
        restore.forget()
        assert world.leftovers() == []
    finally:
        subprocess.run(["umount", small / "accounts"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", small], check=True)
