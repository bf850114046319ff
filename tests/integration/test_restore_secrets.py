"""Settings restored on a real host: there, back, elsewhere, cut everywhere; never a value in sight."""

from __future__ import annotations

import getpass
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from backends.archive.keys import new_identity
from backends.archive.writer import begin_snapshot
from backends.errors import AssetFailed, ConnectionFailed, MastovaultError
from backends.model import Asset
from backends.restore.plan import Look
from backends.restore.secrets_target import serving
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.integration.redis_restores import Cut
from tests.integration.secrets_restores import KEYS, MARK, SETTINGS, Host, written
from tests.servers.backup import AsNobody, local_host
from tests.servers.need import need_root


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    identity, recipient = new_identity()
    vault = DirectoryVault("local", tmp_path / "vault")
    prepare(vault, [recipient])
    (tmp_path / "live").mkdir()
    with local_host() as connection:
        made = Host(tmp_path / "live", connection, vault, pyrage.x25519.Identity.from_str(identity.reveal()), recipient)
        made.env.write_bytes(written(SETTINGS))
        made.env.chmod(0o600)
        yield made


def levels(look: Look, level: str) -> list[str]:
    return [finding.text for finding in look.findings if finding.level == level]


def words(look: Look) -> list[str]:
    return [finding.accept for finding in look.findings if finding.level == "block"]


def test_damaged_settings_come_back_are_undone_and_forgotten(host: Host) -> None:
    source = host.back_up()
    good = host.files()
    host.env.write_bytes(written({**SETTINGS, "DB_PASS": "changed", "NEW": "1", "SECRET_KEY_BASE": ""}))
    host.env.chmod(0o644)
    damaged = host.files()
    actions = host.actions(source)

    actions[0].do(host.work(source))
    staged = host.root / f".env.production.restore-{MARK}"
    assert host.files() == {**damaged, staged.name: good[".env.production"]}
    actions[1].do(host.work(source))
    assert host.files() == {**good, f".env.production.before-{MARK}": damaged[".env.production"]}

    host.undo(source, actions, "undo")
    assert host.files() == {**damaged, staged.name: good[".env.production"]}
    host.forget(source, actions)
    assert host.files() == damaged

    host.do(source, actions)
    host.forget(source, actions)
    assert host.files() == good


def test_what_changes_is_told_by_name_and_never_by_value(host: Host) -> None:
    source = host.back_up()
    values = {**SETTINGS, "SECRET_KEY_BASE": os.urandom(64).hex(), "ADDED_SINCE": "s3cr3t-value"}
    del values["DB_PASS"]
    host.env.write_bytes(written(values))
    look = host.look(source)
    told = "\n".join(finding.text for finding in look.findings)
    assert "1 setting gets the snapshot's value: SECRET_KEY_BASE" in told
    assert "1 setting comes back: DB_PASS" in told
    assert "1 setting is not in the snapshot and goes: ADDED_SINCE" in told
    assert look.lost == ("the present values of the settings ADDED_SINCE, SECRET_KEY_BASE",)
    assert not levels(look, "block")
    host.do(source, actions := host.actions(source, look))
    shown = json.dumps([repr(look), [repr(action.info) for action in actions], host.job.lines, host.memory.notes])
    for secret in (*KEYS.values(), "hunter2", "s3cr3t-value", values["SECRET_KEY_BASE"]):
        assert secret not in shown


def test_equal_settings_are_called_equal(host: Host) -> None:
    look = host.look(host.back_up())
    assert "the settings on the target are those of the snapshot" in levels(look, "ok")
    assert look.lost == ()


def test_another_domain_needs_its_word(host: Host) -> None:
    source = host.back_up()
    host.env.write_bytes(written({**SETTINGS, "LOCAL_DOMAIN": "other.example"}))
    look = host.look(source)
    assert words(look) == ["domain"]
    assert "the snapshot is of social.example, and this Mastodon is other.example" in levels(look, "block")[0]
    assert look.facts


def test_a_server_that_was_being_shut_down_does_not_come_back(host: Host) -> None:
    source = host.keep((str(host.env), written({**SETTINGS, "SELF_DESTRUCT": "signed"}), "dotenv"))
    look = host.look(source)
    assert words(look) == [""]
    assert "SELF_DESTRUCT" in levels(look, "block")[0]
    assert not look.facts


def test_a_snapshot_without_a_secret_that_is_needed_needs_a_word(host: Host) -> None:
    less = {name: value for name, value in SETTINGS.items() if name != "SECRET_KEY_BASE"}
    look = host.look(host.keep((str(host.env), written(less), "dotenv")))
    assert words(look) == ["keys"]


def test_another_machine_keeps_what_is_its_own(host: Host) -> None:
    source = host.keep(("/home/mastodon/live/.env.production", b"# old\n" + written(SETTINGS), "dotenv"))
    host.env.write_bytes(
        written({"LOCAL_DOMAIN": "social.example", "DB_HOST": "db2", "DB_USER": "m2", "REDIS_HOST": "r2"})
    )
    host.same_host = False
    host.do(source, host.actions(source))
    text = host.env.read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert values == {
        **{name: value for name, value in SETTINGS.items() if name != "DB_PASS"},
        "DB_HOST": "db2",
        "DB_USER": "m2",
        "REDIS_HOST": "r2",
    }
    assert text.startswith("# old\nLOCAL_DOMAIN=social.example\n")


