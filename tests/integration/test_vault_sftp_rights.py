"""SFTP vaults where not everything is allowed, or known: other accounts, chroots, full disks, other makers' servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.keys import new_identity
from backends.errors import AlreadyExists, VaultDenied, VaultError, VaultFull
from backends.operations.vault_check import prove
from backends.vault.format import prepare, read_format
from backends.vault.machine import machine_of
from backends.vault.sftp import SftpVault
from backends.vault.sftp_packets import FSYNC, HARDLINK, LIMITS, POSIX_RENAME, STATVFS
from tests.servers.need import need, need_root
from tests.servers.openssh import OpenSSH
from tests.servers.sftp import SUBSYSTEM, SimpleServer, config_for

MIB = 1024 * 1024
USER = "nobody"
"""An account that every system has; its sessions need no shell."""


def opened(server: OpenSSH, path: Path | str, *, user: str | None = None) -> SftpVault:
    return SftpVault("v", config_for(server, path, user=user), patience=10)


def upload(vault: SftpVault, key: str, data: bytes) -> None:
    with vault.open_upload(key) as writing:
        writing.write(data)
        writing.commit()


def fill(vault: SftpVault) -> None:
    for number in range(50):
        vault.put_new(f"hosts/a/{number}", b"")


def everything(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir())


@pytest.fixture
def jail() -> Iterator[Path]:
    """A directory that sshd takes for a chroot: root's own, and so is all above it. In it a directory of the user's."""
    need_root("for a chroot")
    place = Path(tempfile.mkdtemp(prefix="mastovault-chroot-", dir="/var/lib"))
    place.chmod(0o755)
    (place / "backups").mkdir()
    shutil.chown(place / "backups", USER)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def jailed(jail: Path, tmp_path: Path) -> Iterator[OpenSSH]:
    options = f"{SUBSYSTEM}\nForceCommand internal-sftp\nChrootDirectory {jail}\nAllowTcpForwarding no"
    with OpenSSH(tmp_path / "sshd", options=options) as server:
        yield server


def test_an_ordinary_user_in_a_chroot(jail: Path, jailed: OpenSSH) -> None:
    vault = opened(jailed, "/backups/vault", user=USER)
    assert vault.exclusive()
    prepare(vault, ["age1a"])
    upload(vault, "hosts/a/b", b"x" * MIB)
    assert [found.key for found in vault.list()] == ["README.txt", "hosts/a/b", "mastovault.json"]
    assert (jail / "backups/vault/hosts/a/b").owner() == USER
    assert vault.machine_id() == machine_of(jail)  # the address is this machine's, though nothing can be read there
    assert prove(vault).good
    with pytest.raises(VaultDenied, match="does not let this account write"):
        opened(jailed, "/vault", user=USER).put_new("a", b"x")
    vault.close()


def test_somebody_elses_directory(jail: Path, jailed: OpenSSH) -> None:
    (jail / "closed").mkdir(mode=0o700)
    (jail / "readable").mkdir(mode=0o755)
    (jail / "readable" / "a").write_bytes(b"x")
    closed, readable = (opened(jailed, f"/{name}", user=USER) for name in ("closed", "readable"))
    with pytest.raises(VaultDenied):
        list(closed.list())
    with pytest.raises(VaultDenied):
        closed.read("a")
    with pytest.raises(VaultDenied):
        readable.delete("a")
    with readable.read("a") as stored:
        assert stored.read() == b"x"
    closed.close()
    readable.close()


def test_a_server_that_only_lets_read(tmp_path: Path) -> None:
    place = tmp_path / "vault"
    (place / "hosts").mkdir(parents=True)
    (place / "hosts" / "a").write_bytes(b"x")
    with OpenSSH(tmp_path / "sshd", options=f"{SUBSYSTEM} -R") as server:
        vault = opened(server, place)
        with vault.read("hosts/a") as stored:
            assert stored.read() == b"x"
        with pytest.raises(VaultDenied):
            vault.put_new("b", b"x")
        with pytest.raises(VaultDenied):
            vault.open_upload("hosts/a")
        with pytest.raises(VaultDenied):
            vault.delete("hosts/a")
        assert not vault.exclusive()
        report = prove(vault)
        assert not report.usable
        assert [step.name for step in report.steps if step.ok] == ["reach", "list"]
        vault.close()
    assert everything(place) == ["hosts/a"]


def test_an_account_that_may_only_add(tmp_path: Path) -> None:
    """No request that removes or replaces is allowed; nothing that a backup writes needs one."""
    place = tmp_path / "vault"
    denied = "remove,rmdir,posix-rename,setstat,fsetstat,lsetstat,symlink"
    with OpenSSH(tmp_path / "sshd", options=f"{SUBSYSTEM} -P {denied}") as server:
        vault = opened(server, place)
        prepare(vault, ["age1a"])
        upload(vault, "hosts/a/b", b"first")
        vault.put_new("hosts/a/c", b"x")
        with pytest.raises(AlreadyExists):
            vault.put_new("hosts/a/c", b"y")
        with pytest.raises(VaultDenied):
            upload(vault, "hosts/a/b", b"second")
        with pytest.raises(VaultDenied):
            vault.delete("hosts/a/b")
        with vault.read("hosts/a/b") as stored:
            assert stored.read() == b"first"
        report = prove(vault)
        assert report.usable
        assert not report.good
        failed = {step.name: step.said for step in report.steps if not step.ok}
        assert set(failed) == {"replace", "delete"}
        assert "prune does not" in failed["delete"]
        left = everything(place)
        for again in (vault, opened(server, place)):
            assert again.exclusive()
            again.close()
        assert everything(place) == left  # what was tried once stays, and is not tried again
        vault.close()


def test_a_disk_without_room(tmp_path: Path) -> None:
    need_root("to mount a small file system")
    mount, umount = need("mount", "umount")
    place = tmp_path / "disk"
    place.mkdir()
    made = [mount, "-t", "tmpfs", "-o", "size=6m,nr_inodes=40", "tmpfs", str(place)]
    if subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs, which this container does not give")
    try:
        with OpenSSH(tmp_path / "sshd", options=SUBSYSTEM) as server:
            vault = opened(server, place / "vault")
            prepare(vault, [new_identity()[1]])
            with pytest.raises(VaultFull, match="no room left"):
                upload(vault, "hosts/a/b", os.urandom(8 * MIB))
            assert everything(place) == ["vault/README.txt", "vault/mastovault.json"]
            upload(vault, "hosts/a/b", os.urandom(MIB))
            (place / "filler").write_bytes(bytes(4 * MIB))
            with pytest.raises(VaultFull, match="no room left"):
                vault.put_new("hosts/a/c", bytes(2 * MIB))
            (place / "filler").unlink()
            with pytest.raises(VaultFull, match="no room left"):
                fill(vault)
            vault.delete("hosts/a/0")
            vault.put_new("hosts/a/c", b"there is room again")
            subprocess.run([mount, "-o", "remount,ro", str(place)], check=True)
            with pytest.raises(VaultDenied, match="is read-only"):
                vault.put_new("hosts/a/d", b"x")
            with pytest.raises(VaultDenied, match="is read-only"):
                vault.delete("hosts/a/c")
            vault.close()
    finally:
        subprocess.run([umount, "-l", str(place)], check=True)


@pytest.mark.parametrize("extensions", [(), (POSIX_RENAME, HARDLINK, FSYNC, STATVFS, LIMITS)], ids=["plain", "rich"])
def test_a_server_of_another_maker(tmp_path: Path, extensions: tuple[bytes, ...]) -> None:
    place = tmp_path / "vault"
    with SimpleServer(tmp_path / "server", *extensions) as server:
        vault = SftpVault("v", server.config(place), patience=10)
        assert vault.exclusive() is bool(extensions)
        assert bool(vault.look().note) is not bool(extensions)
        assert (vault.free_bytes() is None) is not bool(extensions)
        prepare(vault, ["age1a"])
        prepare(vault, ["age1b"])
        known = read_format(vault)
        assert known is not None
        assert known.recipients == ("age1b",)
        with pytest.raises(AlreadyExists):
            vault.put_new("README.txt", b"x")
        data = os.urandom(3 * MIB)
        upload(vault, "hosts/a/b", data)
        with vault.read("hosts/a/b") as stored:
            assert stored.read() == data
        (place / "link").symlink_to(place / "hosts")
        assert [found.key for found in vault.list()] == ["README.txt", "hosts/a/b", "mastovault.json"]
        (place / "hosts" / ".old.part").write_text("half")
        assert vault.clean_leftovers(datetime.now(UTC) + timedelta(days=1)) == 1
        assert prove(vault).good
        vault.delete("hosts/a/b")
        vault.delete("hosts/a/b")
        assert everything(place) == ["README.txt", "link", "mastovault.json"]
        assert not (place / "hosts").exists()
        vault.close()


def test_a_directory_where_the_vault_cannot_be(tmp_path: Path) -> None:
    with SimpleServer(tmp_path / "server") as server:
        (tmp_path / "file").write_text("")
        vault = SftpVault("v", server.config(tmp_path / "file"), patience=10)
        with pytest.raises(VaultError):
            vault.put_new("a", b"x")
        assert list(vault.list()) == []
        vault.close()
