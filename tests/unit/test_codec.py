"""The stream from plain bytes to stored ones and back."""

from __future__ import annotations

import gc
import hashlib
import io
import secrets
import threading
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pyrage
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.archive.codec import seal, unseal
from backends.archive.keys import parse_recipients
from backends.archive.snapshot import Source
from backends.errors import ConnectionFailed, Damaged, KeyUnavailable, MastovaultError

IDENTITY = pyrage.x25519.Identity.generate()
OTHER = pyrage.x25519.Identity.generate()
RECIPIENTS = parse_recipients([str(IDENTITY.to_public())])


class Dribble:
    """Gives the data in pieces of the lengths named, whatever is asked for."""

    def __init__(self, data: bytes, lengths: Sequence[int]) -> None:
        self._data = io.BytesIO(data)
        self._lengths = list(lengths)

    def read(self, size: int = -1, /) -> bytes:
        return self._data.read(self._lengths.pop(0) if self._lengths else size)


def sealed(data: bytes, *, compress: bool, source: Source | None = None) -> bytes:
    parts: list[bytes] = []
    result = seal(source or io.BytesIO(data), parts.append, RECIPIENTS, compress=compress)
    stored = b"".join(parts)
    assert result.bytes == len(stored)
    assert result.sha256 == hashlib.sha256(stored).hexdigest()
    assert result.plain_bytes == len(data)
    assert result.plain_sha256 == hashlib.sha256(data).hexdigest()
    return stored


def opened(stored: bytes, *, compress: bool, identities: Sequence[Any] = (IDENTITY,)) -> bytes:
    codecs = ("zstd", "age") if compress else ("age",)
    with unseal(io.BytesIO(stored), identities, codecs) as plain:
        return plain.read()


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=3000).flatmap(lambda seed: st.integers(0, 200).map(lambda times: seed * times)),
    lengths=st.lists(st.integers(1, 70_000), max_size=20),
    compress=st.booleans(),
)
def test_what_goes_in_comes_out(data: bytes, lengths: list[int], compress: bool) -> None:
    assert opened(sealed(data, compress=compress, source=Dribble(data, lengths)), compress=compress) == data


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 262144, 262145, 3_000_000])
def test_lengths_at_the_edges_of_blocks(size: int, compress: bool) -> None:
    data = secrets.token_bytes(size)
    assert opened(sealed(data, compress=compress), compress=compress) == data


@settings(max_examples=80, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), compress=st.booleans())
def test_a_changed_bit_is_noticed(where: float, bit: int, compress: bool) -> None:
    stored = bytearray(sealed(b"the quick brown fox " * 9000, compress=compress))
    stored[int(where * len(stored))] ^= 1 << bit
    with pytest.raises((Damaged, KeyUnavailable)):
        opened(bytes(stored), compress=compress)


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), compress=st.booleans())
def test_a_cut_is_noticed(where: float, compress: bool) -> None:
    stored = sealed(secrets.token_bytes(1000) * 200, compress=compress)
    with pytest.raises((Damaged, KeyUnavailable)):
        opened(stored[: int(where * len(stored))], compress=compress)


def test_a_cut_between_two_blocks_is_noticed() -> None:
    stored = sealed(secrets.token_bytes(200_000), compress=False)
    payload = stored.index(b"\n--- ") + 1 + 4 + 43 + 1 + 16
    for blocks in (0, 1, 2, 3):
        with pytest.raises(Damaged):
            opened(stored[: payload + blocks * 65552], compress=False)


@pytest.mark.parametrize("extra", [b"\0", b"x" * 70_000])
def test_what_was_appended_is_noticed(extra: bytes) -> None:
    with pytest.raises(Damaged):
        opened(sealed(b"data", compress=False) + extra, compress=False)


def test_a_cut_zstd_stream_is_noticed() -> None:
    frame = zstandard.compress(secrets.token_bytes(300_000))
    for cut in (1, 5, 100_000, len(frame) - 1):
        stored = pyrage.encrypt(frame[:cut], RECIPIENTS)
        with pytest.raises(Damaged):
            opened(stored, compress=True)
    with pytest.raises(Damaged):
        opened(pyrage.encrypt(b"no zstd at all", RECIPIENTS), compress=True)


def test_several_zstd_frames_are_one_stream() -> None:
    """What `zstd -T0` and `pzstd` on a host may write."""
    parts = [secrets.token_bytes(size) for size in (0, 1, 5000, 300_000)]
    frames = b"".join(zstandard.compress(part) for part in parts)
    assert opened(pyrage.encrypt(frames, RECIPIENTS), compress=True) == b"".join(parts)