def test_the_settings_that_will_serve_are_known_before_they_are_in_place(host: Host) -> None:
    source = host.back_up()
    host.env.write_bytes(written({**SETTINGS, "SECRET_KEY_BASE": "gone"}))
    found = serving(host.work(source))
    assert {name: value.reveal() for name, value in found.items()} == SETTINGS


def test_a_machine_without_settings_gets_them_with_directories(host: Host) -> None:
    source = host.back_up()
    good = host.files()
    shutil.rmtree(host.root)
    host.bare = True
    look = host.look(source)
    assert not levels(look, "block")
    assert look.facts["dirs"] == [str(host.root)]
    actions = host.actions(source, look)
    host.do(source, actions)
    assert host.files() == good
    host.undo(source, actions, "rollback")
    assert not host.root.exists()
    host.do(source, actions)
    host.do(source, actions[1:])
    host.forget(source, actions)
    assert host.files() == good


def test_an_owner_that_is_not_there_becomes_mastodons_user(host: Host) -> None:
    source = host.keep((str(host.env), written(SETTINGS), "dotenv"), mode=0o640, owner="nobody-knows")
    look = host.look(source)
    assert any("nobody-knows:nobody-knows, whose" in text for text in levels(look, "note"))
    host.do(source, host.actions(source, look))
    assert (host.env.owner(), host.env.stat().st_mode & 0o777) == (getpass.getuser(), 0o640)


def test_owner_and_mode_are_those_of_the_snapshot(host: Host) -> None:
    need_root("it gives files away")
    source = host.keep((str(host.env), written(SETTINGS), "dotenv"), mode=0o440, owner="daemon")
    host.do(source, host.actions(source))
    assert (host.env.owner(), host.env.group(), host.env.stat().st_mode & 0o777) == ("daemon", "daemon", 0o440)


def test_who_may_not_write_there_is_told_before(host: Host, tmp_path: Path) -> None:
    need_root("it becomes nobody")
    source = host.back_up()
    tmp_path.chmod(0o755)
    host.root.chmod(0o755)
    host.connection = AsNobody(host.connection)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    look = host.look(source)
    assert any("nobody may not write into" in text for text in levels(look, "block"))
    assert not look.facts


def test_a_symbolic_link_is_followed_to_the_file(host: Host, tmp_path: Path) -> None:
    source = host.back_up()
    shared = tmp_path / "shared"
    shared.mkdir()
    shutil.move(host.env, shared / "env")
    host.env.symlink_to(shared / "env")
    (shared / "env").write_bytes(b"LOCAL_DOMAIN=social.example\n")
    actions = host.actions(source)
    host.do(source, actions)
    assert host.env.is_symlink()
    assert host.env.read_bytes() == written(SETTINGS)
    host.undo(source, actions, "rollback")
    assert host.env.read_bytes() == b"LOCAL_DOMAIN=social.example\n"
    assert sorted(path.name for path in shared.iterdir()) == ["env"]


def test_a_file_that_the_snapshot_lacks_stays_and_is_named(host: Host) -> None:
    source = host.back_up()
    (host.root / ".env.production.local").write_bytes(b"SECRET_KEY_BASE=mine\n")
    notes = levels(host.look(source), "note")
    assert any(".env.production.local is not in the snapshot and stays; it wins" in text for text in notes)
    assert any("in SECRET_KEY_BASE" in text for text in notes)


@pytest.mark.parametrize(
    ("path", "content", "form"),
    [
        ("/etc/sudoers.d/mastodon", b"x ALL=(ALL) NOPASSWD: ALL\n", "raw"),
        ("/etc/systemd/system/mastodon-web.service.d/a.conf", b"[Service]\nExecStartPre=/bin/true\n", "raw"),
        ("/etc/systemd/system/sshd.service.d/a.conf", b"[Service]\nEnvironment=A=1\n", "raw"),
        ("/etc/environment", b"LD_PRELOAD=/x\n", "systemd"),
        ("/root/.bashrc", b"x\n", "dotenv"),
    ],
)
def test_what_is_no_settings_file_of_the_target_is_left_out(host: Host, path: str, content: bytes, form: str) -> None:
    source = host.keep((str(host.env), written(SETTINGS), "dotenv"), (path, content, form))
    look = host.look(source)
    assert any(f"{path} in the snapshot is no settings file" in text for text in levels(look, "note"))
    facts: Any = look.facts
    assert [file["path"] for file in facts["files"]] == [str(host.env)]


def test_a_hostile_tar_is_refused_in_a_sentence(host: Host) -> None:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("home/mastodon/live/.env.production")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(link)
    writer = begin_snapshot([host.vault], host="social", asset=Asset.SECRETS, run="run", recipients=[host.recipient])
    writer.write("environment.tar", io.BytesIO(buffer.getvalue()), compress=False)
    look = host.look(host.source(writer.commit({})))
    [block] = levels(look, "block")
    assert "is no plain file" in block
    assert not look.facts


