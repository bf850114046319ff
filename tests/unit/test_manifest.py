"""Manifests come from vaults that others can write to: each is checked before anything in it is used."""

from __future__ import annotations

import io
import json
import secrets
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.archive.keys import new_identity
from backends.archive.layout import MANIFEST_KEY, MAX_MANIFEST, SNAPSHOT_ID, new_snapshot_id, stamp, time_of
from backends.archive.manifest import Manifest, is_unchanged, written
from backends.archive.reader import object_key, open_object, open_stored, parse_manifest, read_manifest
from backends.archive.writer import begin_snapshot
from backends.errors import Damaged, KeyUnavailable, MastovaultError, NotFound, VaultFormatTooNew
from backends.model import Asset, utc_now
from backends.vault.directory import DirectoryVault

ID = "social/database/20261122T140211Z-0123abcd"
KEY = f"hosts/{ID}/manifest.json"
GOOD: dict[str, Any] = {
    "format": 1,
    "id": ID,
    "host": "social",
    "asset": "database",
    "run": "r1",
    "started_at": "2026-11-22T14:02:11.123456Z",
    "finished_at": "2026-11-22T14:03:00Z",
    "tool_version": "0.1.0",
    "recipients": ["age1x"],
    "objects": [
        {"name": "a.age", "key": "", "bytes": 5, "sha256": "00", "codecs": ["age"], "plain_bytes": 3},
        {"name": "p", "key": "hosts/social/media/packs/p", "bytes": 7, "sha256": "", "codecs": [], "plain_bytes": 3},
    ],
}


def changed(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def with_object(**changes: Any) -> bytes:
    document = deepcopy(GOOD)
    document["objects"][0] |= changes
    return json.dumps(document).encode()


def test_a_good_one() -> None:
    manifest = parse_manifest(KEY, changed(unknown="of a later minor version"))
    assert manifest.id == ID
    assert manifest.bytes == 12
    assert not manifest.in_part


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 200_000,
        b'{"format": 1e999}',
        changed(id=ID.replace("abcd", "abce")),
        changed(host="other"),
        changed(asset="media"),
        changed(asset="everything"),
        changed(started_at="2026-11-22T14:02:12Z"),
        changed(started_at="2026-11-22T14:02:11"),
        changed(finished_at="2026-11-22T14:00:00Z"),
        changed(finished_at="+99999-01-01T00:00:00Z"),
        changed(objects=None),
        with_object(name="../../../etc/passwd"),
        with_object(name=""),
        with_object(key="/etc/passwd"),
        with_object(key="hosts/other/media/packs/p"),
        with_object(key="hosts/social/../other/x"),
        with_object(bytes=-1),
        with_object(bytes=10**30),
        with_object(plain_bytes=10**30),
        with_object(codecs=["rot13"]),
        b" " * (MAX_MANIFEST + 1),
    ],
)
def test_bad_ones(data: bytes) -> None:
    with pytest.raises(Damaged):
        parse_manifest(KEY, data)


@pytest.mark.parametrize("data", [changed(format=2), b'{"format": 3, "all": "different"}'])
def test_newer_ones(data: bytes) -> None:
    with pytest.raises(VaultFormatTooNew):
        parse_manifest(KEY, data)


def test_one_in_another_place() -> None:
    for key in (f"hosts/{ID}/other.json", "hosts/social/manifest.json", f"{ID}/manifest.json", KEY + "x"):
        with pytest.raises(Damaged):
            parse_manifest(key, changed())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_in_any_place(name: str, value: Any) -> None:
    try:
        parsed = parse_manifest(KEY, json.dumps(GOOD | {name: value}).encode("utf-8", "surrogatepass"))
    except MastovaultError:
        return
    assert (parsed.id, parsed.host) == (GOOD["id"], GOOD["host"])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MastovaultError):
        parse_manifest(KEY, data)


def test_ids() -> None:
    now = utc_now()
    made = new_snapshot_id("social.example", Asset.SECRETS, now)
    assert SNAPSHOT_ID.fullmatch(made)
    assert stamp(time_of(made)) == stamp(now)
    for host in ("", "..", "a/b", "-a", "ä", "a" * 64):
        with pytest.raises(ValueError, match="no host name"):
            new_snapshot_id(host, Asset.SECRETS, now)
    match = MANIFEST_KEY.fullmatch(KEY)
    assert match is not None
    assert match["id"] == ID


