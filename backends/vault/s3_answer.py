"""The answer to a request for an object, read strictly: what is not plain is left to those who know every kind."""

from __future__ import annotations

_END = b"\r\n\r\n"
_MAX_HEAD = 32 * 1024
_MAX_DIGITS = 18


class Unusual(Exception):
    """An answer that is none of the plain ones; the object is to be asked for in the ordinary way."""


class Answer:
    """One answer, piece by piece as it arrives."""

    def __init__(self, most: int) -> None:
        self._most = most
        """Bytes of the content that are of interest."""
        self._got = bytearray()
        self._begin = self._size = 0
        self.last = False
        """Whether nothing can be asked for over this connection after it."""

    def take(self, piece: bytes) -> bytes | None:
        """The content as soon as all of it that is of interest is here. Raises `Unusual`."""
        got = self._got
        got += piece
        if not self._begin:
            end = got.find(_END)
            if max(end, len(got) if end < 0 else 0) > _MAX_HEAD:
                raise Unusual
            if end < 0:
                return None
            self._size, self.last = read_head(bytes(got[:end]))
            self._begin = end + len(_END)
        here = len(got) - self._begin
        wanted = min(self._size, self._most)
        if here > self._size:
            raise Unusual
        if here < wanted:
            return None
        self.last = self.last or here < self._size
        with memoryview(got) as all_of_it:
            return bytes(all_of_it[self._begin : self._begin + wanted])


def read_head(head: bytes) -> tuple[int, bool]:
    """The length of the content, and whether the connection ends with it, from a head without its empty line.

    RFC 9112 and 9110. Raises `Unusual` for any status but 200, any framing but one length, and what is no head at all.
    """
    status, *fields = head.split(b"\r\n")
    if status[:12] != b"HTTP/1.1 200" or status[12:13] not in {b"", b" "}:
        raise Unusual
    if head.count(b"\n") != len(fields) or head.count(b"\r") != len(fields):
        raise Unusual
    size, last = -1, False
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or not name or name != name.strip():
            raise Unusual
        name = name.lower()
        if name == b"content-length":
            value = value.strip()
            if size >= 0 or not value.isdigit() or len(value) > _MAX_DIGITS:
                raise Unusual
            size = int(value)
        elif name == b"connection":
            last = last or b"close" in value.lower()
        elif name == b"transfer-encoding":
            raise Unusual
    if size < 0:
        raise Unusual
    return size, last
