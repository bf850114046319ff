"""Media restored over a real OpenSSH server, as root, as Mastodon's user through sudo, and with too few rights."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.connection.open import open_connection
from backends.errors import Cancelled, ConnectionFailed
from tests.media_world import CLOSED, FILES, MediaWorld, seen
from tests.servers.backup import WatchedJob
from tests.servers.openssh import OpenSSH
from tests.servers.users import Users


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="mastovault-media-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path / "sshd") as running:
        yield running


@pytest.fixture
def users() -> Iterator[Users]:
    with Users() as made:
        yield made


def owned(root: Path, user: str) -> pwd.struct_passwd:
    """Give a tree to a user."""
    known = pwd.getpwnam(user)
    for path in [root, *root.rglob("*")]:
        os.chown(path, known.pw_uid, known.pw_gid, follow_symlinks=False)
    return known


def emptied(world: MediaWorld, user: str) -> None:
    """Lose everything but the root, which belongs to the user."""
    shutil.rmtree(world.root)
    world.root.mkdir()
    owned(world.root, user)


def test_names_of_any_bytes_survive_the_way(place: Path, server: OpenSSH) -> None:
    world = MediaWorld.make(place)
    before = seen(world.root)
    shutil.rmtree(world.root)
    world.root.mkdir()
    with open_connection("social", server.host_config()) as host:
        restore = world.restore(host)
        restore.do()
        assert seen(world.root) == before
        restore.undo("rollback")
    assert seen(world.root) == {}
    assert world.leftovers() == []


@pytest.mark.parametrize("perl", [True, False])
def test_as_root_through_sudo_everybody_keeps_his_files(place: Path, server: OpenSSH, users: Users, perl: bool) -> None:
    world = MediaWorld.make(place)
    world.user = users.other
    owned(world.root, users.other)
    daemon = pwd.getpwnam("daemon")
    os.chown(world.root / os.fsdecode(CLOSED), daemon.pw_uid, daemon.pw_gid)
    world.back_up()
    before = seen(world.root)
    emptied(world, users.other)
    users.allow("{login} ALL=(ALL) NOPASSWD: ALL")
    with open_connection("social", server.host_config(user=users.login, become="sudo")) as host:
        restore = world.restore(host, become="sudo", perl=perl)
        assert restore.look().facts["as_user"] == "root"
        restore.do()
        assert seen(world.root) == before
        restore.undo()
        assert seen(world.root) == {}
        restore.forget()
    assert world.leftovers() == []


def test_as_mastodons_user_where_root_is_refused(place: Path, server: OpenSSH, users: Users) -> None:
    world = MediaWorld.make(place)
    world.user = users.other
    owned(world.root, users.other)
    world.back_up()
    before = seen(world.root)
    emptied(world, users.other)
    users.allow("{login} ALL=({other}) NOPASSWD: ALL")
    with open_connection("social", server.host_config(user=users.login, become="sudo")) as host:
        restore = world.restore(host, become="sudo")
        looked = restore.look()
        assert looked.facts["as_user"] == users.other
        assert looked.facts["beside"] == str(world.root)  # the directory above belongs to root
        assert any(found.text.startswith(f"Files are restored as {users.other}") for found in looked.findings)
        restore.do()
        assert seen(world.root) == before
        restore.undo("rollback")
        assert list(world.root.iterdir()) == []


def test_without_the_right_nothing_is_begun_and_the_way_out_is_said(place: Path, server: OpenSSH, users: Users) -> None:
    world = MediaWorld.make(place)
    emptied(world, users.other)
    world.user = users.other
    with open_connection("social", server.host_config(user=users.login)) as host:
        [blocked] = world.restore(host).look().findings
    assert blocked.level == "block"
    assert blocked.text == f"{world.root} on social cannot be written as {users.login}."
    assert "become" in blocked.way_out


@pytest.mark.parametrize("how", ["cancelled", "lost"])
def test_cut_in_the_middle_of_a_large_file(place: Path, server: OpenSSH, how: str) -> None:
    world = MediaWorld.make(place, {**FILES, b"media_attachments/files/1/original/large.mp4": bytes(40_000_000)})
    good = seen(world.root)
    shutil.rmtree(world.root)
    world.root.mkdir()
    with open_connection("social", server.host_config()) as host:
        job = WatchedJob()
        stop = job.cancel if how == "cancelled" else host.close
        job._at = lambda step, done: stop() if step == "staging media" and done > 5_000_000 else None
        restore = world.restore(host)
        facts = restore.look().facts
        with pytest.raises(Cancelled if how == "cancelled" else ConnectionFailed):
            restore.do(job)
    assert seen(world.root) == {}
    with open_connection("social", server.host_config()) as host:
        restore = world.restore(host)
        restore.look().facts.update(facts)
        if how == "cancelled":
            restore.undo("rollback")
            assert seen(world.root) == {}
        else:
            restore.do()
            assert seen(world.root) == good
            restore.forget()
    assert world.leftovers() == []