def stored(place: Path, data: bytes, *, compress: bool) -> tuple[DirectoryVault, Manifest, list[Any]]:
    vault = DirectoryVault("v", place / "vault")
    identity, recipient = new_identity()
    snapshot = begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="r", recipients=[recipient])
    snapshot.write("a", io.BytesIO(data), compress=compress)
    snapshot.commit({})
    return vault, read_manifest(vault, snapshot.id), [pyrage.x25519.Identity.from_str(identity.reveal())]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("size", [0, 1, 200_000])
def test_objects_are_read_back(tmp_path: Path, size: int, compress: bool) -> None:
    data = secrets.token_bytes(size)
    vault, manifest, identities = stored(tmp_path, data, compress=compress)
    with open_object(vault, manifest, manifest.objects[0], identities) as plain:
        assert plain.read() == data
    open_stored(vault, manifest, manifest.objects[0]).drain()


@pytest.mark.parametrize("where", [0, 30, 120, 250, 100_000, -1])
def test_a_changed_object_is_damaged_and_not_a_missing_key(tmp_path: Path, where: int) -> None:
    vault, manifest, identities = stored(tmp_path, secrets.token_bytes(200_000), compress=False)
    path = vault.path / object_key(manifest, manifest.objects[0])
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Damaged), open_object(vault, manifest, manifest.objects[0], identities) as plain:
        plain.read()
    with pytest.raises(Damaged):
        open_stored(vault, manifest, manifest.objects[0]).drain()


def test_the_wrong_key_is_a_missing_key(tmp_path: Path) -> None:
    vault, manifest, _ = stored(tmp_path, b"x", compress=True)
    with (
        pytest.raises(KeyUnavailable),
        open_object(vault, manifest, manifest.objects[0], [pyrage.x25519.Identity.generate()]) as plain,
    ):
        plain.read()


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_another_length_is_damaged(tmp_path: Path, change: Any) -> None:
    vault, manifest, identities = stored(tmp_path, b"x" * 100, compress=True)
    path = vault.path / object_key(manifest, manifest.objects[0])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(Damaged), open_object(vault, manifest, manifest.objects[0], identities) as plain:
        plain.read()
    path.unlink()
    with pytest.raises(NotFound):
        open_object(vault, manifest, manifest.objects[0], identities)


def test_another_object_encrypted_to_the_same_key_is_noticed(tmp_path: Path) -> None:
    """Whoever can write to a vault knows the recipients and can make a valid age file."""
    vault, manifest, identities = stored(tmp_path, b"x" * 100, compress=False)
    path = vault.path / object_key(manifest, manifest.objects[0])
    recipients = [identity.to_public() for identity in identities]
    path.write_bytes(pyrage.encrypt(b"y" * 100, recipients))
    with pytest.raises(Damaged), open_object(vault, manifest, manifest.objects[0], identities) as plain:
        plain.read()


@given(st.data())
@settings(max_examples=300)
def test_a_manifest_that_was_changed_is_noticed(data: st.DataObject) -> None:
    whole = written(parse_manifest(KEY, changed()))
    assert is_unchanged(whole) is True
    assert parse_manifest(KEY, whole) == parse_manifest(KEY, changed())
    at, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    other = whole[:at] + bytes([byte]) + whole[at + 1 :]
    assert other == whole or is_unchanged(other) is not True
    assert is_unchanged(whole[: data.draw(st.integers(0, len(whole) - 1))]) is not True
    assert is_unchanged(data.draw(st.binary(max_size=200))) is not True


def test_a_changed_fact_is_refused_by_every_reader() -> None:
    whole = written(parse_manifest(KEY, changed(facts={"rows": 300})))
    with pytest.raises(Damaged, match="changed after it was written"):
        parse_manifest(KEY, whole.replace(b"300", b"301"))
    assert parse_manifest(KEY, changed(facts={"rows": 301})).facts == {"rows": 301}, "one without is read as it is"
