"""An SFTP vault on a real OpenSSH server: how it is reached, what it leaves on the disk, and connections that break."""

from __future__ import annotations

import io
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.keys import new_identity
from backends.archive.writer import Snapshot, begin_snapshot
from backends.catalog import Catalog
from backends.config.schema import SftpVault as SftpConfig
from backends.connection import host_keys
from backends.connection.reach import Timeouts
from backends.errors import AlreadyExists, NotFound, VaultError
from backends.model import Asset
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from backends.vault.machine import machine_of
from backends.vault.open import open_vault
from backends.vault.sftp import SftpVault
from backends.vault.sftp_files import Files
from backends.vault.sftp_link import ServerKeyUnknown, VaultGone, ssh_settings
from tests.servers.openssh import OpenSSH
from tests.servers.sftp import SUBSYSTEM, config_for, kill_sessions, sftp_vault, shared_server, stop_sessions

MIB = 1024 * 1024
_, RECIPIENT = new_identity()


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    """A server whose sessions are killed."""
    with OpenSSH(tmp_path_factory.mktemp("sshd"), options=SUBSYSTEM) as server:
        yield server


def opened(config: SftpConfig) -> SftpVault:
    return SftpVault("offsite", config, patience=30)


def temporaries(place: Path) -> list[str]:
    return [name for _, _, names in os.walk(place) for name in names if name.startswith(".")]


def test_what_is_on_the_disk(tmp_path: Path) -> None:
    vault = sftp_vault(tmp_path)
    with vault.open_upload("hosts/a/b") as upload:
        upload.write(b"x" * (3 * MIB))
        upload.commit()
    vault.put_new("hosts/a/c", b"y")
    root = tmp_path / "vault"
    assert {stat.S_IMODE((root / name).stat().st_mode) for name in (".", "hosts", "hosts/a")} == {0o700}
    assert {stat.S_IMODE((root / name).stat().st_mode) for name in ("hosts/a/b", "hosts/a/c")} == {0o600}
    assert (root / "hosts/a/b").read_bytes() == b"x" * (3 * MIB)
    assert temporaries(root) == []


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    config = config_for(shared_server(), tmp_path / "deep" / "vault")
    vault = open_vault("offsite", config)
    assert isinstance(vault, SftpVault)
    assert vault.where == f"sftp://{config.address}{tmp_path}/deep/vault"
    assert not vault.offsite
    assert vault.machine_id() == machine_of(Path("/"))
    free = vault.free_bytes()
    assert free is not None
    assert free > 0
    assert vault.look().note == ""
    assert vault.exclusive()
    assert list(vault.list()) == []
    assert not temporaries(tmp_path)
    vault.close()
    far = SftpVault("far", SftpConfig(type="sftp", address="backup@nas.example:2222", path="~/b/"))
    assert (far.where, far.offsite) == ("sftp://backup@nas.example:2222/~/b", True)


def test_links_and_foreign_names_are_passed_over(tmp_path: Path) -> None:
    vault = sftp_vault(tmp_path)
    vault.put_new("hosts/a/b", b"x")
    root = tmp_path / "vault"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("secret")
    (root / "hosts" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "hosts" / "file").symlink_to(tmp_path / "elsewhere" / "secret")
    (root / "hosts" / "a b").write_text("")
    (root / "hosts" / "ä\n").write_text("")
    (root / os.fsdecode(b"\xff")).write_text("")
    os.mkfifo(root / "hosts" / "pipe")
    assert [found.key for found in vault.list()] == ["hosts/a/b"]
    assert list(vault.list("hosts/link/")) == []
    with pytest.raises(NotFound):
        vault.read("hosts/link/secret")
    for name in ("hosts/file", "hosts/pipe", "hosts/a"):
        with pytest.raises(VaultError, match="no regular file"):
            vault.read(name)
    with pytest.raises(VaultError, match="in the way of a directory"):
        vault.put_new("hosts/link/new", b"x")
    vault.delete("hosts/link/secret")
    assert (tmp_path / "elsewhere" / "secret").exists()


def test_leftovers_of_broken_uploads_are_removed_when_they_are_old(tmp_path: Path) -> None:
    vault = sftp_vault(tmp_path)
    vault.put_new("hosts/a/b", b"x")
    for place in ("hosts/a", "hosts"):
        (tmp_path / "vault" / place / ".0123.part").write_text("half")
        os.utime(tmp_path / "vault" / place / ".0123.part", (1, 1))
    upload = vault.open_upload("hosts/a/c")
    assert vault.clean_leftovers(datetime.now(UTC) - timedelta(days=1), "hosts/a") == 1
    assert vault.clean_leftovers(datetime.now(UTC) - timedelta(days=1)) == 1
    upload.write(b"new")
    upload.commit()
    assert [found.key for found in vault.list()] == ["hosts/a/b", "hosts/a/c"]


