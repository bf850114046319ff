"""What a restore of media believes: comparing, hostile indexes and packs, bounded memory."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.archive.file_index import IndexEntry, encode
from backends.archive.manifest import Manifest, ObjectEntry
from backends.assets.media_listing import Listed
from backends.errors import AssetFailed, Damaged
from backends.model import Asset, utc_now
from backends.restore import media_wanted
from backends.restore.media_compare import Found, Tally, Verdict, compare, leads_out
from backends.restore.media_source import Lineage, index, members, subtree_of
from backends.restore.media_tar import header
from backends.restore.media_wanted import Records, Wanted
from backends.restore.source import Source
from tests.unit.test_packs import paths

parts = st.sampled_from([b"a", b"b", b"a!", b"ab", b"\xff", b"c.png"])
short_paths = st.lists(parts, min_size=1, max_size=4).map(b"/".join)
PACK = "ab" * 16


def entry_of(path: bytes, **changes: Any) -> IndexEntry:
    known: dict[str, Any] = {
        "path": path,
        "size": 3,
        "mtime": 1_700_000_000_123_456_789,
        "mode": 0o644,
        "sha256": hashlib.sha256(b"abc").hexdigest(),
        "pack": PACK,
        "offset": 512,
        "link": None,
    }
    return IndexEntry(**(known | changes))


def listed_of(path: bytes, **changes: Any) -> Listed:
    known: dict[str, Any] = {"path": path, "kind": "f", "size": 3, "mtime": 1, "mode": 0o644}
    return Listed(**(known | changes))


class Held(Source):
    """A snapshot whose plain objects are in memory."""

    objects: dict[str, bytes]

    def open(self, entry: ObjectEntry) -> BinaryIO:
        return io.BytesIO(self.objects[entry.name])


def snapshot(entries: list[IndexEntry], packs: dict[str, bytes]) -> Held:
    objects = {"files.ndjson.zst.age": b"".join(map(encode, entries))}
    objects |= {f"{name}.tar.age": data for name, data in packs.items()}
    now = utc_now()
    manifest = Manifest(
        id="social/media/20261122T140211Z-01234567",
        host="social",
        asset=Asset.MEDIA,
        run="run",
        started_at=now,
        finished_at=now,
        tool_version="0",
        recipients=[],
        objects=[ObjectEntry(name=name, bytes=1, sha256="", codecs=["age"], plain_bytes=1) for name in objects],
    )
    held = Held(manifest=manifest, vaults=[], identities=[])
    cast(Any, held).objects = objects
    return held


def pack_of(*files: tuple[bytes, bytes]) -> tuple[bytes, list[IndexEntry]]:
    """A pack and its entries."""
    data, entries = b"", []
    for path, content in files:
        info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
        info.size, info.uname, info.gname = len(content), "mastodon", "www-data"
        data += info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        digest = hashlib.sha256(content).hexdigest()
        entries.append(entry_of(path, size=len(content), sha256=digest, offset=len(data)))
        data += content + bytes(-len(content) % 512)
    return data + bytes(1024), entries


def read(source: Source, wanted: list[IndexEntry]) -> dict[bytes, bytes]:
    return {member.entry.path: b"".join(member.content) for member in members(source, wanted)}


@given(st.lists(short_paths, max_size=12, unique=True), st.lists(short_paths, max_size=12, unique=True))
def test_a_merge_names_every_path_once(stored: list[bytes], live: list[bytes]) -> None:
    found = list(compare(map(entry_of, sorted(stored)), map(listed_of, sorted(live))))
    seen = [(one.entry or one.listed).path for one in found]  # type: ignore[union-attr]
    assert seen == sorted(set(stored) | set(live))
    for verdict, entry, listed in found:
        if entry is None:
            assert verdict is Verdict.EXTRA
        elif listed is not None:
            assert verdict is Verdict.SAME
        else:
            above = [each for each in live if entry.path.startswith(each + b"/")]
            assert verdict is (Verdict.BARRED if above else Verdict.MISSING)


@pytest.mark.parametrize(
    ("stored", "live", "verdict"),
    [
        ({}, {}, Verdict.SAME),
        ({}, {"size": 4}, Verdict.DIFFERS),
        ({}, {"kind": "l", "size": 0}, Verdict.DIFFERS),
        ({"link": b"x", "size": 0}, {}, Verdict.DIFFERS),
        ({"link": b"x", "size": 0}, {"kind": "d", "size": 0, "mode": 0o777}, Verdict.SAME),
        ({"mode": 0o600}, {}, Verdict.MODE),
        ({}, {"mode": 0o640}, Verdict.MODE),
        ({}, {"mode": 0o600}, Verdict.PRIVATE),
        ({"mode": 0o400}, {"mode": 0o600}, Verdict.MODE),
    ],
)
def test_what_counts_as_the_same(stored: dict[str, Any], live: dict[str, Any], verdict: Verdict) -> None:
    [found] = compare([entry_of(b"a", **stored)], [listed_of(b"a", **live)])
    assert found.verdict is verdict


@given(st.lists(short_paths, max_size=15, unique=True))
def test_ancestors_are_found_in_any_sorted_list(found: list[bytes]) -> None:
    lineage = Lineage()
    for path in sorted(found):
        above = lineage.ancestor(path)
        assert (above is not None) == any(path.startswith(each + b"/") for each in found)
        lineage.add(path)


@given(st.lists(short_paths, max_size=15, unique=True))
def test_an_index_with_a_file_below_a_file_or_link_is_refused(found: list[bytes]) -> None:
    source = snapshot([entry_of(path, link=b"/etc", size=0) for path in sorted(found)], {})
    impossible = any(one.startswith(other + b"/") for one in found for other in found)
    if impossible:
        with pytest.raises(Damaged, match="has a file below the file or link"):
            list(index(source))
    else:
        assert [entry.path for entry in index(source)] == sorted(found)


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "a//b", ".", "..", "a/.", "a\0b", ""])
def test_an_index_cannot_lead_out_of_the_tree(path: str) -> None:
    line = encode(entry_of(b"harmless")).replace(b"harmless", path.replace("\0", "\\u0000").encode())
    source = snapshot([], {})
    source.objects["files.ndjson.zst.age"] = line
    with pytest.raises(Damaged):
        list(index(source))


def test_an_index_that_is_not_sorted_or_comes_twice_is_refused() -> None:
    for names in ([b"b", b"a"], [b"a", b"a"]):
        with pytest.raises(Damaged, match="not sorted"):
            list(index(snapshot([entry_of(name) for name in names], {})))


def test_a_subtree_takes_no_namesake() -> None:
    source = snapshot([entry_of(name) for name in (b"a/b", b"a/bc", b"a!/b", b"b/a/b")], {})
    with pytest.raises(Damaged):
        list(index(source, b"a"))
    names = sorted((b"a/b/c", b"a/bc", b"a!/b", b"b/a/b"))
    source = snapshot([entry_of(name) for name in names], {})
    assert [entry.path for entry in index(source, b"a/b")] == [b"a/b/c"]
    assert [entry.path for entry in index(source, b"a")] == [b"a/b/c", b"a/bc"]


@pytest.mark.parametrize("text", ["..", "../x", "a/../b", "a//b", "a/./b"])
def test_a_typed_subtree_cannot_lead_out(text: str) -> None:
    with pytest.raises(AssetFailed, match="is no path below the media directory"):
        subtree_of(text)


def test_a_typed_subtree_may_have_slashes_around() -> None:
    assert subtree_of("./accounts/avatars/") == b"accounts/avatars"
    assert subtree_of(" ") == b""


@given(st.lists(st.tuples(paths, st.binary(max_size=2000)), max_size=8, unique_by=lambda one: one[0]), st.randoms())
def test_chosen_members_come_whole(files: list[tuple[bytes, bytes]], dice: Any) -> None:
    data, entries = pack_of(*files)
    wanted = [entry for entry in entries if dice.random() < 0.6]
    dice.shuffle(wanted)
    content = dict(files)
    assert read(snapshot([], {PACK: data}), wanted) == {entry.path: content[entry.path] for entry in wanted}


def test_the_owner_comes_from_the_pack_and_all_else_from_the_index() -> None:
    data, [entry] = pack_of((b"../../etc/passwd", b"abc"))
    [member] = members(snapshot([], {PACK: data}), [entry._replace(path=b"a.png", mode=0o600)])
    assert (member.entry.path, member.entry.mode) == (b"a.png", 0o600)
    assert (member.owner.user, member.owner.group) == ("mastodon", "www-data")


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64},
        {"size": 2},
        {"size": 10**9},
        {"offset": 513},
        {"offset": 100},
        {"offset": 10**12},
        {"pack": "cd" * 16},
    ],
)
def test_a_pack_that_is_not_what_the_index_says_is_damage(change: dict[str, Any]) -> None:
    data, [entry] = pack_of((b"a.png", b"abc"))
    with pytest.raises(Damaged):
        read(snapshot([], {PACK: data}), [entry._replace(**change)])


def test_two_files_in_one_place_are_damage() -> None:
    data, [entry] = pack_of((b"a.png", b"abc"))
    with pytest.raises(Damaged, match="two files in the same place"):
        read(snapshot([], {PACK: data}), [entry, entry._replace(path=b"b.png")])


@given(st.integers(0, 700_000), st.data())
def test_of_damaged_content_never_the_whole_is_given(size: int, data: Any) -> None:
    pack, [entry] = pack_of((b"video.mp4", bytes(size)))
    if size:
        spoilt = bytearray(pack)
        spoilt[entry.offset + data.draw(st.integers(0, size - 1))] ^= 1
        pack = bytes(spoilt)
    else:
        entry = entry._replace(sha256="0" * 64)
    found = members(snapshot([], {PACK: pack}), [entry])
    member = next(found)
    pieces: list[bytes] = []
    with pytest.raises(Damaged, match="is not what was backed up"):
        pieces.extend(member.content)
    assert sum(map(len, pieces)) < max(size, 1)


@given(
    st.lists(
        st.tuples(paths, st.sampled_from(["aa", "bb", "cc"]), st.integers(0, 2**40)),
        max_size=60,
        unique_by=lambda one: one[1:],
    )
)
def test_wanted_entries_come_back_pack_by_pack(found: list[tuple[bytes, str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_wanted, "_RUN", 5)
        patch.setattr(media_wanted, "_BLOCK", 2)
        given_ = [entry_of(path, pack=pack, offset=offset) for path, pack, offset in found]
        wanted = Wanted(given_)
        order = list(dict.fromkeys(entry.pack for entry in given_))
        assert list(wanted) == sorted(given_, key=lambda entry: (order.index(entry.pack), entry.offset))
    assert (wanted.files, wanted.bytes) == (len(found), 3 * len(found))


@given(st.lists(st.binary(min_size=1, max_size=50).map(lambda raw: raw.replace(b"\0", b"x")), max_size=40))
def test_records_come_back_as_they_were(found: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_wanted, "_FLUSH", 60)
        records = Records()
        for record in found:
            records.add(record)
    assert b"".join(records.chunks()).split(b"\0")[:-1] == found


@pytest.mark.parametrize(
    ("path", "link", "out"),
    [
        (b"a", b"b", False),
        (b"a/b", b"../c", False),
        (b"a/b", b"../../c", True),
        (b"a", b"/etc/passwd", True),
        (b"a", b"..", True),
        (b"a/b/c", b"./x/../../y", False),
        (b"a/b/c", b"x/../../../../a", True),
    ],
)
def test_links_that_lead_out_are_known(path: bytes, link: bytes, out: bool) -> None:
    assert leads_out(path, link) is out


@given(paths, st.integers(-(10**19), 10**19), st.integers(0, 0o777), st.none() | paths)
def test_a_header_is_read_back_as_it_was(path: bytes, mtime: int, mode: int, link: bytes | None) -> None:
    head = header(entry_of(path, mtime=mtime, mode=mode, link=link, size=0), 1000, 2**31)
    with tarfile.open(fileobj=io.BytesIO(head + bytes(1024)), errors="surrogateescape") as tar:
        [info] = tar.getmembers()
    assert info.name.encode("utf-8", "surrogateescape") == path
    assert (info.mode, info.uid, info.gid, info.issym()) == (mode, 1000, 2**31, link is not None)
    if mtime % 1_000_000_000:
        assert info.pax_headers["mtime"] == f"{mtime / abs(mtime):.0f}".replace("1", "") + (
            f"{abs(mtime) // 10**9}.{abs(mtime) % 10**9:09d}"
        )


def test_room_counts_directories_twice_and_blocks_whole() -> None:
    tally = Tally()
    for path in (b"a/b/1", b"a/b/2", b"a/c/1"):
        tally.count(Found(Verdict.MISSING, entry_of(path), None), 0)
    assert (tally.directories, tally.inodes, tally.room) == (3, 3 + 6, 3 * 4096 + 6 * 4096)


def _many(count: int) -> Iterator[IndexEntry]:
    for number in range(count):
        digits = f"{109_000_000_000_000_000 + number * 7919:018d}"
        folders = "/".join(digits[start : start + 3] for start in range(0, 18, 3))
        name = hashlib.sha256(digits.encode()).hexdigest()
        path = f"media_attachments/files/{folders}/original/{name[:16]}.png".encode()
        yield entry_of(
            path, sha256=name, size=30_000, pack=f"{number // 2000:032x}", offset=512 + number % 2000 * 30_720
        )


def test_a_hundred_thousand_missing_files_take_little_memory() -> None:
    count = 100_000
    before = _resident()
    wanted, tally = Wanted(), Tally()
    for found in compare(_many(count), iter(())):
        tally.count(found, 0)
        assert found.entry is not None
        wanted.add(found.entry)
    kept = _resident() - before
    last = (-1, -1)
    for number, entry in enumerate(wanted):
        here = (int(entry.pack, 16), entry.offset)
        assert here > last, number
        last = here
    assert tally.missing == wanted.files == count
    assert kept < 30_000_000  # 16384 of them are in the open
    assert _resident() - before < 40_000_000


def _resident() -> int:
    """Bytes of this process in memory (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
