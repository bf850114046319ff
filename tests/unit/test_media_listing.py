"""The listing of a media tree: any name, any order, any chunk boundary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.assets import media_listing
from backends.assets.media_listing import Listed, Listing, parse_records
from backends.assets.media_stream import batches
from backends.errors import AssetFailed
from tests.unit.test_packs import paths

listed_files = st.builds(
    Listed,
    path=paths,
    kind=st.sampled_from(["f", "l", "d", "o", "u"]),
    size=st.integers(0, 2**45),
    mtime=st.integers(0, 2**62),
    mode=st.integers(0, 0o777),
)
_SHOWN = {"f": b"ff", "l": b"lf", "d": b"ld", "o": b"ss", "u": b"uu"}


def _record(one: Listed) -> bytes:
    seconds, nanoseconds = divmod(one.mtime, 1_000_000_000)
    return b"%b\t%d\t%d.%09d0\t%o\t%b\0" % (_SHOWN[one.kind], one.size, seconds, nanoseconds, one.mode, one.path)


@given(st.lists(listed_files, max_size=20), st.integers(1, 60))
def test_records_survive_any_cut(found: list[Listed], size: int) -> None:
    raw = b"".join(map(_record, found))
    chunks = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert list(parse_records(chunks)) == [one if one.kind == "f" else one._replace(size=0) for one in found]


@given(st.binary(min_size=1, max_size=200))
def test_other_text_is_refused_in_one_sentence(raw: bytes) -> None:
    with pytest.raises(AssetFailed) as caught:
        list(parse_records([raw + b"\0"]))
    assert not {"\n", "\x1b"} & set(caught.value.sentence)


@pytest.mark.parametrize("path", [b"../up", b"/etc/passwd", b"a/../b", b"a//b", b""])
def test_a_listing_cannot_lead_out_of_the_tree(path: bytes) -> None:
    with pytest.raises(AssetFailed):
        list(parse_records([b"ff\t1\t1.0\t644\t" + path + b"\0"]))


def test_times_before_1970_and_without_fraction_are_read() -> None:
    (before, whole) = parse_records([b"ff\t1\t-2.5000000000\t644\ta\0ff\t1\t7\t644\tb\0"])
    assert (before.mtime, whole.mtime) == (-2_500_000_000, 7_000_000_000)


@given(st.lists(listed_files, max_size=60, unique_by=lambda one: one.path))
def test_a_listing_sorts_over_its_runs(found: list[Listed]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_listing, "_RUN", 7)
        patch.setattr(media_listing, "_BLOCK", 3)
        listing = Listing()
        for one in found:
            listing.add(one)
    expected = sorted(one for one in found if one.kind in {"f", "l", "d"})
    assert list(listing.drain()) == expected
    assert listing.files == sum(one.kind == "f" for one in found)
    assert listing.size == sum(one.size for one in found if one.kind == "f")
    assert listing.unreadable_count == sum(one.kind == "u" for one in found)


@given(st.lists(listed_files, max_size=40), st.integers(1, 9), st.integers(1, 2**46))
def test_batches_keep_all_files_and_their_limits(found: list[Listed], files: int, size: int) -> None:
    cut = list(batches(found, files=files, size=size))
    assert [one for batch in cut for one in batch] == found
    assert all(batch and len(batch) <= max(files, 2) for batch in cut)
