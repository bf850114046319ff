"""Signatures: who wrote a manifest, and that openssl agrees."""

from __future__ import annotations

import base64
import io
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.archive.keys import new_identity
from backends.archive.layout import manifest_key
from backends.archive.manifest import seal_of, written
from backends.archive.reader import parse_manifest, parse_sealed, read_manifest, read_sealed
from backends.archive.signing import (
    Signer,
    is_public_key,
    is_signed_by,
    load_signer,
    new_signing_key,
    signer_name,
    trust_of,
)
from backends.archive.writer import Guard, begin_snapshot
from backends.errors import Damaged, KeyUnavailable, LeaseLost, VaultError
from backends.model import Asset, Trust
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.servers.need import need
from tests.unit.test_manifest import KEY, changed

_, RECIPIENT = new_identity()


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return made(tmp_path_factory.mktemp("signing"))


def made(place: Path, name: str = "signing.pem") -> Signer:
    public = new_signing_key(place / name)
    signer = load_signer(place / name)
    assert signer.public == public
    return signer


def test_a_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "config" / "signing.pem"
    public = new_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_public_key(public)
    before = path.read_bytes()
    with pytest.raises(KeyUnavailable, match="is not overwritten"):
        new_signing_key(path)
    assert path.read_bytes() == before
    assert public in repr(load_signer(path))
    [secret] = [line for line in before.decode().splitlines() if not line.startswith("-")]
    assert secret not in repr(load_signer(path))


