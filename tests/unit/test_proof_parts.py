"""The small parts of verifying and drilling: samples, paths, words, notes, media against their index."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.archive.file_index import IndexEntry, encode
from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.packs import PackCutter, Placed, pack_key, read_members
from backends.catalog import Proof
from backends.errors import Cancelled, Damaged, VaultError
from backends.lab.population import partition
from backends.model import Asset, SnapshotInfo
from backends.operations.fleet_words import drill_words, proof_words, took
from backends.operations.proof_copy import choose
from backends.operations.proof_database import _counted
from backends.operations.proof_files import MediaProof
from backends.operations.proof_left import forget, left_on, noted
from backends.operations.proof_media import MediaMatch, attachment_path
from backends.operations.proof_vault import WatchedVault
from backends.vault.base import Vault
from tests.servers.backup import WatchedJob

NOW = datetime(2026, 11, 22, 14, 2, 11, tzinfo=UTC)


def entry(name: str, size: int = 10, key: str = "") -> ObjectEntry:
    return ObjectEntry(name=name, key=key, bytes=size, sha256="00", codecs=["age"], plain_bytes=size)


@given(st.lists(st.integers(0, 1 << 40), max_size=30), st.integers(1, 40))
def test_a_sample_holds_the_index_and_as_many_others(sizes: list[int], count: int) -> None:
    objects = [entry(f"p{number}.tar.age", size) for number, size in enumerate(sizes)]
    objects.insert(len(objects) // 2, entry("files.ndjson.zst.age"))
    chosen = choose(objects, count)
    assert entry("files.ndjson.zst.age") in chosen
    assert len(chosen) == min(len(objects), count + 1) or count >= len(objects)
    assert chosen == [each for each in objects if each in chosen], "in their order, each once"
    assert choose(objects, None) == objects


def test_large_objects_are_likelier_in_a_sample() -> None:
    objects = [entry("small.age", 1), entry("large.age", 10**9)]
    assert {choose(objects, 1)[0].name for _ in range(50)} == {"large.age"}


@given(st.integers(1, 10**18 - 1))
def test_attachments_are_where_paperclip_puts_them(number: int) -> None:
    assert attachment_path(number, "a.png") == f"media_attachments/files/{partition(number)}/original/a.png"


@pytest.mark.parametrize(
    ("number", "directories"),
    [(1, "000/000/001"), (999_999_999, "999/999/999"), (112_000_000_000_065_537, "112/000/000/000/065/537")],
)
def test_partitions(number: int, directories: str) -> None:
    assert f"/{directories}/" in attachment_path(number, "x")


def test_some_missing_attachments_are_no_fault() -> None:
    assert MediaMatch(asked=0).good
    assert MediaMatch(asked=10, found=6).good
    assert not MediaMatch(asked=10, found=5).good
    assert MediaMatch(asked=4, found=3, files=9, read=2).sentence == (
        "3 of 4 attachments of the database found, 2 of 9 files read"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 s"), (59.4, "59 s"), (60, "1 m 00 s"), (190, "3 m 10 s"), (7500, "2 h 05 m"), (6 * 86400, "6 d 00 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert took(seconds) == words


def test_what_drills_showed_in_words() -> None:
    days = NOW - timedelta(days=6, hours=3)
    assert drill_words(Proof(), NOW) == "never proven by a drill"
    assert drill_words(Proof(proven_at=days, seconds=190), NOW) == "restore takes 3 m 10 s, proven 6 d ago"
    assert drill_words(Proof(proven_at=days), NOW) == "proven 6 d ago"
    assert drill_words(Proof(proven_at=days, failed_at=NOW), NOW) == "the last drill FAILED"
    info = SnapshotInfo(
        id="social/database/x",
        host="social",
        asset=Asset.DATABASE,
        at=NOW,
        bytes=1,
        vaults=("a",),
        run="r",
        drilled_at=days,
        drill_seconds=190,
    )
    assert proof_words(info, NOW) == "restore takes 3 m 10 s, proven 6 d ago"
    assert proof_words(None, NOW) == ""


def test_notes_of_drills_on_hosts(tmp_path: Path) -> None:
    name = "mastovault_drill_20261122t1402110000"
    with noted(tmp_path, "a1", "social", name) as gone, noted(tmp_path, "b2", "social", f"{name}1"):
        assert list(left_on(tmp_path, "social")) == []
        gone()
    ((note, left),) = left_on(tmp_path, "social")
    assert left == f"{name}1"
    forget(note)
    assert list(left_on(tmp_path, "social")) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"host": "social"}', '{"host": "social", "database": "mastodon_production"}']
)
def test_a_note_that_names_no_drill_drops_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "x.json").write_text(text)
    assert list(left_on(tmp_path, "social")) == []


class _Disk(io.BytesIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(self._number, "gone")


def watched(file: io.BytesIO, job: WatchedJob) -> WatchedVault:
    inner = SimpleNamespace(name="local", offsite=False, where="/x", read=lambda _key: file)
    return WatchedVault(cast(Vault, inner), job)


def test_a_bad_sector_is_damage_and_a_lost_mount_is_not() -> None:
    job = WatchedJob()
    job.step("x")
    with pytest.raises(Damaged, match="the disk cannot read"):
        watched(_Disk(errno.EIO), job).read("hosts/a.age").read(10)
    with pytest.raises(VaultError, match="cannot be read") as caught:
        watched(_Disk(errno.ESTALE), job).read("hosts/a.age").read(10)
    assert not isinstance(caught.value, Damaged)
    assert watched(io.BytesIO(b"abc"), job).read("k").read(2) == b"ab"
    assert job.done == 2
    job.cancel()
    with pytest.raises(Cancelled):
        watched(io.BytesIO(b"abc"), job).read("k").read(2)


def _packed(files: dict[str, bytes], place: Path) -> tuple[bytes, list[Placed], str]:
    """A pack as a backup would cut it."""
    import tarfile

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    stream.seek(0)
    placed: list[Placed] = []
    pack = PackCutter(read_members(stream), placed.append).next_pack()
    assert pack is not None
    return pack.read(), placed, pack.id


def _index(placed: Sequence[Placed], **changes: Any) -> list[IndexEntry]:
    return [
        IndexEntry(each.path, each.size, each.mtime, each.mode, each.sha256, each.pack, each.offset)._replace(**changes)
        for each in placed
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"sha256": "0" * 64}, "is not what was backed up"),
        ({"path": b"other"}, "another file is where other should be"),
        ({"offset": 100_000}, "ends before the last file"),
        ({"pack": "ffff"}, "a pack that the manifest lacks"),
        ({"link": b"target"}, "another file is where"),
    ],
)
def test_a_pack_is_compared_with_the_index(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    long = "x" * 150 + ".png"
    data, placed, pack = _packed({"a.png": b"a" * 1000, f"deep/{long}": b"b" * 70_000}, tmp_path)
    problems: list[str] = []
    name = pack_key("social", pack) + ".age"
    manifest = cast(Manifest, SimpleNamespace(objects=[entry(name.rpartition("/")[2], key=name)]))
    proof = MediaProof(manifest, {name.rpartition("/")[2]}, problems.append)
    lines = [encode(each) for each in [*_index(placed)[:1], *_index(placed[1:], **changes)]]
    try:
        proof.read_index(io.BytesIO(b"".join(lines)))
        for found, entries in proof.by_pack():
            assert found == name.rpartition("/")[2]
            proof.check_pack(cast(Any, io.BytesIO(data)), entries)
    except Damaged as error:
        problems.append(error.sentence)
    assert says in "; ".join(problems)
    assert bool(problems) == bool(says)
    assert changes or proof.files == 2
    assert hashlib.sha256(b"a" * 1000).hexdigest() == placed[0].sha256


@pytest.mark.parametrize("facts", [{}, {"tables": 1}, {"tables": {"a": 1, "b": {"rows": "x", "exact": True}}}])
def test_odd_facts_count_for_nothing(facts: dict[str, Any]) -> None:
    assert _counted(cast(Manifest, SimpleNamespace(facts=facts))).rows == 0
