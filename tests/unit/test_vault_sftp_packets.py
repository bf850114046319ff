"""What a server sends is read to its end or refused; nothing in it makes the reader fail, hang or fill the memory."""

from __future__ import annotations

import struct
from collections import deque
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.connection.transport import Channel
from backends.vault.sftp import _is_here
from backends.vault.sftp_files import Files
from backends.vault.sftp_packets import Fields, Kind, Malformed, Status, mode_only, number, string
from backends.vault.sftp_session import Lost, Session
from backends.vault.sftp_tree import Tree


class Server:
    """A channel whose other end says what it was told to, and nothing more."""

    out_max_packet_size = 32768

    def __init__(self, *packets: bytes) -> None:
        said = b"".join(number(len(packet)) + packet for packet in (VERSION, *packets))
        self._pieces = deque([said[:3], said[3:]])
        self.sent = b""

    class tail:  # noqa: N801
        @staticmethod
        def text() -> str:
            return ""

    def settimeout(self, seconds: float) -> None: ...

    def invoke_subsystem(self, name: str) -> None: ...

    def close(self) -> None: ...

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def recv(self, size: int, timeout: float | None = None) -> bytes:
        piece = self._pieces.popleft() if self._pieces else b""
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
        return piece[:size]


VERSION = bytes([Kind.VERSION]) + number(3) + string(b"posix-rename@openssh.com") + string(b"1")


def session(*packets: bytes) -> Session:
    return Session(cast(Channel, Server(*packets)), 5)


def answer(kind: int, body: bytes, to: int = 1) -> bytes:
    return bytes([kind]) + number(to) + body


def test_numbers_and_strings() -> None:
    fields = Fields(b"??" + number(7) + string(b"abc") + number(2**40, 8), 2)
    assert (fields.number(), fields.string(), fields.number(8), fields.at_end) == (7, b"abc", 2**40, True)
    assert fields.string_or_empty() == b""
    with pytest.raises(Malformed):
        fields.number()


@given(
    st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=3),
)
def test_attributes(
    size: int | None, owner: bool, mode: int | None, modified: int | None, more: list[tuple[bytes, bytes]]
) -> None:
    flags = (size is not None) + 2 * owner + 4 * (mode is not None) + 8 * (modified is not None) + 2**31 * bool(more)
    body = number(flags) + (number(size, 8) if size is not None else b"") + bytes(8 * owner)
    body += number(mode) if mode is not None else b""
    body += number(1) + number(modified) if modified is not None else b""
    body += number(len(more)) + b"".join(string(a) + string(b) for a, b in more) if more else b""
    fields = Fields(body, 0)
    found = fields.attributes()
    assert (found.size, found.mode, found.modified, fields.at_end) == (size, mode, modified, True)
    for cut in range(len(body)):
        with pytest.raises(Malformed):
            Fields(body[:cut], 0).attributes()


def test_a_mode_is_sent_as_attributes() -> None:
    assert Fields(mode_only(0o600), 0).attributes().mode == 0o600


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=60))
def test_any_answer_is_understood_or_refused(body: bytes) -> None:
    for kind in (Kind.STATUS, Kind.HANDLE, Kind.DATA, Kind.NAME, Kind.ATTRS, Kind.EXTENDED_REPLY):
        files = Files(session(answer(kind, body)), "SSH-2.0-Whatever")
        for ask in (
            lambda files: files.stat(b"/"),
            lambda files: files.open_to_read(b"/a"),
            lambda files: files.room(b"/"),
            lambda files: files.data(files.send_read(b"h", 0, 10), 10),
            lambda files: list(files.names(b"/")),
            lambda files: files.remove(b"/a"),
        ):
            try:
                ask(files)
            except (Status, Lost):
                files = Files(session(answer(kind, body)), "SSH-2.0-Whatever")


@pytest.mark.parametrize(
    "packet",
    [answer(Kind.STATUS, number(0), to=99), answer(Kind.DATA, string(b"x" * 11)), b"", b"\x65", b"x" * 2**20 + b"x"],
    ids=["to nobody", "more than asked for", "empty", "short", "long"],
)
def test_what_was_not_asked_for_ends_the_session(packet: bytes) -> None:
    files = Files(session(packet), "SSH-2.0-OpenSSH_9.2")
    with pytest.raises(Lost, match="no SFTP"):
        files.data(files.send_read(b"h", 0, 10), 10)
    assert not files.session.alive
    with pytest.raises(Lost):
        files.remove(b"/a")


def test_an_older_version_is_refused() -> None:
    server = Server()
    server._pieces = deque([struct.pack(">IBI", 5, Kind.VERSION, 2)])
    with pytest.raises(Lost, match="no SFTP"):
        Session(cast(Channel, server), 5)


@pytest.mark.parametrize(
    ("path", "root", "object_path"),
    [
        ("/srv/b", b"/srv/b", b"/srv/b/hosts/a"),
        ("/srv/b/", b"/srv/b", b"/srv/b/hosts/a"),
        ("/", b"/", b"/hosts/a"),
        ("~/b", b"b", b"b/hosts/a"),
        ("./b", b"b", b"b/hosts/a"),
        ("b/c", b"b/c", b"b/c/hosts/a"),
        ("", b".", b"./hosts/a"),
        ("~/", b".", b"./hosts/a"),
    ],
)
def test_where_a_vault_is(path: str, root: bytes, object_path: bytes) -> None:
    tree = Tree(path)
    assert (tree.path(""), tree.path("hosts/a")) == (root, object_path)


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("root@127.0.0.1:2222", True),
        ("localhost", True),
        ("[::1]:22", True),
        ("nas.example", False),
        ("localhost.example", False),
        ("a@", False),
    ],
)
def test_which_address_is_this_machine(address: str, here: bool) -> None:
    assert _is_here(address) is here