def test_another_identity_opens_nothing() -> None:
    stored = sealed(b"data", compress=True)
    for identities in ([OTHER], []):
        with pytest.raises(KeyUnavailable):
            opened(stored, compress=True, identities=identities)
    assert opened(stored, compress=True, identities=[OTHER, IDENTITY]) == b"data"


@pytest.mark.parametrize("data", [b"", b"hello", b"age-encryption.org/v1\n", b"\0" * 200_000])
def test_what_is_no_age_file_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        opened(data, compress=False)


def test_unknown_codecs_are_refused() -> None:
    for codecs in ((), ("zstd",), ("age", "zstd"), ("zstd", "zstd", "age")):
        with pytest.raises(Damaged):
            unseal(io.BytesIO(b""), [IDENTITY], codecs)


def test_nobody_to_encrypt_to() -> None:
    with pytest.raises(KeyUnavailable):
        seal(io.BytesIO(b"x"), lambda data: None, [], compress=True)


@pytest.mark.parametrize("error", [ConnectionFailed("gone"), ValueError("bug"), KeyboardInterrupt()])
def test_what_source_and_sink_raise_comes_through(error: BaseException) -> None:
    class Bad:
        def read(self, size: int = -1, /) -> bytes:
            raise error

    def refuse(data: bytes) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        seal(Bad(), lambda data: None, RECIPIENTS, compress=True)
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        seal(io.BytesIO(b"x"), refuse, RECIPIENTS, compress=False)
    assert caught.value is error
    with pytest.raises(type(error)) as caught, unseal(Bad(), [IDENTITY], ("age",)) as plain:
        plain.read()
    assert caught.value is error


def test_every_recipient_can_open() -> None:
    parts: list[bytes] = []
    both = parse_recipients([str(IDENTITY.to_public()), str(OTHER.to_public())])
    seal(io.BytesIO(b"data"), parts.append, both, compress=True)
    for identity in (IDENTITY, OTHER):
        assert opened(b"".join(parts), compress=True, identities=[identity]) == b"data"


def test_bytes_before_the_damage_are_given_first() -> None:
    data = secrets.token_bytes(500_000)
    stored = bytearray(sealed(data, compress=False))
    stored[-1] ^= 1
    with unseal(io.BytesIO(bytes(stored)), [IDENTITY], ("age",)) as plain:
        assert plain.read(65536) == data[:65536]
        with pytest.raises(Damaged):
            plain.read()


def unseal_threads() -> int:
    return sum(thread.name == "unseal" for thread in threading.enumerate())


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    stored = sealed(bytes(20_000_000), compress=False)
    plain = unseal(io.BytesIO(stored), [IDENTITY], ("age",))
    plain.read(10)
    plain.close()
    forgotten = unseal(io.BytesIO(stored), [IDENTITY], ("age",))
    forgotten.read(10)
    del forgotten
    gc.collect()
    until = time.monotonic() + 10
    while unseal_threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert unseal_threads() == 0


class Endless:
    """As many bytes as are wanted, which compress to a third."""

    block = secrets.token_bytes(90_000) + bytes(172_144)

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        piece = self.block[: min(size, self._left)]
        self._left -= len(piece)
        return piece


@pytest.mark.parametrize("compress", [False, True])
def test_memory_does_not_grow_with_length(compress: bool) -> None:
    def peak(size: int) -> int:
        tracemalloc.start()
        seal(Endless(size), lambda data: None, RECIPIENTS, compress=compress)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1_000_000)
    assert peak(64_000_000) < peak(4_000_000) + 1_000_000


def test_a_bomb_is_given_in_pieces() -> None:
    """A gigabyte of zeros in 32 KiB must not be held at once."""
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    bomb = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()
    stored = pyrage.encrypt(bomb, RECIPIENTS)
    tracemalloc.start()
    total = 0
    with unseal(io.BytesIO(stored), [IDENTITY], ("zstd", "age")) as plain:
        while piece := plain.read(1 << 20):
            total += len(piece)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 1 << 30
    assert most < 80 << 20


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_end_in_a_sentence(data: bytes) -> None:
    for codecs in (("age",), ("zstd", "age")):
        with pytest.raises(MastovaultError), unseal(io.BytesIO(data), [IDENTITY], codecs) as plain:
            plain.read()