def test_many_small_objects_at_once(tmp_path: Path) -> None:
    vault = sftp_vault(tmp_path)
    for number in range(40):
        vault.put_new(f"hosts/{number}", b"%d" % number * 100)
    wanted = [f"hosts/{number}" for number in range(40)]
    assert vault.size("hosts/7") == 100
    with pytest.raises(NotFound):
        vault.size("hosts/none")
    found = dict(vault.read_many([*wanted, "hosts/none"], 5))
    assert isinstance(found.pop("hosts/none"), NotFound)
    assert {key: data for key, data in found.items() if isinstance(data, bytes)} == {
        f"hosts/{number}": (b"%d" % number * 100)[:6] for number in range(40)
    }


def test_a_directory_that_another_makes_and_removes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault, place, times = sftp_vault(tmp_path), tmp_path / "vault" / "shared", []
    vault.put_new("other", b"")
    make_directory = Files.make_directory

    def raced(files: Files, path: bytes) -> None:
        times.append(path)
        if len(times) > 3:
            return make_directory(files, path)
        place.mkdir()
        try:
            return make_directory(files, path)
        finally:
            place.rmdir()

    monkeypatch.setattr(Files, "make_directory", raced)
    vault.put_new("shared/a", b"x")
    assert (place / "a").read_bytes() == b"x"
    assert len(times) == 4


def test_two_writers_with_connections_of_their_own(tmp_path: Path) -> None:
    """Of every name exactly one of them is the writer, and each is told which."""
    config = config_for(shared_server(), tmp_path / "vault")
    vaults = [opened(config) for _ in range(2)]
    won: list[tuple[str, bytes]] = []
    barrier = threading.Barrier(2)

    def write(vault: SftpVault, mark: bytes) -> None:
        for number in range(15):
            barrier.wait(20)
            try:
                vault.put_new(f"leases/{number}", mark)
                won.append((f"leases/{number}", mark))
            except AlreadyExists:
                pass

    threads = [threading.Thread(target=write, args=(vault, b"%d" % n)) for n, vault in enumerate(vaults)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for key, _ in won) == sorted(f"leases/{number}" for number in range(15))
    for key, mark in won:
        with vaults[0].read(key) as stored:
            assert stored.read() == mark
    assert temporaries(tmp_path) == []
    for vault in vaults:
        vault.close()


def test_an_unknown_host_key_is_shown_and_can_be_accepted(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    config = config_for(shared_server(), tmp_path / "vault", known_hosts=known)
    vault = opened(config)
    with pytest.raises(ServerKeyUnknown, match=r"not known yet.*SHA256:") as caught:
        list(vault.list())
    host_keys.accept("offsite", ssh_settings(config), caught.value.shown)
    assert list(vault.list()) == []
    vault.close()


def test_a_changed_host_key_is_refused(tmp_path: Path) -> None:
    server = shared_server()
    other = server.make_key(f"other-{tmp_path.name}")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {other.with_name(other.name + '.pub').read_text()}")
    with pytest.raises(VaultGone, match="HAS CHANGED"):
        opened(config_for(server, tmp_path, known_hosts=known)).put_new("a", b"x")


def test_a_refused_login_is_said(tmp_path: Path) -> None:
    server = shared_server()
    stranger = server.make_key(f"stranger-{tmp_path.name}")
    with pytest.raises(VaultGone, match="did not let"):
        opened(config_for(server, tmp_path, identity_file=stranger)).read("a")


def test_a_key_with_a_passphrase_and_an_alias(tmp_path: Path) -> None:
    server = shared_server()
    key = server.make_key(f"locked-{tmp_path.name}", passphrase="correct horse")
    server.authorize(key)
    ssh = tmp_path / "home" / ".ssh"
    ssh.mkdir(parents=True)
    address = f"Host nas\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n  UserKnownHostsFile"
    (ssh / "config").write_text(f"{address} {server.known_hosts}\n")
    config = SftpConfig(
        type="sftp",
        address="nas",
        path=str(tmp_path / "vault"),
        identity_file=key,
        key_passphrase_command="printf 'correct horse'",
    )
    vault = opened(config)
    vault.put_new("a", b"x")
    assert [found.key for found in vault.list()] == ["a"]
    assert vault.machine_id() == machine_of(Path("/"))
    vault.close()


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = config_for(shared_server(), tmp_path, address=f"root@127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(VaultGone, match="does not speak SSH"):
            SftpVault("v", config, timeouts=Timeouts(banner=0.2, handshake=0.2)).read("a")
    with pytest.raises(VaultGone, match="cannot be reached"):
        opened(config).read("a")


def test_a_server_that_falls_silent(mortal: OpenSSH, tmp_path: Path) -> None:
    vault = opened(config_for(mortal, tmp_path / "vault"))
    vault.put_new("a", b"x")
    (files,) = vault.link._open
    files.session._patience = 0.2
    stop_sessions(mortal)
    with pytest.raises(VaultGone, match=r"did not answer for 0\.2 seconds"):
        vault.read("a")
    vault.put_new("b", b"x")  # on a new connection
    kill_sessions(mortal)
    vault.close()


def test_a_writer_that_is_silent(tmp_path: Path) -> None:
    """It is the server that has to answer in time, not who writes."""
    vault = opened(config_for(shared_server(), tmp_path / "vault"))
    with vault.open_upload("a") as upload:
        (files,) = vault.link._open
        files.session._channel.settimeout(0.05)
        upload.write(bytes(MIB))
        time.sleep(0.2)
        assert files.session.alive
        files.session._channel.settimeout(30)
        upload.commit()
    assert [found.bytes for found in vault.list()] == [MIB]
    vault.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "it offers no SFTP"),
        (f"{SUBSYSTEM}\nForceCommand echo Welcome to this server", "something that is no SFTP"),
    ],
)
def test_a_server_without_sftp(tmp_path: Path, options: str, said: str) -> None:
    with OpenSSH(tmp_path / "sshd", options=options) as server, pytest.raises(VaultGone, match=said) as caught:
        opened(config_for(server, tmp_path)).read("a")
    assert "Subsystem sftp" in caught.value.next_step


