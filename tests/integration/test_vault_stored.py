"""What is stored opens with the real `age`, `zstd`, `tar` and `sha256sum`, without a line of this project."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import secrets
import select
import subprocess
from pathlib import Path

import pytest

from backends.archive import keys
from backends.archive.writer import begin_snapshot
from backends.model import Asset, Secret
from backends.vault.directory import DirectoryVault
from backends.vault.format import README, README_EDITION, README_TEXT, prepare
from tests.contract.faulty import FaultyVault
from tests.servers.need import need

_, RECIPIENT = keys.new_identity()
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


def test_an_older_readme_of_ours_is_replaced_and_nobody_elses(tmp_path: Path) -> None:
    vault = DirectoryVault("v", tmp_path / "vault")
    prepare(vault, [RECIPIENT])
    path = vault.path / README
    assert path.read_text() == README_TEXT
    first = README_TEXT.splitlines()[0]
    later = f"{first}\nmore\n\n(edition {README_EDITION + 1})\n"
    for text, becomes in ((f"{first}\nold\n", README_TEXT), ("mine\n", "mine\n"), (later, later)):
        path.write_text(text)
        prepare(vault, [RECIPIENT])
        assert path.read_text() == becomes


@pytest.mark.parametrize("call", ["open_upload", "write", "commit"])
def test_a_readme_that_may_not_be_replaced_is_no_fault(tmp_path: Path, call: str) -> None:
    vault = DirectoryVault("v", tmp_path / "vault")
    prepare(vault, [RECIPIENT])
    old = f"{README_TEXT.splitlines()[0]}\nold\n"
    (vault.path / README).write_text(old)
    prepare(FaultyVault(vault, call), [RECIPIENT])
    assert (vault.path / README).read_text() == old
