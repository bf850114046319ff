"""Media restored into real directories with the host's own find, tar and perl (or shell), and taken back."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest

from backends.connection.base import Connection
from backends.model import Asset
from backends.restore.plan import Phase
from tests.media_world import AVATAR, CLOSED, FILES, HEADER, MARK, NEWER, MediaWorld, at, files, lose_all, put, seen
from tests.media_world import host as host
from tests.media_world import perl as perl
from tests.media_world import world as world
from tests.servers.backup import WatchedJob
from tests.servers.need import need_root


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