def test_small_things_are_done_again_after_the_connection_was_lost(mortal: OpenSSH, tmp_path: Path) -> None:
    vault = opened(config_for(mortal, tmp_path / "vault"))
    vault.put_new("a", b"x")
    for work in (lambda: vault.put_new("b", b"y"), lambda: list(vault.list()), lambda: vault.delete("a")):
        kill_sessions(mortal)
        work()
    assert [found.key for found in vault.list()] == ["b"]
    vault.close()


def test_an_upload_that_is_cut_fails_and_leaves_nothing(mortal: OpenSSH, tmp_path: Path) -> None:
    vault = opened(config_for(mortal, tmp_path / "vault"))

    def send() -> None:
        with vault.open_upload("a") as upload:
            for number in range(100):
                upload.write(b"x" * MIB)
                if number == 3:
                    kill_sessions(mortal)
            upload.commit()

    with pytest.raises(VaultError, match="connection to the vault offsite was lost"):
        send()
    assert list(vault.list()) == []
    assert temporaries(tmp_path) == []
    with vault.open_upload("a") as upload:
        upload.write(b"x")
        upload.commit()
    assert [found.bytes for found in vault.list()] == [1]
    vault.close()


def test_a_download_goes_on_after_the_connection_was_lost(mortal: OpenSSH, tmp_path: Path) -> None:
    vault = opened(config_for(mortal, tmp_path / "vault"))
    data = os.urandom(MIB) * 20
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "big").write_bytes(data)
    with vault.read("big") as stored:
        first = stored.read(MIB)
        kill_sessions(mortal)
        assert first + stored.read() == data
    vault.close()


def test_a_download_from_a_server_that_is_gone_fails(tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "sshd", options=SUBSYSTEM) as server:
        vault = opened(config_for(server, tmp_path / "vault"))
        (tmp_path / "vault").mkdir()
        (tmp_path / "vault" / "big").write_bytes(bytes(20 * MIB))
        with vault.read("big") as stored:
            stored.read(MIB)
            kill_sessions(server)
            server.stop()
            with pytest.raises(VaultError, match="cannot be reached"):
                stored.read()
            with pytest.raises(VaultGone):
                dict(vault.read_many(["big", "small"], 10))


def test_a_server_that_dies_while_a_snapshot_is_written(tmp_path: Path) -> None:
    """The other vault has it; here nothing is listed, and when the server is back the next one is in both."""
    near = DirectoryVault("near", tmp_path / "near")
    with OpenSSH(tmp_path / "sshd", options=SUBSYSTEM) as server:
        far = opened(config_for(server, tmp_path / "far"))
        catalog = Catalog(tmp_path / "cache")
        for vault in (near, far):
            prepare(vault, [RECIPIENT])
        snapshot = begin(near, far)
        snapshot.write("first", io.BytesIO(bytes(MIB)), compress=False)
        kill_sessions(server)
        server.stop()
        snapshot.write("second", io.BytesIO(bytes(MIB)), compress=False)
        made = snapshot.commit({})
        assert snapshot.vaults == ("near",)
        assert "offsite" in snapshot.lacking["offsite"].sentence
        server.start()
        for vault in (near, far):
            catalog.refresh_vault(vault)
        assert [(found.id, found.vaults) for found in catalog.snapshots()] == [(made.id, ("near",))]
        again = begin(near, far)
        again.write("first", io.BytesIO(bytes(MIB)), compress=False)
        again.commit({})
        assert again.vaults == ("near", "offsite")
        for vault in (near, far):
            catalog.refresh_vault(vault)
        assert {found.vaults for found in catalog.snapshots()} == {("near",), ("near", "offsite")}
        assert temporaries(tmp_path / "far") == []
        far.close()


def begin(*vaults: Vault) -> Snapshot:
    return begin_snapshot(vaults, host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT])


def test_an_object_that_was_replaced_while_it_was_read(mortal: OpenSSH, tmp_path: Path) -> None:
    vault = opened(config_for(mortal, tmp_path / "vault"))
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "big").write_bytes(bytes(20 * MIB))
    with vault.read("big") as stored:
        stored.read(10)
        (tmp_path / "vault" / "big").write_bytes(bytes(30 * MIB))
        kill_sessions(mortal)
        with pytest.raises(VaultError, match="changed while it was read"):
            stored.read()
    vault.close()