def test_a_damaged_copy_is_read_from_the_next_vault(host: Host, tmp_path: Path) -> None:
    source = host.back_up()
    shutil.copytree(tmp_path / "vault", tmp_path / "second")
    [stored] = (tmp_path / "vault/hosts" / source.manifest.id).glob("environment.tar*")
    stored.chmod(0o600)
    stored.write_bytes(stored.read_bytes()[:-7] + b"damaged")
    source.vaults.append(DirectoryVault("second", tmp_path / "second"))
    assert not levels(host.look(source), "block")
    assert [vault.name for vault in source.vaults] == ["second"]
    source.vaults = [DirectoryVault("local", tmp_path / "vault")]
    assert len(levels(host.look(source), "block")) == 1


# --- bad days


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs before all others."""
    place = tmp_path / "programs"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


def program(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_no_room_while_staging_leaves_nothing(host: Host, programs: Path) -> None:
    source = host.back_up()
    host.env.write_bytes(b"LOCAL_DOMAIN=social.example\n")
    before = host.files()
    actions = host.actions(source)
    program(programs, "cat", "exec /bin/cat >/dev/full")
    with pytest.raises(AssetFailed, match="no room left") as failed:
        actions[0].do(host.work(source))
    assert "Free some space" in failed.value.next_step
    host.undo(source, actions[:1], "rollback")
    assert host.files() == before


@pytest.mark.parametrize("way", ["again", "rollback", "undo"])
@pytest.mark.parametrize(("name", "calls"), [("mv", 4), ("ln", 2)])
def test_a_cut_between_any_two_renames(
    host: Host, programs: Path, tmp_path: Path, name: str, calls: int, way: str
) -> None:
    """The n-th call of a program ends the script, once before its effect and once after."""
    second = host.root / ".env"
    second.write_bytes(b"EXTRA=1\n")
    source = host.keep(
        (str(host.env), written(SETTINGS), "dotenv"), (str(second), b"EXTRA=2\n", "dotenv")
    )  # fmt: skip
    host.env.write_bytes(b"LOCAL_DOMAIN=social.example\n")
    before = host.files()
    actions = host.actions(source)
    counter = tmp_path / "count"
    real = shutil.which(name)
    cuts = 0
    for at in range(1, calls + 1):
        for effect in (f'"{real}" "$@"; ', ""):
            actions[0].do(host.work(source))
            counter.write_text("")
            cut = f"echo >>{counter}; if [ $(wc -l <{counter}) -eq {at} ]; then {effect}kill -9 $PPID; exit 1; fi"
            program(programs, name, f'{cut}; exec "{real}" "$@"')
            try:
                actions[1].do(host.work(source))
            except MastovaultError:
                cuts += 1
            assert host.env.exists()
            (programs / name).unlink()
            if way == "again":
                actions[1].do(host.work(source))
                assert host.env.read_bytes() == written(SETTINGS)
                assert second.read_bytes() == b"EXTRA=2\n"
            host.undo(source, actions, "undo" if way == "undo" else "rollback")
            if way == "undo":
                host.forget(source, actions)
            assert host.files() == before
    assert cuts == 2 * calls


@pytest.mark.parametrize("name", ["mv", "rm"])
def test_a_cut_on_the_way_back(host: Host, programs: Path, tmp_path: Path, name: str) -> None:
    source = host.back_up()
    host.env.write_bytes(b"LOCAL_DOMAIN=social.example\n")
    before = host.files()
    actions = host.actions(source)
    counter = tmp_path / "count"
    real = shutil.which(name)
    for at in range(1, 5):
        for effect in (f'"{real}" "$@"; ', ""):
            host.do(source, actions)
            counter.write_text("")
            cut = f"echo >>{counter}; if [ $(wc -l <{counter}) -eq {at} ]; then {effect}kill -9 $PPID; exit 1; fi"
            program(programs, name, f'{cut}; exec "{real}" "$@"')
            for action in reversed(actions):
                try:
                    action.undo(host.work(source, "rollback"))
                except MastovaultError:
                    break
            (programs / name).unlink()
            host.undo(source, actions, "rollback")
            assert host.files() == before


def test_a_connection_that_is_lost_at_any_command(host: Host) -> None:
    source = host.back_up()
    good = host.files()
    host.env.write_bytes(b"LOCAL_DOMAIN=social.example\n")
    before = host.files()
    actions = host.actions(source)
    for after in range(5):
        cut = Cut(host.connection, after)
        with pytest.raises(ConnectionFailed) if after < 3 else _nothing():
            for action in actions:
                action.do(host.work(source, connection=cut))
        host.do(source, actions)
        assert host.files()[".env.production"] == good[".env.production"]
        host.undo(source, actions, "rollback")
        assert host.files() == before


class _nothing:  # noqa: N801 - used as a context manager
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
