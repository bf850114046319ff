"""Writing snapshots into vaults that fail: nothing torn is ever listed, and one vault's fault is not the others'."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.keys import new_identity
from backends.archive.layout import SNAPSHOT_ID, snapshot_prefix
from backends.archive.reader import object_key, open_stored, read_manifest
from backends.archive.writer import Snapshot, begin_snapshot
from backends.errors import Cancelled, KeyUnavailable, NotFound, VaultError, VaultFormatTooNew
from backends.model import Asset
from backends.vault.base import StoredObject, Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import KEY, prepare
from tests.contract.faulty import CALLS, FaultyVault

_, RECIPIENT = new_identity()
DATA = bytes(range(256)) * 4000
PACK = "hosts/social/media/packs/0123.tar"


def directory(place: Path, name: str) -> DirectoryVault:
    vault = DirectoryVault(name, place / name)
    prepare(vault, [RECIPIENT])
    return vault


def begin(*vaults: Vault, log: Callable[[str], None] | None = None) -> Snapshot:
    return begin_snapshot(vaults, host="social", asset=Asset.MEDIA, run="r1", recipients=[RECIPIENT], log=log)


def whole(*vaults: Vault) -> Snapshot:
    """A snapshot with two objects of its own and a shared one."""
    snapshot = begin(*vaults)
    try:
        snapshot.write_shared(PACK, io.BytesIO(DATA), compress=False)
        snapshot.write("files.ndjson", io.BytesIO(DATA), compress=True)
        snapshot.write("more", io.BytesIO(b"x"), compress=False)
        snapshot.commit({"files": 1})
    except BaseException:
        snapshot.discard()
        raise
    return snapshot


def content(vault: Vault) -> list[str]:
    return [found.key for found in vault.list("hosts/")]


def is_intact(vault: Vault, snapshot_id: str) -> bool:
    """Whether a vault lists the snapshot; when it does, every object must be whole."""
    try:
        manifest = read_manifest(vault, snapshot_id)
    except NotFound:
        return False
    assert len(manifest.objects) == 3
    for entry in manifest.objects:
        open_stored(vault, manifest, entry).drain()
    return True


def test_a_snapshot_is_in_every_vault(tmp_path: Path) -> None:
    first, second = directory(tmp_path, "one"), directory(tmp_path, "two")
    snapshot = whole(first, second)
    assert SNAPSHOT_ID.fullmatch(snapshot.id)
    assert snapshot.vaults == ("one", "two")
    assert snapshot.lacking == {}
    assert is_intact(first, snapshot.id)
    assert is_intact(second, snapshot.id)
    assert content(first) == content(second)
    snapshot.discard()
    assert is_intact(first, snapshot.id), "discard does nothing after commit"


def test_names_and_codecs(tmp_path: Path) -> None:
    vault = directory(tmp_path, "one")
    snapshot = begin(vault)
    plain = snapshot.write("dump.rdb", io.BytesIO(DATA), compress=True)
    ready = snapshot.write("database.pgdump.zst", io.BytesIO(DATA), compress=False, already=("zstd",))
    shared = snapshot.write_shared(PACK, io.BytesIO(DATA), compress=False)
    manifest = snapshot.commit({})
    assert (plain.name, plain.codecs, plain.plain_bytes) == ("dump.rdb.zst.age", ["zstd", "age"], len(DATA))
    assert (ready.name, ready.codecs, ready.plain_sha256) == ("database.pgdump.zst.age", ["zstd", "age"], "")
    assert (shared.name, shared.key) == ("0123.tar.age", PACK + ".age")
    assert [object_key(manifest, entry) for entry in manifest.objects] == [
        snapshot_prefix(snapshot.id) + "dump.rdb.zst.age",
        snapshot_prefix(snapshot.id) + "database.pgdump.zst.age",
        PACK + ".age",
    ]


def test_manifests_hold_no_digest_of_a_secret(tmp_path: Path) -> None:
    vault = directory(tmp_path, "one")
    secrets = begin_snapshot([vault], host="h", asset=Asset.SECRETS, run="r", recipients=[RECIPIENT])
    assert secrets.write("environment.tar", io.BytesIO(b"PASSWORD=1234"), compress=False).plain_sha256 == ""
    database = begin_snapshot([vault], host="h", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT])
    assert database.write("globals.sql", io.BytesIO(b"PASSWORD 'md5'"), compress=True).plain_sha256 == ""
    assert database.write("database.pgdump", io.BytesIO(b"PGDMP"), compress=True).plain_sha256 != ""


def test_discard_removes_everything(tmp_path: Path) -> None:
    vault = directory(tmp_path, "one")
    snapshot = begin(vault)
    snapshot.write_shared(PACK, io.BytesIO(DATA), compress=False)
    snapshot.write("files.ndjson", io.BytesIO(DATA), compress=True)
    snapshot.discard()
    snapshot.discard()
    assert content(vault) == []
    assert vault.clean_leftovers(datetime.now(UTC) + timedelta(days=1)) == 0
    with pytest.raises(RuntimeError):
        snapshot.commit({})


@pytest.mark.parametrize("error", [Cancelled(), VaultError("source"), ValueError("bug"), KeyboardInterrupt()])
def test_what_the_source_raises_comes_through(tmp_path: Path, error: BaseException) -> None:
    vault = directory(tmp_path, "one")

    class Source:
        left = 3

        def read(self, size: int = -1, /) -> bytes:
            self.left -= 1
            if self.left:
                return DATA[:size]
            raise error

    snapshot = begin(vault)
    with pytest.raises(type(error)) as caught:
        snapshot.write("database.pgdump", Source(), compress=True)
    assert caught.value is error
    snapshot.discard()
    assert content(vault) == []
    assert threading.active_count() < 20


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_one_faulty_vault_of_two(tmp_path: Path, call: str, nth: int, after: bool, for_good: bool) -> None:
    good, inner = directory(tmp_path, "good"), directory(tmp_path, "bad")
    faulty = FaultyVault(inner, call, nth, after=after, for_good=for_good)
    snapshot = whole(faulty, good)
    assert is_intact(good, snapshot.id)
    if "bad" in snapshot.lacking:
        assert snapshot.vaults == ("good",)
        # a vault that has gone away with the manifest in it cannot be asked to give it back
        assert not is_intact(inner, snapshot.id) or (for_good and ((call == "put_new" and after) or call == "list"))
    else:
        assert snapshot.vaults == ("bad", "good")
        assert is_intact(inner, snapshot.id)
    if not for_good and "bad" in snapshot.lacking and call != "delete":
        assert content(inner) == []


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("nth", [1, 2])
def test_the_only_vault_is_faulty(tmp_path: Path, call: str, nth: int, after: bool, for_good: bool) -> None:
    inner = directory(tmp_path, "bad")
    faulty = FaultyVault(inner, call, nth, after=after, for_good=for_good)
    try:
        snapshot = whole(faulty)
    except VaultError:
        listed = [key for key in content(inner) if key.endswith("manifest.json")]
        assert listed == [] or (call == "put_new" and after and for_good)
        for key in listed:  # a manifest that could not be taken back stands for a whole snapshot
            assert is_intact(inner, key.removeprefix("hosts/").removesuffix("/manifest.json"))
    else:
        assert is_intact(inner, snapshot.id)


class Lossy(FaultyVault):
    """Says that it took an object and keeps less of it."""

    def __init__(self, inner: Vault, lose: str) -> None:
        super().__init__(inner, "", 0)
        self._lose = lose

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for found in self.inner.list(prefix):
            if self._lose not in found.key:
                yield found

    def size(self, key: str) -> int | None:
        if self._lose in key:
            raise NotFound(key)
        return super().size(key)


@pytest.mark.parametrize("lost", ["files.ndjson", "packs/"])
def test_commit_looks_at_what_is_there(tmp_path: Path, lost: str) -> None:
    good, inner = directory(tmp_path, "good"), directory(tmp_path, "bad")
    lines: list[str] = []
    snapshot = begin(Lossy(inner, lost), good, log=lines.append)
    snapshot.write_shared(PACK, io.BytesIO(DATA), compress=False)
    snapshot.write("files.ndjson", io.BytesIO(DATA), compress=True)
    snapshot.commit({})
    assert snapshot.vaults == ("good",)
    assert "lacks" in snapshot.lacking["bad"].sentence
    assert "bad" in lines[0]
    assert content(inner) == []


def test_shared_objects_must_be_where_they_are_referred_to(tmp_path: Path) -> None:
    one, two = directory(tmp_path, "one"), directory(tmp_path, "two")
    first = begin(one)
    entry = first.write_shared(PACK, io.BytesIO(DATA), compress=False)
    first.commit({})
    second = begin(one, two)
    second.write("files.ndjson", io.BytesIO(b"{}"), compress=True)
    second.refer([entry])
    manifest = second.commit({})
    assert second.vaults == ("one",)
    assert manifest.bytes == sum(each.bytes for each in manifest.objects) > entry.bytes
    third = begin(one)
    third.refer([entry])
    third.discard()
    assert PACK + ".age" in content(one), "what was only referred to stays"


def test_vaults_that_cannot_be_written_are_left_out_at_once(tmp_path: Path) -> None:
    good, newer = directory(tmp_path, "good"), DirectoryVault("newer", tmp_path / "newer")
    newer.put_new(KEY, b'{"format": 9}')
    assert begin(good, newer).vaults == ("good",)
    with pytest.raises(VaultFormatTooNew):
        begin(newer)
    with pytest.raises(VaultError):
        begin()
    with pytest.raises(KeyUnavailable):
        begin_snapshot([good], host="h", asset=Asset.REDIS, run="r", recipients=[])


def test_history_can_be_made(tmp_path: Path) -> None:
    vault = directory(tmp_path, "one")
    at = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    snapshot = begin_snapshot([vault], host="h", asset=Asset.REDIS, run="r", recipients=[RECIPIENT], at=at)
    manifest = snapshot.commit({}, warnings=["left \x1b out"])
    assert snapshot.id.startswith("h/redis/20250102T030405Z-")
    assert manifest.started_at == at
    assert at <= manifest.finished_at < at + timedelta(minutes=1)
    assert manifest.in_part
    assert manifest.warnings == ["left � out"]
    assert read_manifest(vault, snapshot.id) == manifest


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a b"])
def test_object_names_stay_in_their_place(tmp_path: Path, name: str) -> None:
    vault = directory(tmp_path, "one")
    with pytest.raises((ValueError, VaultError)):
        begin(vault).write(name, io.BytesIO(b"x"), compress=False)
    assert content(vault) == []
