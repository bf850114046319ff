"""Answers of an S3 server, which is not trusted: plain ones are read, others are refused, nothing else happens."""

from __future__ import annotations

import http.client
import io
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.vault.s3_answer import Answer, Unusual, read_head

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "x"\r\n\r\n'
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Content-Length: 3",
            b"content-length:  3 ",
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Content-Length: 0x3",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Content-Encoding: gzip",
            b"ETag: abc",
            b" folded",
            b"no colon",
            b"",
        ]
    ),
    max_size=5,
)


@given(st.binary(max_size=300), st.integers(0, 400), st.lists(st.integers(0, 400), max_size=8))
def test_a_plain_answer_in_any_pieces(body: bytes, most: int, cuts: list[int]) -> None:
    answer, content, data = Answer(most), None, PLAIN % len(body) + body
    for begin, end in pairwise(sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})):
        content = answer.take(data[begin:end])
        if content is not None:
            break
    assert content == body[:most]
    assert answer.last or end == len(data), "what is left over would be taken for the next answer"


@given(st.binary(max_size=300), st.integers(0, 400))
def test_an_answer_that_is_cut_is_no_answer(body: bytes, missing: int) -> None:
    whole = PLAIN % len(body) + body
    if missing:
        assert Answer(1000).take(whole[: max(0, len(whole) - missing)]) is None


class _Socket:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self.data)


@given(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 No"]), FIELDS)
def test_what_it_understands_the_standard_library_understands_as_well(status: bytes, lines: list[bytes]) -> None:
    data = b"\r\n".join([status, *lines, b"", b""]) + b"abcde"
    with suppress(Unusual):
        size, last = read_head(data.partition(b"\r\n\r\n")[0])
        theirs = http.client.HTTPResponse(_Socket(data), method="GET")  # type: ignore[arg-type]
        theirs.begin()
        assert (theirs.status, theirs.length, theirs.chunked) == (200, size, False)
        assert last or not theirs.will_close


@given(st.binary(max_size=400), st.integers(0, 10))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", 10)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 10)
@example(b"\r\n\r\n", 10)
def test_rubbish_is_refused_or_waited_for(data: bytes, most: int) -> None:
    with suppress(Unusual):
        content = Answer(most).take(data)
        assert content is None or data.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 3",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3",
        b"HTTP/1.1 200 OK\r\nContent-Length : 3",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2",
    ],
)
def test_what_is_not_plain_is_refused(head: bytes) -> None:
    with pytest.raises(Unusual):
        read_head(head)


def test_a_head_without_end_is_refused() -> None:
    answer = Answer(10)
    for _ in range(32):
        assert answer.take(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000) is None
    with pytest.raises(Unusual):
        answer.take(b"x" * 1000)
    with pytest.raises(Unusual):
        Answer(10).take(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")


def test_more_than_is_wanted_is_not_kept_and_ends_the_connection() -> None:
    for data, content in (
        (PLAIN % 1_000_000 + b"abcdef", b"abcd"),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ):
        answer = Answer(4)
        assert (answer.take(data), answer.last) == (content, True)
