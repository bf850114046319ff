"""The frame of a Redis snapshot: read from any bytes, never believed when cut off."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.assets.redis_rdb import RdbStream, UnmarkedSource, parse_header
from backends.errors import AssetFailed

# As redis-server 7.0 writes it: magic, four auxiliary fields, one database with one key, the end, a checksum.
SNAPSHOT = (
    b"REDIS0010"
    b"\xfa\x09redis-ver\x067.0.15"
    b"\xfa\x0aredis-bits\xc0\x40"
    b"\xfa\x05ctime\xc2\x00\x09\xfc\x6a"
    b"\xfa\x08used-mem\xc2\x80\xf2\x6a\x29"
    b"\xfe\x00\xfb\x01\x00\x00\x01a\x01b"
    b"\xff" + bytes.fromhex("f6fa154c04916ec3")
)
MARK = b"0123456789abcdef0123456789abcdef01234567"


def test_the_header_is_read() -> None:
    header = parse_header(SNAPSHOT)
    assert header is not None
    assert header.version == 10
    assert header.fields == {
        "redis-ver": "7.0.15",
        "redis-bits": "64",
        "ctime": "1794902272",
        "used-mem": "694874752",
    }
    assert header.created_at == 1794902272


def test_valkeys_newer_magic_is_known() -> None:
    header = parse_header(b"VALKEY080\xfa\x0avalkey-ver\x059.0.0")
    assert header is not None
    assert (header.version, header.fields, header.created_at) == (80, {"valkey-ver": "9.0.0"}, None)


@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_survived(tail: bytes) -> None:
    header = parse_header(b"REDIS0011" + tail)
    assert header is not None
    assert header.version == 11
    assert all("\x1b" not in text for pair in header.fields.items() for text in pair)
    assert header.created_at is None or header.created_at >= 0


@given(st.binary(max_size=100))
def test_other_bytes_are_no_snapshot(raw: bytes) -> None:
    if not raw.startswith((b"REDIS", b"VALKEY")):
        assert parse_header(raw) is None
        with pytest.raises(AssetFailed):
            RdbStream(io.BytesIO(raw))


@given(st.integers(0, len(SNAPSHOT) - 1), st.booleans())
def test_a_cut_snapshot_never_passes(length: int, known: bool) -> None:
    def read() -> None:
        stream = RdbStream(io.BytesIO(SNAPSHOT[:length]), len(SNAPSHOT) if known else None)
        stream.read()
        stream.finish()

    with pytest.raises(AssetFailed):
        read()


@given(st.integers(1, 40), st.binary(max_size=9000))
def test_a_whole_snapshot_comes_through_unchanged(size: int, values: bytes) -> None:
    whole = SNAPSHOT[:-9] + values + SNAPSHOT[-9:]
    stream = RdbStream(io.BytesIO(whole), len(whole))
    assert b"".join(iter(lambda: stream.read(size), b"")) == whole
    assert stream.bytes_read == len(whole)
    stream.finish()


@given(st.integers(1, 200), st.binary(max_size=300))
def test_the_mark_of_a_diskless_transfer_is_taken_away(size: int, values: bytes) -> None:
    whole = SNAPSHOT[:-9] + values + SNAPSHOT[-9:]
    for sent in (whole, whole + MARK):
        source = UnmarkedSource(io.BytesIO(sent))
        assert b"".join(iter(lambda: source.read(size), b"")) == whole  # noqa: B023
        assert UnmarkedSource(io.BytesIO(sent)).read() == whole


@given(st.binary(max_size=200), st.integers(1, 70))
def test_other_tails_stay(raw: bytes, size: int) -> None:
    if not raw[-40:].isalnum():
        source = UnmarkedSource(io.BytesIO(raw))
        assert b"".join(iter(lambda: source.read(size), b"")) == raw
