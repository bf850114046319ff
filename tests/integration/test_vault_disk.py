"""A vault on a disk that is full, read-only or somebody else's, and a writer that is killed."""

from __future__ import annotations

import io
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.keys import new_identity
from backends.archive.writer import begin_snapshot
from backends.catalog import Catalog
from backends.errors import VaultError, VaultFull
from backends.model import Asset
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.servers.need import need, need_root

_, RECIPIENT = new_identity()
MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    need_root("to mount a small file system")
    mount, umount = need("mount", "umount")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs, which this container does not give")
    yield place
    subprocess.run([umount, "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Write a file until there is no room."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_that_fills_up_half_way(small_disk: Path) -> None:
    vault = DirectoryVault("v", small_disk / "vault")
    prepare(vault, [RECIPIENT])
    before = [found.key for found in vault.list()]
    snapshot = begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT])
    snapshot.write("globals.sql", io.BytesIO(secrets.token_bytes(MIB)), compress=False)
    with pytest.raises(VaultFull) as caught:
        snapshot.write("database.pgdump", io.BytesIO(secrets.token_bytes(8 * MIB)), compress=False)
    assert str(small_disk) in caught.value.sentence
    assert caught.value.next_step
    snapshot.discard()
    assert [found.key for found in vault.list()] == before
    assert (vault.free_bytes() or 0) > 3 * MIB, "what was written is gone again"


def test_the_other_vault_goes_on(small_disk: Path, tmp_path: Path) -> None:
    small, big = DirectoryVault("small", small_disk / "vault"), DirectoryVault("big", tmp_path / "big")
    for vault in (small, big):
        prepare(vault, [RECIPIENT])
    snapshot = begin_snapshot([small, big], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT])
    snapshot.write("database.pgdump", io.BytesIO(secrets.token_bytes(8 * MIB)), compress=False)
    snapshot.commit({})
    assert snapshot.vaults == ("big",)
    assert "no room left" in snapshot.lacking["small"].sentence
    assert list(small.list("hosts/")) == []
    catalog = Catalog(tmp_path / "cache")
    catalog.refresh_vault(small)
    catalog.refresh_vault(big)
    assert [found.vaults for found in catalog.snapshots()] == [("big",)]


def test_a_disk_without_room_for_the_manifest(small_disk: Path) -> None:
    vault = DirectoryVault("v", small_disk / "vault")
    prepare(vault, [RECIPIENT])
    snapshot = begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT])
    snapshot.write("a", io.BytesIO(b"x"), compress=False)
    filler = small_disk / "filler"
    fill(filler)
    with pytest.raises(VaultFull):
        snapshot.commit({"rows": 5})
    filler.unlink()
    snapshot.discard()
    assert list(vault.list("hosts/")) == []


def test_a_disk_that_is_read_only(small_disk: Path, tmp_path: Path) -> None:
    vault = DirectoryVault("v", small_disk / "vault")
    prepare(vault, [RECIPIENT])
    made = begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT]).commit({})
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(VaultError, match="is read-only"):
        begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT]).write(
            "a", io.BytesIO(b"x"), compress=False
        )
    catalog = Catalog(tmp_path / "cache")
    catalog.refresh_vault(vault)
    assert [found.id for found in catalog.snapshots()] == [made.id]


def test_a_directory_of_somebody_else() -> None:
    need_root("to become nobody")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        vault = DirectoryVault("v", Path(place))
        os.seteuid(65534)
        try:
            with pytest.raises(VaultError) as caught:
                vault.put_new("a", b"x")
        finally:
            os.seteuid(0)
        assert caught.value.sentence == f"{place} may not be used by this user"
        assert caught.value.next_step


KILLED = """
import sys
from pathlib import Path
from backends.archive.writer import begin_snapshot
from backends.model import Asset
from backends.vault.directory import DirectoryVault

class Endless:
    read_so_far = 0
    def read(self, size=-1, /):
        self.read_so_far += 1
        if self.read_so_far == 60:
            print("half way", flush=True)
        return b"x" * 200_000

vault = DirectoryVault("v", Path(sys.argv[1]))
snapshot = begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="r", recipients=[sys.argv[2]])
snapshot.write("globals.sql", open("/etc/passwd", "rb"), compress=True)
snapshot.write("database.pgdump", Endless(), compress=False)
"""


def test_a_writer_that_is_killed_leaves_nothing_that_is_listed(tmp_path: Path) -> None:
    vault = DirectoryVault("v", tmp_path / "vault")
    prepare(vault, [RECIPIENT])
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(vault.path), RECIPIENT], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half way\n"
    writer.send_signal(signal.SIGKILL)
    assert writer.wait(60) == -signal.SIGKILL
    writer.stdout.close()
    catalog = Catalog(tmp_path / "cache")
    status = catalog.refresh_vault(vault)
    assert (status.error, status.snapshots, status.unreadable) == ("", 0, 0)
    left = [found.key.rpartition("/")[2] for found in vault.list("hosts/")]
    assert left == ["globals.sql.zst.age"], "a leftover that prune removes"
    assert vault.clean_leftovers(datetime.now(UTC) + timedelta(days=1)) == 1
    assert not [path for path in vault.path.rglob(".*") if path.is_file()]
    assert os.path.lexists(vault.path)
