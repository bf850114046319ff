"""What is particular to a vault in a directory: modes, links, leftovers, and what the disk says."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.config.schema import DirectoryVault as DirectoryConfig
from backends.config.schema import S3Vault, SftpVault
from backends.errors import Locked, NotFound, VaultError, VaultFull
from backends.vault.directory import DirectoryVault
from backends.vault.lease import take_lease
from backends.vault.machine import is_network, machine_of
from backends.vault.open import open_vault

TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def vault(tmp_path: Path) -> DirectoryVault:
    return DirectoryVault("v", tmp_path / "above" / "vault")


def test_modes_keep_others_out(vault: DirectoryVault) -> None:
    before = os.umask(0)
    try:
        vault.put_new("hosts/a/one", b"x")
        with vault.open_upload("hosts/a/two") as upload:
            upload.commit()
    finally:
        os.umask(before)
    for path in vault.path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o700


def test_links_are_never_followed(vault: DirectoryVault, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    vault.put_new("hosts/a/one", b"x")
    (vault.path / "hosts" / "link").symlink_to(outside)
    (vault.path / "hosts" / "a" / "file").symlink_to(outside / "precious")
    assert [found.key for found in vault.list()] == ["hosts/a/one"]
    assert list(vault.list("hosts/link/")) == []
    for attempt in (
        lambda: vault.put_new("hosts/link/new", b"x"),
        lambda: vault.open_upload("hosts/link/new"),
        lambda: vault.read("hosts/link/precious"),
        lambda: vault.read("hosts/a/file"),
    ):
        with pytest.raises(VaultError):
            attempt()
    vault.delete("hosts/link/precious")
    vault.delete("hosts/a/file")
    assert (outside / "precious").read_text() == "kept"
    assert [path.name for path in outside.iterdir()] == ["precious"]


def test_foreign_names_are_passed_over(vault: DirectoryVault) -> None:
    vault.put_new("hosts/a/one", b"x")
    (vault.path / "lost+found").mkdir()
    (vault.path / "hosts" / "with space").write_text("x")
    (vault.path / "hosts" / ".hidden").mkdir()
    (vault.path / "hosts" / ".hidden" / "two").write_text("x")
    (vault.path / os.fsdecode(b"hosts/\xff")).write_text("x")
    os.mkfifo(vault.path / "hosts" / "pipe")
    assert [found.key for found in vault.list()] == ["hosts/a/one"]
    with pytest.raises(VaultError):
        vault.read("hosts/pipe")
    with pytest.raises(VaultError):
        vault.read("hosts/a")


def test_leftovers_are_removed_by_age(vault: DirectoryVault) -> None:
    vault.put_new("hosts/a/one", b"x")
    broken = vault.open_upload("hosts/b/two")
    broken.write(b"half")
    (vault.path / "hosts" / "a" / ".mine").write_text("not ours")
    assert [found.key for found in vault.list()] == ["hosts/a/one"]
    assert vault.clean_leftovers(datetime.now(UTC) - timedelta(days=1)) == 0
    assert vault.clean_leftovers(TOMORROW) == 1
    assert (vault.path / "hosts" / "a" / ".mine").exists()
    assert [found.key for found in vault.list()] == ["hosts/a/one"]


def test_deleting_leaves_no_empty_directories(vault: DirectoryVault) -> None:
    vault.put_new("hosts/a/b/one", b"x")
    vault.delete("hosts/a/b/one")
    assert list(vault.path.iterdir()) == []


def test_a_vault_that_is_not_there_is_made_when_written_to(vault: DirectoryVault) -> None:
    assert list(vault.list()) == []
    with pytest.raises(NotFound):
        vault.read("a")
    vault.delete("a")
    assert vault.clean_leftovers(TOMORROW) == 0
    assert (vault.free_bytes() or 0) > 0
    assert not vault.path.exists()
    vault.put_new("a", b"x")
    assert vault.path.is_dir()


def test_a_file_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "vault").write_text("x")
    vault = DirectoryVault("v", tmp_path / "vault")
    with pytest.raises(VaultError) as caught:
        vault.put_new("a", b"x")
    assert str(tmp_path) in caught.value.sentence


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, VaultFull, "no room left"),
        (errno.EDQUOT, VaultFull, "no room left"),
        (errno.EROFS, VaultError, "is read-only"),
        (errno.EACCES, VaultError, "may not be used"),
        (errno.EIO, VaultError, "Input/output error"),
    ],
)
def test_what_the_disk_says_becomes_a_sentence(
    vault: DirectoryVault, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[VaultError], says: str
) -> None:
    def fail(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    upload = vault.open_upload("a")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(kind, match=says):
            upload.write(b"x")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(kind, match=says):
            upload.commit()
    assert list(vault.path.iterdir()) == []


def test_without_links_put_new_still_never_replaces(vault: DirectoryVault, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    vault.put_new("a", b"first")
    with pytest.raises(VaultError):
        vault.put_new("a", b"second")
    with vault.read("a") as stored:
        assert stored.read() == b"first"
    assert [path.name for path in vault.path.iterdir()] == ["a"]


def test_objects_are_synced_before_they_are_seen(vault: DirectoryVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then its name, then the directory: in that order, for both ways to write."""
    done: list[str] = []
    vault.put_new("there", b"x")

    def note(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(first: object, *args: object, **kwargs: object) -> object:
            is_directory = isinstance(first, int) and stat.S_ISDIR(os.fstat(first).st_mode)
            done.append(name + (" directory" if name == "fsync" and is_directory else ""))
            return real(first, *args, **kwargs)

        return call

    for name in ("fsync", "rename", "link"):
        monkeypatch.setattr(os, name, note(name, getattr(os, name)))
    vault.put_new("a", b"x")
    assert done == ["fsync", "link", "fsync directory"]
    done.clear()
    with vault.open_upload("b") as upload:
        upload.write(b"x")
        upload.commit()
    assert done == ["fsync", "rename", "fsync directory"]
    done.clear()
    vault.put_new("new/a", b"x")
    assert done == ["fsync directory", "fsync", "link", "fsync directory"]


def test_kinds_are_opened_by_their_table(tmp_path: Path) -> None:
    vault = open_vault("local", DirectoryConfig(type="directory", path=tmp_path))
    assert (vault.name, vault.offsite, vault.where) == ("local", False, str(tmp_path))
    assert open_vault("far", DirectoryConfig(type="directory", path=tmp_path, offsite=True)).offsite
    bucket = open_vault("cloud", S3Vault(type="s3", bucket="b", prefix="p/"))
    assert (bucket.name, bucket.offsite, bucket.where) == ("cloud", True, "s3://b/p")
    assert open_vault("nas", SftpVault(type="sftp", address="a", path="p")).offsite


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /mnt/nas rw - nfs4 nas:/export rw
31 30 0:31 / /mnt/nas/local\\040disk rw - ext4 /dev/sdb1 rw
32 22 0:32 / /mnt/ssh rw - fuse.sshfs me@host:/ rw
33 22 0:33 / /mnt/over rw - nfs4 nas:/x rw
34 22 0:34 / /mnt/over rw - tmpfs tmpfs rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/srv/vault", False),
        ("/mnt/nas/vault", True),
        ("/mnt/nasty", False),
        ("/mnt/nas", True),
        ("/mnt/nas/local disk/vault", False),
        ("/mnt/ssh/a/b", True),
        ("/mnt/over/a", False),
    ],
)
def test_network_file_systems_are_known(path: str, network: bool) -> None:
    assert is_network(Path(path), MOUNTS) is network


def test_the_machine_is_this_one(tmp_path: Path) -> None:
    own = Path("/etc/machine-id")
    expected = own.read_text().strip() if own.exists() else None
    assert machine_of(tmp_path) == (expected or machine_of(tmp_path))


def test_without_hard_links_puts_are_not_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DirectoryVault("v", tmp_path).exclusive()

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refused)
    vault = DirectoryVault("v", tmp_path)
    assert not vault.exclusive()
    assert not vault.exclusive()
    lease = take_lease(vault, "social/media/write", run="r1", doing="backed up")
    with pytest.raises(Locked):
        take_lease(vault, "social/media/write", run="r2", doing="backed up")
    lease.release()
    assert not list(tmp_path.rglob(".*"))
    monkeypatch.setattr(os, "link", lambda *_, **__: Path("/nowhere").stat())
    with pytest.raises(VaultError):
        DirectoryVault("v", tmp_path).exclusive()
