"""Media restored into real directories with the host's own find, tar and perl (or shell), and taken back."""

from __future__ import annotations

import dataclasses
import os
import pwd
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
from backends.restore.plan import Phase
from tests.media_world import CLOSED, FILES, MARK, MediaWorld, Seen, put, seen
from tests.restore_world import Cut, Faults
from tests.servers.backup import WatchedJob, local_host
from tests.servers.need import need_root

NEWER = b"media_attachments/files/999/888/original/newer.png"
AVATAR = b"accounts/avatars/109/302/original/0123456789abcdef.png"
HEADER = b"accounts/headers/109/302/original/fedcba9876543210.png"


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def world(tmp_path: Path) -> MediaWorld:
    return MediaWorld.make(tmp_path)


@pytest.fixture(params=["perl", "shell"])
def perl(request: pytest.FixtureRequest) -> bool:
    """Both programs that move files do the same."""
    return bool(request.param == "perl")


def at(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(name)


def files(root: Path) -> Seen:
    """Files and links below a root, without the directories."""
    return {name: state for name, state in seen(root).items() if state[0] != "directory"}


def lose_all(world: MediaWorld) -> None:
    shutil.rmtree(world.root)
    world.root.mkdir()


def test_an_empty_tree_comes_back_byte_for_byte(world: MediaWorld, host: Connection, perl: bool) -> None:
    before = seen(world.root)
    lose_all(world)
    restore = world.restore(host, perl=perl)
    restore.do()
    assert seen(world.root) == before
    restore.forget()
    assert world.leftovers() == []
    assert seen(world.root) == before


def test_what_is_missing_or_differs_comes_and_nothing_newer_goes(
    world: MediaWorld, host: Connection, perl: bool
) -> None:
    good = seen(world.root)
    at(world.root, AVATAR).unlink()
    put(world.root, HEADER, b"half a header")
    newer = put(world.root, NEWER, b"newer")
    damaged = seen(world.root)
    restore = world.restore(host, perl=perl)
    looked = restore.look()
    assert looked.spaces[0].need >= len(FILES[AVATAR]) + len(FILES[HEADER])
    assert looked.lost == ("1 file of the media that differ in size (kept aside)",)
    assert looked.untouched == ("1 file of the media that the snapshot lacks",)
    assert [action.info.phase for action in restore.actions()] == [Phase.STAGE, Phase.PLACE]
    restore.do()
    after = seen(world.root)
    assert {name: after[name] for name in good if good[name][0] != "directory"} == {
        name: state for name, state in good.items() if state[0] != "directory"
    }
    assert newer.read_bytes() == b"newer"
    restore.undo()
    assert seen(world.root) == damaged
    restore.undo()
    assert seen(world.root) == damaged
    restore.forget()
    assert world.leftovers() == []


def test_a_tree_that_has_everything_has_nothing_to_do(world: MediaWorld, host: Connection) -> None:
    looked = world.restore(host).look()
    assert looked.facts == {}
    assert looked.findings[0].level == "ok"
    assert looked.findings[0].text == "6 of 6 files are there already."


def test_only_a_subtree_comes_back(world: MediaWorld, host: Connection, perl: bool) -> None:
    lose_all(world)
    restore = world.restore(host, subtree="accounts/avatars/", perl=perl)
    restore.do()
    assert {name for name, state in seen(world.root).items() if state[0] != "directory"} == {AVATAR}
    restore.undo("rollback")
    assert seen(world.root) == {}
    assert world.leftovers() == []


def test_a_single_file_is_a_subtree_too(world: MediaWorld, host: Connection) -> None:
    lose_all(world)
    world.restore(host, subtree=AVATAR.decode()).do()
    assert at(world.root, AVATAR).read_bytes() == FILES[AVATAR]


@pytest.mark.parametrize("subtree", ["accounts/nothing", "cache"])
def test_a_subtree_that_the_snapshot_lacks_is_said(world: MediaWorld, host: Connection, subtree: str) -> None:
    looked = world.restore(host, subtree=subtree).look()
    assert looked.findings[0].level == "block"
    assert looked.findings[0].text == f"The snapshot holds nothing below {subtree}."


def test_modes_are_mended_but_what_was_closed_is_not_opened_without_its_database(
    world: MediaWorld, host: Connection, perl: bool
) -> None:
    at(world.root, CLOSED).chmod(0o644)
    at(world.root, AVATAR).chmod(0o600)
    restore = world.restore(host, perl=perl)
    notes = [found.text for found in restore.look().findings if found.level == "note"]
    assert any(text.startswith("1 file closed to others stay so") for text in notes)
    restore.do()
    assert at(world.root, CLOSED).stat().st_mode & 0o777 == 0o600
    assert at(world.root, AVATAR).stat().st_mode & 0o777 == 0o600
    restore.undo()
    assert at(world.root, CLOSED).stat().st_mode & 0o777 == 0o644


def test_with_its_database_what_was_closed_is_opened(world: MediaWorld, host: Connection, perl: bool) -> None:
    at(world.root, AVATAR).chmod(0o600)
    restore = world.restore(host, perl=perl)
    both = {**restore.request.snapshots, Asset.DATABASE: "social/database/20261122T140211Z-01234567"}
    restore = world.restore(host, snapshots=both, perl=perl)
    restore.do()
    assert at(world.root, AVATAR).stat().st_mode & 0o777 == 0o644
    restore.undo()
    assert at(world.root, AVATAR).stat().st_mode & 0o777 == 0o600


def test_exact_moves_aside_and_undo_brings_it_back(world: MediaWorld, host: Connection, perl: bool) -> None:
    good = {name for name, state in seen(world.root).items() if state[0] != "directory"}
    put(world.root, NEWER, b"newer")
    put(world.root, b"cache/accounts/avatars/remote.png", b"remote")
    at(world.root, AVATAR).unlink()
    damaged = seen(world.root)
    restore = world.restore(host, exact=True, perl=perl)
    assert "1 file of the media that the snapshot lacks, 5 B (kept aside)" in restore.look().lost
    restore.do()
    now = {name for name, state in seen(world.root).items() if state[0] != "directory"}
    assert now == good | {b"cache/accounts/avatars/remote.png"}
    restore.undo()
    assert seen(world.root) == damaged
    restore.forget()
    assert world.leftovers() == []


def test_undo_leaves_what_changed_since(world: MediaWorld, host: Connection, perl: bool) -> None:
    at(world.root, AVATAR).unlink()
    put(world.root, HEADER, b"half a header")
    restore = world.restore(host, perl=perl)
    restore.do()
    at(world.root, AVATAR).write_bytes(b"somebody wrote here since")
    at(world.root, HEADER).unlink()
    restore.undo()
    assert at(world.root, AVATAR).read_bytes() == b"somebody wrote here since"
    assert at(world.root, HEADER).read_bytes() == b"half a header"


def test_links_come_back_as_links_and_one_that_leads_out_is_said(tmp_path: Path, host: Connection, perl: bool) -> None:
    world = MediaWorld.make(tmp_path)
    (world.root / "favicon").symlink_to("site_uploads/files")
    (world.root / "out").symlink_to("/etc/passwd")
    world.back_up()
    before = seen(world.root)
    lose_all(world)
    restore = world.restore(host, perl=perl)
    notes = [found.text for found in restore.look().findings]
    assert "Symbolic links of the snapshot lead out of the media directory: out." in notes
    restore.do()
    assert seen(world.root) == before
    restore.undo("rollback")
    assert seen(world.root) == {}


def test_nothing_is_written_through_a_link_on_the_target(world: MediaWorld, host: Connection, perl: bool) -> None:
    elsewhere = world.place / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(world.root / "accounts")
    (world.root / "accounts").symlink_to(elsewhere)
    restore = world.restore(host, perl=perl)
    [blocked] = [found for found in restore.look().findings if found.level == "block"]
    assert blocked.accept == "links"
    assert blocked.text.startswith("2 files cannot be placed, a link or file is where a directory should be: accounts/")
    at(world.root, CLOSED).unlink()
    (world.root / "accounts").unlink()
    restore.look()
    stage, place = restore.actions()
    stage.do(restore.work())
    (world.root / "accounts").symlink_to(elsewhere)  # between the look and the placing
    job = WatchedJob()
    place.do(restore.work(job=job))
    assert list(elsewhere.iterdir()) == []
    assert at(world.root, CLOSED).read_bytes() == FILES[CLOSED]
    assert job.warnings == ["2 files left out: something else came to be in their place"]
    restore.undo("rollback")
    assert list(elsewhere.iterdir()) == []
    assert world.leftovers() == []


def test_a_directory_in_the_place_of_a_file_stays(world: MediaWorld, host: Connection, perl: bool) -> None:
    at(world.root, AVATAR).unlink()
    put(world.root, AVATAR + b"/inside.png", b"inside")
    job = WatchedJob()
    world.restore(host, perl=perl).do(job)
    assert at(world.root, AVATAR + b"/inside.png").read_bytes() == b"inside"
    assert len(job.warnings) == 1


def test_a_root_that_is_gone_is_made_and_taken_back(world: MediaWorld, host: Connection, perl: bool) -> None:
    before = seen(world.root)
    shutil.rmtree(world.root)
    restore = world.restore(host, perl=perl)
    assert any("is not there and is made" in found.text for found in restore.look().findings)
    restore.do()
    assert seen(world.root) == before
    assert world.root.stat().st_mode & 0o777 == 0o755
    restore.undo("rollback")
    assert not world.root.exists()
    assert world.leftovers() == []


def test_a_bare_machine_gets_all_directories(world: MediaWorld, host: Connection, perl: bool) -> None:
    root = world.place / "bare" / "home" / "live" / "public" / "system"
    (world.place / "bare").mkdir()
    blocked = world.restore(host, root=root).look().findings[0]
    assert (blocked.level, blocked.text) == ("block", f"{root.parent} is not on social.")
    restore = world.restore(host, bare=True, root=root, perl=perl)
    restore.do()
    assert seen(root) == seen(world.root)
    restore.undo("rollback")
    assert list((world.place / "bare").iterdir()) == []


def test_a_root_that_is_a_link_is_followed(world: MediaWorld, host: Connection, perl: bool) -> None:
    before = seen(world.root)
    real = world.place / "disk" / "media"
    real.parent.mkdir()
    world.root.rename(real)
    world.root.symlink_to(real)
    shutil.rmtree(real / "accounts")
    restore = world.restore(host, perl=perl)
    restore.do()
    assert seen(real) == before
    assert (real.parent / f".mastovault-restore-{MARK}").is_dir()
    shutil.rmtree(real)
    assert "is a symbolic link that leads nowhere" in world.restore(host).look().findings[0].text


def test_without_the_cache_it_is_said_how_to_fetch_it_again(world: MediaWorld, host: Connection) -> None:
    lose_all(world)
    [note] = [found for found in world.restore(host).look().findings if "cache/" in found.text]
    assert note.level == "note"
    assert "tootctl media refresh" in note.way_out
    assert "Never run `tootctl media remove-orphans`" in note.way_out


def test_damage_before_the_files_are_placed_changes_nothing(world: MediaWorld, host: Connection) -> None:
    lose_all(world)
    restore = world.restore(host)
    stage = restore.actions()[0]
    stage.do(restore.work())
    assert seen(world.root) == {}
    stage.undo(restore.work())
    stage.undo(restore.work())
    assert world.leftovers() == []


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


def test_owners_come_from_the_snapshot_and_unknown_ones_become_mastodons(tmp_path: Path, host: Connection) -> None:
    need_root("it gives files to others")
    world = MediaWorld.make(tmp_path)
    world.user = "nobody"
    nobody = pwd.getpwnam("nobody")
    daemon = pwd.getpwnam("daemon")
    os.chown(at(world.root, AVATAR), daemon.pw_uid, daemon.pw_gid)
    os.chown(at(world.root, HEADER), 54321, 54321)
    world.back_up()
    lose_all(world)
    os.chown(world.root, nobody.pw_uid, nobody.pw_gid)
    world.restore(host).do()
    owner = {name: at(world.root, name).stat() for name in FILES}
    assert (owner[AVATAR].st_uid, owner[AVATAR].st_gid) == (daemon.pw_uid, daemon.pw_gid)
    assert (owner[HEADER].st_uid, owner[HEADER].st_gid) == (nobody.pw_uid, nobody.pw_gid)
    assert owner[CLOSED].st_uid == 0
    made = (world.root / "accounts" / "avatars").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (nobody.pw_uid, nobody.pw_gid, 0o755)


def test_a_tree_of_many_takes_longer_than_a_plan_may(
    world: MediaWorld, host: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_all(world)
    monkeypatch.setattr("backends.restore.media._PATIENCE", -1.0)
    restore = world.restore(host)
    looked = restore.look()
    assert "take longer than" in looked.findings[0].text
    assert looked.spaces[0].need == sum(map(len, FILES.values()))
    restore.do()
    assert set(files(world.root)) == set(FILES)
