"""Pages of a listing are what botocore reads in them, and what is strange is left to it."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import botocore.session
import pytest
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from backends.vault.s3_listing import read_page, read_time

SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ENTRY = "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>&quot;a&quot;</ETag><Size>{}</Size>{}</Contents>"
PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{}><Name>bucket</Name><KeyCount>2</KeyCount>{}'
    "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
    "<NextContinuationToken>t&amp;o</NextContinuationToken></ListBucketResult>"
)
WANTED = ("Key", "LastModified", "Size")
TIME = st.datetimes().map(lambda at: f"{at:%Y-%m-%dT%H:%M:%S}.000Z") | st.just("Mon, 23 Nov 2026 13:00:00 GMT")
KEY = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30)
MORE = st.sampled_from(["", "<StorageClass>STANDARD</StorageClass>", "<Owner><ID>x</ID></Owner>", "<Key2>b</Key2>"])


@pytest.fixture(scope="module")
def theirs() -> Any:
    """What botocore reads in a body."""
    shape: Any = botocore.session.Session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
    parser: Any = create_parser("rest-xml")
    parser._timestamp_parser = read_time
    return lambda body: parser.parse({"status_code": 200, "headers": {}, "body": body}, shape)


def read(body: bytes, theirs: Any) -> tuple[dict[str, Any], bool]:
    """A page as it is read now, and whether any of it was read by us."""
    response, found = {"status_code": 200, "headers": {}, "body": body}, dict[str, Any]()
    read_page(response, found, operation_model=None)
    assert (response["body"] == body) is not bool(found)
    return {**theirs(response["body"]), **found}, bool(found)


@given(st.lists(st.tuples(KEY, TIME, st.integers(0, 1 << 50), MORE), max_size=5), st.sampled_from(["", SPACE]))
def test_a_page_is_what_botocore_reads(theirs: Any, entries: list[tuple[str, str, int, str]], space: str) -> None:
    text = "".join(ENTRY.format(escape(key), *others) for key, *others in entries)
    body = PAGE.format(space, text).encode()
    ours, by_us = read(body, theirs)
    expected = theirs(body)
    for each in expected.get("Contents", ()):
        for name in set(each) - set(WANTED):
            del each[name]
    assert ours == expected
    assert by_us is bool(entries)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_rubbish_is_left_to_botocore(data: bytes) -> None:
    response, found = {"status_code": 200, "body": data}, dict[str, Any]()
    read_page(response, found)
    assert (response, found) == ({"status_code": 200, "body": data}, {})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<Error><Code>InternalError</Code></Error>"),
        (503, PAGE.format(SPACE, ENTRY.format("a", "2026-11-23T13:00:00Z", 1, ""))),
        (200, PAGE.format(SPACE, ENTRY.format("a", "2026-11-23T13:00:00Z", 1, ""))[:-3]),
        (200, PAGE.format(SPACE, ENTRY.format("a", "soon", 1, ""))),
        (200, PAGE.format(SPACE, ENTRY.format("a", "2026-11-23T13:00:00Z", -1, ""))),
        (200, PAGE.format(SPACE, ENTRY.format("a", "2026-11-23T13:00:00Z", "", ""))),
        (200, PAGE.format(SPACE, "<Contents><Size>1</Size></Contents>")),
        (200, PAGE.format(SPACE, "")),
    ],
)
def test_what_is_strange_is_left_to_botocore(status: int, body: str) -> None:
    response, found = {"status_code": status, "body": body.encode()}, dict[str, Any]()
    read_page(response, found)
    assert (response, found) == ({"status_code": status, "body": body.encode()}, {})