def test_a_link_is_not_followed_to_write(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyUnavailable, match="is not overwritten"):
        new_signing_key(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyUnavailable, match="could not be written"):
        new_signing_key(tmp_path / "file" / "key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    new_signing_key(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(KeyUnavailable, match="can be read by others") as caught:
        load_signer(tmp_path / "key")
    assert "chmod 600" in caught.value.next_step


@pytest.mark.parametrize("content", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(KeyUnavailable, match="no Ed25519 private key"):
        load_signer(tmp_path / "key")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="cannot be read: No such file"):
        load_signer(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyUnavailable, match="is no file"):
        load_signer(tmp_path / "pipe")


def test_keys_that_openssl_made(tmp_path: Path) -> None:
    (openssl,) = need("openssl")
    for name, more in (("ed25519", ""), ("rsa", "-pkeyopt rsa_keygen_bits:1024"), ("ed448", "")):
        command = [openssl, "genpkey", "-algorithm", name, *more.split(), "-out", name]
        subprocess.run(command, check=True, cwd=tmp_path)
        (tmp_path / name).chmod(0o600)
    assert is_public_key(load_signer(tmp_path / "ed25519").public)
    for name in ("rsa", "ed448"):
        with pytest.raises(KeyUnavailable, match="no Ed25519 private key"):
            load_signer(tmp_path / name)
    lock = [openssl, "pkey", "-in", "ed25519", "-aes256", "-passout", "pass:x", "-out", "locked"]
    subprocess.run(lock, check=True, cwd=tmp_path)
    (tmp_path / "locked").chmod(0o600)
    with pytest.raises(KeyUnavailable, match="has a passphrase"):
        load_signer(tmp_path / "locked")


def test_the_words_for_trust() -> None:
    key, other = base64.b64encode(bytes(32)).decode(), base64.b64encode(b"\1" * 32).decode()
    signers = {"laptop": f" {key}\n"}
    assert trust_of("good", key, signers) is Trust.TRUSTED
    assert trust_of("good", other, signers) is Trust.FOREIGN
    assert trust_of("none", "", signers) is Trust.UNSIGNED
    assert trust_of("good", other, {}) is trust_of("none", "", {}) is Trust.UNCHECKED
    for known in (signers, {}):
        assert trust_of("bad", key, known) is Trust.CHANGED, "what is evidently changed needs no signer to be so"
    assert signer_name(key, signers) == "laptop"
    assert signer_name(other, signers) == "the key AQEBAQEBAQEB…"


def test_a_signed_manifest_is_read_back(signer: Signer, tmp_path: Path) -> None:
    manifest = parse_manifest(KEY, changed())
    data = written(manifest, signer)
    seal = seal_of(data)
    assert (seal.sha256, seal.signature, seal.signer) == ("good", "good", signer.public)
    assert parse_manifest(KEY, data) == manifest
    plain = seal_of(written(manifest))
    assert (plain.sha256, plain.signature, plain.signer) == ("good", "none", "")
    assert seal_of(changed()).sha256 == "absent"


def test_every_changed_byte_shows(signer: Signer) -> None:
    data = written(parse_manifest(KEY, changed()), signer)
    for place in range(len(data)):
        other = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        seal = seal_of(other)
        assert seal.sha256 != "good", place
        assert seal.signature != "good" or seal.sha256 == "absent", place


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_new_digest_does_not_help(signer: Signer, data: st.DataObject) -> None:
    """Whoever changes a signed manifest and writes the SHA-256 anew has a bad signature, or none at all."""
    import hashlib

    whole = written(parse_manifest(KEY, changed()), signer)
    body = whole[:-83]
    place = data.draw(st.integers(0, len(body) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != body[place]))
    body = body[:place] + bytes([byte]) + body[place + 1 :]
    forged = body + b',\n  "sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()
    seal = seal_of(forged)
    assert seal.sha256 == "good"
    assert seal.signature in {"bad", "none"}


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    assert seal_of(data).signature in {"none", "bad"}


@given(st.text(max_size=100), st.text(max_size=100))
def test_any_text_is_no_signature(public: str, signature: str) -> None:
    assert is_signed_by(b"body", public, signature) is False


def test_a_signature_holds_for_its_body_and_key_alone(signer: Signer, tmp_path: Path) -> None:
    other = made(tmp_path)
    signature = base64.b64encode(signer.sign(b"body")).decode()
    assert is_signed_by(b"body", signer.public, signature)
    assert not is_signed_by(b"body", other.public, signature)
    assert not is_signed_by(b"bodY", signer.public, signature)
    assert not is_signed_by(b"body", signer.public, signature.replace("==", "="))
    bare = base64.b64encode(signer._key.sign(b"body")).decode()
    assert not is_signed_by(b"body", signer.public, bare), "a signature over something else is none over a manifest"


def test_openssl_agrees(signer: Signer, tmp_path: Path) -> None:
    """The commands of README.txt and docs/recovery.md."""
    need("openssl", "sh", "base64")
    data = written(parse_manifest(KEY, changed()), signer)
    (tmp_path / "manifest.json").write_bytes(data)
    script = r"""
        { echo 'mastovault manifest 1'; head -c -253 manifest.json; } >signed
        tail -c 253 manifest.json | sed -n 's/^  "signature": "\(.*\)",$/\1/p' | base64 -d >signature
        printf -- '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA%s\n-----END PUBLIC KEY-----\n' "$SIGNER" >signer.pem
        openssl pkeyutl -verify -pubin -inkey signer.pem -rawin -in signed -sigfile signature
    """

    def verify(public: str) -> bool:
        environment = {**os.environ, "SIGNER": public}
        ran = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return ran.returncode == 0 and "Verified Successfully" in ran.stdout

    assert verify(signer.public)
    assert not verify(made(tmp_path).public)
    (tmp_path / "manifest.json").write_bytes(data.replace(b"social", b"sociaL", 1))
    assert not verify(signer.public)


def vault_at(place: Path, name: str) -> DirectoryVault:
    vault = DirectoryVault(name, place / name)
    prepare(vault, [RECIPIENT])
    return vault


def back_up(*vaults: Vault, sign: Signer | None = None, guard: Guard | None = None) -> str:
    snapshot = begin_snapshot(
        vaults, host="social", asset=Asset.REDIS, run="r1", recipients=[RECIPIENT], sign=sign, guard=guard
    )
    try:
        snapshot.write("dump.rdb", io.BytesIO(b"x" * 100), compress=True)
        snapshot.commit({})
    except BaseException:
        snapshot.discard()
        raise
    return snapshot.id


def test_the_writer_signs(tmp_path: Path, signer: Signer) -> None:
    one, two = vault_at(tmp_path, "one"), vault_at(tmp_path, "two")
    snapshot = back_up(one, two, sign=signer)
    for vault in (one, two):
        manifest, seal = read_sealed(vault, snapshot)
        assert (seal.signature, seal.signer) == ("good", signer.public)
        assert manifest == read_manifest(vault, snapshot)


def test_what_was_changed_is_read_as_such(tmp_path: Path, signer: Signer) -> None:
    vault = vault_at(tmp_path, "one")
    snapshot = back_up(vault, sign=signer)
    path = vault.path / manifest_key(snapshot)
    path.write_bytes(path.read_bytes().replace(b'"run": "r1"', b'"run": "r2"'))
    with pytest.raises(Damaged, match="was changed after it was written"):
        read_manifest(vault, snapshot)
    manifest, seal = read_sealed(vault, snapshot)
    assert (manifest.run, seal.signature) == ("r2", "bad")
    with pytest.raises(Damaged):
        parse_sealed("hosts/other/redis/20261122T140211Z-0123abcd/manifest.json", path.read_bytes())


@pytest.mark.parametrize("nth", [1, 2])
def test_a_vault_that_is_no_longer_ours_gets_nothing(tmp_path: Path, nth: int) -> None:
    """The guard is asked before a manifest is put and after; the vault that lost its lease keeps no trace."""
    good, lost = vault_at(tmp_path, "good"), vault_at(tmp_path, "lost")
    asked: list[str] = []

    def guard(vault: Vault) -> None:
        asked.append(vault.name)
        if vault is lost and asked.count("lost") == nth:
            assert [found.key for found in lost.list("hosts/")], "nothing was removed before it was asked"
            raise LeaseLost("the lease of lost was taken over")

    snapshot = back_up(lost, good, guard=guard)
    assert asked == ["lost"] * nth + ["good", "good"]
    assert read_manifest(good, snapshot)
    assert [found.key for found in lost.list("hosts/")] == []
    asked.clear()
    with pytest.raises(LeaseLost):
        back_up(lost, guard=guard)
    assert [found.key for found in lost.list("hosts/")] == []


def test_what_vanished_while_the_manifest_was_put_takes_it_back(tmp_path: Path) -> None:
    """A prune that was at work at the same time: what it removed is missed before the snapshot counts."""
    vault = vault_at(tmp_path, "one")

    class Pruned(DirectoryVault):
        def put_new(self, key: str, data: bytes) -> None:
            super().put_new(key, data)
            [gone] = [found.key for found in self.list("hosts/") if found.key.endswith(".age")]
            self.delete(gone)

    with pytest.raises(VaultError, match="lacks"):
        back_up(Pruned("one", vault.path))
    assert [found.key for found in vault.list("hosts/")] == []
