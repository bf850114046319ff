"""The scripts that move Redis's files are killed before each of their commands: no data is ever lost or missing."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends.connection.base import Command, Completed, Connection
from backends.restore.base import Target
from backends.restore.redis_files import Files
from backends.restore.redis_place import Server
from tests.integration.redis_restores import MARK, Cut, installation
from tests.servers.backup import local_host
from tests.servers.need import need

_KILL = "n={n}; set -T; trap 'n=$((n - 1)); [ \"$n\" -ge 0 ] || kill -9 $$' DEBUG\n"


class Killed(Cut):
    """Runs shell scripts with bash, which is killed before its n-th command."""

    def __init__(self, inner: Connection) -> None:
        super().__init__(inner, 1 << 30)
        self.at: int | None = None
        self.ended_whole = True

    def run(self, command: Command, *, stdin: bytes = b"", timeout: float = 60.0, limit: int = 1 << 23) -> Completed:
        if self.at is None or command.argv[:2] != ("sh", "-c"):
            return super().run(command, stdin=stdin, timeout=timeout, limit=limit)
        script = _KILL.format(n=self.at) + command.argv[2]
        done = subprocess.run(["bash", "-c", script, *command.argv[3:]], capture_output=True, check=False)
        self.ended_whole = done.returncode == 0
        return Completed(0, done.stdout, done.stderr)


@pytest.fixture
def host() -> Iterator[Killed]:
    need("bash")
    with local_host() as connection:
        yield Killed(connection)


def make(root: Path, *, old: bool, aof: bool) -> Server:
    shutil.rmtree(root, ignore_errors=True)
    (root / "data").mkdir(parents=True)
    (root / "data" / f".mastovault-restore-{MARK}.rdb").write_text("new")
    (root / "redis.conf").write_text("appendonly yes\n")
    if old:
        (root / "data" / "dump.rdb").write_text("old")
    if aof:
        (root / "data" / "appendonlydir").mkdir()
        (root / "data" / "appendonlydir" / "base").write_text("old")
    return Server(
        role="base", name="Redis", unit="redis.service", running=True, directory=str(root / "data"), file="dump.rdb",
        aof=aof, aof_names=("appendonlydir", "appendonly.aof"), config=str(root / "redis.conf"), owner="root",
        group="root",
    )  # fmt: skip


def same(root: Path, *, aof: bool) -> Server:
    """The server again, without making its files anew."""
    other = make(root.parent / "other", old=True, aof=aof)
    return replace(other, directory=str(root / "data"), config=str(root / "redis.conf"))


def content(root: Path) -> str:
    """What a server that is started now would load, as long as its append-only file is off."""
    dump = root / "data" / "dump.rdb"
    return "new" if dump.read_text() == "new" else "old" if dump.read_text() == "old" else "empty"


def cut_everywhere(host: Killed, act: Callable[[], None], check: Callable[[int], None]) -> int:
    for at in itertools.count():
        host.at = at
        act()
        whole, host.at = host.ended_whole, None
        check(at)
        if whole:
            return at
    return 0


@pytest.mark.parametrize("aof", [False, True], ids=["rdb", "aof"])
@pytest.mark.parametrize("again", [False, True], ids=["back", "again"])
def test_killed_while_the_snapshot_is_put_in_place(host: Killed, tmp_path: Path, aof: bool, again: bool) -> None:
    root = tmp_path / "redis"
    target = Target(name="social", connection=host, installation=installation())

    def act() -> None:
        server = make(root, old=True, aof=aof)
        Files(target, server, MARK).place()

    def check(at: int) -> None:
        assert content(root) in {"old", "new"}, at
        server = same(root, aof=aof)
        files = Files(target, server, MARK)
        if again:
            files.place()
            assert content(root) == "new", at
            assert not files.state().staged
        files.back()
        assert content(root) == "old", at
        assert (root / "data" / "appendonlydir" / "base").exists() is aof, at
        files.remove("undone")
        left = {path.name for path in (root / "data").iterdir()} - {"dump.rdb", "appendonlydir"}
        assert left <= {f".mastovault-restore-{MARK}.rdb"}, at

    assert cut_everywhere(host, act, check) > 8


@pytest.mark.parametrize("aof", [False, True], ids=["rdb", "aof"])
def test_killed_while_the_old_data_comes_back(host: Killed, tmp_path: Path, aof: bool) -> None:
    root = tmp_path / "redis"
    target = Target(name="social", connection=host, installation=installation())

    def act() -> None:
        server = make(root, old=True, aof=aof)
        at, host.at = host.at, None
        Files(target, server, MARK).place()
        if aof:
            (root / "data" / "appendonlydir").mkdir()
            (root / "data" / "appendonlydir" / "fresh").touch()
        host.at = at
        Files(target, server, MARK).back()

    def check(at: int) -> None:
        assert content(root) in {"old", "new"}, at
        files = Files(target, same(root, aof=aof), MARK)
        files.back()
        assert content(root) == "old", at
        assert (root / "data" / f"dump.rdb.undone-{MARK}").read_text() == "new", at
        assert (root / "data" / "appendonlydir" / "base").exists() is aof, at
        assert (root / "data" / f"appendonlydir.undone-{MARK}" / "fresh").exists() is aof, at

    assert cut_everywhere(host, act, check) > 6


def test_killed_while_the_configuration_changes(host: Killed, tmp_path: Path) -> None:
    root = tmp_path / "redis"
    target = Target(name="social", connection=host, installation=installation())
    conf = root / "redis.conf"

    def off() -> None:
        Files(target, make(root, old=True, aof=True), MARK).config_off()

    def check_off(at: int) -> None:
        assert conf.read_text().startswith("appendonly yes\n"), at
        assert conf.read_text().endswith(("appendonly yes\n", "appendonly no\n")), at
        files = Files(target, same(root, aof=True), MARK)
        files.config_off()
        assert conf.read_text().endswith("\nappendonly no\n"), at
        files.config_back()
        assert conf.read_text() == "appendonly yes\n", at
        assert {path.name for path in root.iterdir()} == {"data", "redis.conf"}, at

    def back() -> None:
        at, host.at = host.at, None
        off()
        host.at = at
        Files(target, same(root, aof=True), MARK).config_back()

    assert cut_everywhere(host, off, check_off) > 4
    assert cut_everywhere(host, back, check_off) > 2


def test_without_old_data_an_empty_file_stands_for_it(host: Killed, tmp_path: Path) -> None:
    root = tmp_path / "redis"
    server = make(root, old=False, aof=False)
    files = Files(Target(name="social", connection=host, installation=installation()), server, MARK)
    files.place()
    assert content(root) == "new"
    files.back()
    assert (root / "data" / "dump.rdb").read_bytes() == b"REDIS0006\xff" + bytes(8)
