"""What is stored opens with the real `age`, `zstd`, `tar` and `sha256sum`, without a line of this project."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import re
import secrets
import select
import subprocess
import tarfile
from pathlib import Path

import pytest

from backends.archive import keys
from backends.archive.packs import pack_key
from backends.archive.writer import begin_snapshot
from backends.model import Asset, Secret
from backends.vault.directory import DirectoryVault
from backends.vault.format import README, prepare
from tests.servers.need import need

DATA = secrets.token_bytes(100_000) * 7


@pytest.fixture
def identity(tmp_path: Path) -> tuple[Path, str]:
    made, recipient = keys.new_identity()
    path = tmp_path / "identity.age"
    keys.write_identity(path, made, None)
    return path, recipient


def run(*argv: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(argv, input=stdin, capture_output=True, check=True, timeout=60).stdout


def test_age_and_zstd_open_an_object(tmp_path: Path, identity: tuple[Path, str]) -> None:
    age, zstd, sha256sum = need("age", "zstd", "sha256sum")
    path, recipient = identity
    vault = DirectoryVault("v", tmp_path / "vault")
    prepare(vault, [recipient])
    snapshot = begin_snapshot([vault], host="social", asset=Asset.REDIS, run="r", recipients=[recipient])
    snapshot.write("dump.rdb", io.BytesIO(DATA), compress=True)
    snapshot.write("plain", io.BytesIO(DATA), compress=False)
    snapshot.commit({})
    place = vault.path / "hosts" / snapshot.id
    compressed = run(age, "-d", "-i", str(path), str(place / "dump.rdb.zst.age"))
    assert run(zstd, "-d", "-q", "-c", stdin=compressed) == DATA
    assert b"Check: XXH64" in run(zstd, "-l", "-v", _kept(tmp_path, compressed))
    assert run(age, "-d", "-i", str(path), str(place / "plain.age")) == DATA
    manifest = json.loads((place / "manifest.json").read_text())
    for entry in manifest["objects"]:
        assert run(sha256sum, str(place / entry["name"])).split()[0].decode() == entry["sha256"]
        assert hashlib.sha256(DATA).hexdigest() == entry["plain_sha256"]


def _kept(place: Path, data: bytes) -> str:
    path = place / "stream.zst"
    path.write_bytes(data)
    return str(path)


def test_age_writes_what_is_read_here(tmp_path: Path, identity: tuple[Path, str]) -> None:
    (age,) = need("age")
    path, recipient = identity
    from backends.archive.codec import unseal

    stored = run(age, "-r", recipient, stdin=DATA)
    with unseal(io.BytesIO(stored), keys.load_identities(path, lambda prompt: None), ("age",)) as plain:
        assert plain.read() == DATA


def test_an_identity_of_age_keygen_is_read(tmp_path: Path) -> None:
    (keygen,) = need("age-keygen")
    path = tmp_path / "theirs.age"
    run(keygen, "-o", str(path))
    (loaded,) = keys.load_identities(path, lambda prompt: None)
    assert str(loaded.to_public()) in path.read_text()


def test_age_keygen_reads_ours(identity: tuple[Path, str]) -> None:
    (keygen,) = need("age-keygen")
    path, recipient = identity
    assert run(keygen, "-y", str(path)).decode().strip() == recipient


def test_age_opens_an_identity_with_a_passphrase(tmp_path: Path) -> None:
    (age,) = need("age")
    made, recipient = keys.new_identity()
    path = tmp_path / "identity.age"
    keys.write_identity(path, made, Secret("correct horse"))
    (tmp_path / "stored.age").write_bytes(run(age, "-r", recipient, stdin=b"data"))
    command = [age, "-d", "-i", str(path), "-o", str(tmp_path / "plain"), str(tmp_path / "stored.age")]
    _type_passphrase(command, "correct horse")
    assert (tmp_path / "plain").read_bytes() == b"data"


def _type_passphrase(command: list[str], passphrase: str) -> None:
    """Run a command that asks on its terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execv(command[0], command)
        finally:
            os._exit(127)
    shown, typed = b"", False
    while select.select([terminal], [], [], 60)[0]:
        try:
            piece = os.read(terminal, 1000)
        except OSError:
            break
        shown += piece
        if not piece:
            break
        if b"passphrase" in shown.lower() and not typed:
            os.write(terminal, passphrase.encode() + b"\n")
            typed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, shown


def test_the_readme_in_the_vault_restores_media(tmp_path: Path, identity: tuple[Path, str]) -> None:
    """The commands for media, run as they stand in README.txt but for the two paths."""
    need("age", "tar", "zstd")
    path, recipient = identity
    vault = DirectoryVault("v", tmp_path / "vault")
    prepare(vault, [recipient])
    snapshot = begin_snapshot([vault], host="social", asset=Asset.MEDIA, run="r", recipients=[recipient])
    for number in range(2):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            info = tarfile.TarInfo(f"accounts/{number}.png")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"%d" % number * 5))
        packed.seek(0)
        snapshot.write_shared(pack_key("social", f"{number:032x}"), packed, compress=False)
    snapshot.write("files.ndjson", io.BytesIO(b"{}\n"), compress=True)
    snapshot.commit({})
    text = (vault.path / README).read_text()
    found = re.search(r"    cd TIME-ID.*?done\n", text, re.DOTALL)
    assert found is not None
    target = tmp_path / "system"
    script = found[0].replace("TIME-ID", str(vault.path / "hosts" / snapshot.id)).replace("/srv/system", str(target))
    script = script.replace("/path/to/identity.age", str(path))
    run("sh", "-e", "-c", script)
    assert {str(each.relative_to(target)): each.read_bytes() for each in target.rglob("*") if each.is_file()} == {
        "accounts/0.png": b"00000",
        "accounts/1.png": b"11111",
    }
