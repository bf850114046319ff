"""Packs and their index: nothing of a name or a byte is lost, nothing torn passes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.archive.file_index import IndexEntry, IndexSpool, decode, encode, read_index, safe_path
from backends.archive.packs import PackCutter, Placed, TarTorn, pack_key, read_members
from backends.errors import Damaged

_part = st.binary(min_size=1, max_size=150).filter(lambda part: not {0, 47} & set(part) and part not in {b".", b".."})
paths = st.lists(_part, min_size=1, max_size=4).map(b"/".join)
trees = st.dictionaries(paths, st.binary(max_size=3000), max_size=12)


def _tar(tree: dict[bytes, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(
        fileobj=raw, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for path, content in tree.items():
            info = tarfile.TarInfo("./" + path.decode("utf-8", "surrogateescape"))
            info.size, info.mode, info.mtime = len(content), 0o4600, 1_700_000_000
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def _cut(raw: bytes, target: int) -> tuple[dict[str, bytes], list[Placed]]:
    placed: list[Placed] = []
    cutter = PackCutter(read_members(io.BytesIO(raw)), placed.append, target)
    packs = {}
    while pack := cutter.next_pack():
        packs[pack.id] = b"".join(iter(lambda: pack.read(777), b""))
    return packs, placed


@given(trees, st.integers(1024, 20_000))
def test_every_byte_is_where_the_index_says(tree: dict[bytes, bytes], target: int) -> None:
    packs, placed = _cut(_tar(tree), target)
    assert [one.path for one in placed] == list(tree)
    for one in placed:
        content = packs[one.pack][one.offset : one.offset + one.size]
        assert content == tree[one.path]
        assert one.sha256 == hashlib.sha256(content).hexdigest()
        assert one.mode == 0o600


@given(trees, st.integers(1024, 20_000))
def test_each_pack_is_a_tar_of_its_own(tree: dict[bytes, bytes], target: int) -> None:
    packs, _ = _cut(_tar(tree), target)
    found: dict[bytes, bytes] = {}
    for pack in packs.values():
        with tarfile.open(fileobj=io.BytesIO(pack), encoding="utf-8", errors="surrogateescape") as tar:
            members = tar.getmembers()
            assert len(members) == 1 or len(pack) <= target + 1024
            for member in members:
                extracted = tar.extractfile(member)
                assert extracted is not None
                found[member.name.encode("utf-8", "surrogateescape")] = extracted.read()
    assert found == tree


@given(trees.filter(bool), st.data())
def test_a_torn_stream_never_passes_for_a_whole_one(tree: dict[bytes, bytes], data: st.DataObject) -> None:
    raw = _tar(tree)
    end = len(raw.rstrip(b"\0")) // 512 * 512  # what follows may be padding
    with pytest.raises(TarTorn):
        _cut(raw[: data.draw(st.integers(0, end))], 4096)


@given(st.binary(max_size=2000))
def test_anything_else_than_a_tar_is_refused(raw: bytes) -> None:
    if raw[:512].strip(b"\0") or len(raw) < 512:
        with pytest.raises(TarTorn):
            _cut(raw, 4096)


def test_device_nodes_are_refused() -> None:
    info = tarfile.TarInfo("null")
    info.type = tarfile.CHRTYPE
    with pytest.raises(TarTorn, match="unexpected type"):
        list(read_members(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))))


def test_a_symbolic_link_keeps_its_target() -> None:
    info = tarfile.TarInfo("./link")
    info.type, info.linkname = tarfile.SYMTYPE, "target/" + "x" * 200
    raw = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    packs, placed = _cut(raw, 4096)
    assert placed[0].link == b"target/" + b"x" * 200
    assert len(packs) == 1


def test_a_pack_read_at_once_equals_one_read_in_pieces() -> None:
    cutter = PackCutter(read_members(io.BytesIO(_tar({b"a": b"x" * 700_000, b"b": b"y"}))), lambda placed: None)
    pack = cutter.next_pack()
    assert pack is not None
    whole = pack.read()
    assert len(whole) % 512 == 0
    assert pack.read() == b""
    assert cutter.next_pack() is None


def test_packs_have_their_place_in_the_vault() -> None:
    assert pack_key("social", "00ff") == "hosts/social/media/packs/00ff.tar"


entries = st.builds(
    IndexEntry,
    path=paths,
    size=st.integers(0, 2**50),
    mtime=st.integers(-(2**62), 2**62),
    mode=st.integers(0, 0o777),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    pack=st.binary(min_size=16, max_size=16).map(bytes.hex),
    offset=st.integers(0, 2**40),
    link=st.none() | st.binary(max_size=200),
)


@given(entries)
def test_an_index_line_says_the_entry_again(entry: IndexEntry) -> None:
    line = encode(entry)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == entry


@given(st.lists(entries, max_size=30, unique_by=lambda entry: entry.path), st.integers(1, 5000))
def test_the_spool_gives_back_all_lines(found: list[IndexEntry], size: int) -> None:
    spool = IndexSpool()
    for entry in sorted(found):
        spool.add(entry)
    source = spool.source()
    pieces = list(iter(lambda: source.read(size), b""))
    assert list(read_index(io.BytesIO(b"".join(pieces)))) == sorted(found)


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text(), st.lists).map(lambda value: repr(value).encode()))
def test_a_wrong_line_is_damage_and_nothing_else(line: bytes) -> None:
    with pytest.raises(Damaged):
        decode(line)


@pytest.mark.parametrize(
    "change",
    [
        {"path": b"../../etc/passwd"},
        {"path": b"/etc/passwd"},
        {"path": b"a//b"},
        {"size": -1},
        {"mode": 0o10000},
        {"sha256": "0"},
        {"pack": "../x"},
        {"offset": -1},
    ],
)
def test_impossible_values_are_damage(change: dict[str, object]) -> None:
    good = IndexEntry(b"a", 1, 2, 3, "0" * 64, "1" * 32, 512)
    with pytest.raises(Damaged):
        decode(encode(good._replace(**change)))  # type: ignore[arg-type]


def _lines() -> Iterator[bytes]:
    for path in (b"a", b"b"):
        yield encode(IndexEntry(path, 1, 2, 3, "0" * 64, "1" * 32, 512))


def test_an_index_must_be_whole_and_sorted() -> None:
    first, second = _lines()
    for raw in (first + second[:-1], second + first, first + first, b"x" * 300_000):
        with pytest.raises(Damaged):
            list(read_index(io.BytesIO(raw)))


@given(st.binary(max_size=20))
def test_a_safe_path_stays_inside(path: bytes) -> None:
    inside = path and not path.startswith(b"/") and b"\0" not in path
    if safe_path(path):
        assert inside
        assert b".." not in path.split(b"/")
