"""Is Mastodon well? Asked as a proxy would ask: one small request over a socket whose other end is on the host."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from backends.connection.base import Command, Connection, sh
from backends.errors import ConnectionFailed
from backends.untrusted import clean

WEB_PATH, STREAMING_PATH = "/health", "/api/v1/streaming/health"
_SECONDS = 10.0
_MAX_ANSWER = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")

# For servers that forward nothing for their users (AllowTcpForwarding no).
_BY_PROGRAM = r"""
address=$1 socket=$2 host=$3
if command -v curl >/dev/null; then
  set -- -sS -i --http1.1 -m 10 -H "Host: $host" -H 'X-Forwarded-Proto: https' "$address"
  [ -z "$socket" ] || set -- --unix-socket "$socket" "$@"
  exec curl "$@" 2>/dev/null
elif command -v wget >/dev/null && [ -z "$socket" ]; then
  if body=$(wget -q -O - -T 10 --header "Host: $host" --header 'X-Forwarded-Proto: https' "$address" 2>/dev/null)
  then printf 'HTTP/1.0 200 OK\r\n\r\n%s' "$body"; exit; fi
fi
exit 9
"""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one service answers: a unix socket, or a host and a port as its machine sees them."""

    path: str
    """Of the question, `/health`."""
    host: str = "127.0.0.1"
    port: int = 0
    unix: str = ""

    @property
    def shown(self) -> str:
        """As it can be typed: `http://127.0.0.1:3000/health`."""
        if self.unix:
            return clean(f"{self.unix}:{self.path}", 200)
        return clean(f"http://{self.host}:{self.port}{self.path}", 200)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: an HTTP status (0 for none) and the beginning of the body; raw."""

    status: int = 0
    body: str = ""

    @property
    def well(self) -> bool:
        """Whether it is what Mastodon says when it is well."""
        return self.status == 200 and self.body.strip().upper() in {"OK", '{"STATUS":"OK"}'}

    @property
    def shown(self) -> str:
        """For people."""
        if not self.status:
            return "does not answer"
        said = clean(self.body.strip(), 160)
        return f"answers {self.status}" + (f": {said}" if said else "")


def ask(connection: Connection, address: Address, domain: str) -> Answer:
    """Ask one service how it is; one that does not answer gives an empty answer.

    Args:
        connection: the host.
        address: where.
        domain: LOCAL_DOMAIN: Mastodon answers no other name, and asks for TLS in front of it.

    Raises:
        ConnectionFailed: the connection itself is gone.
    """
    try:
        opened = connection.open_unix(address.unix) if address.unix else connection.open_tcp(address.host, address.port)
    except ConnectionFailed:
        # Nobody listens there, or nothing is forwarded: the host itself knows, if it still answers.
        return _by_program(connection, address, domain)
    with opened:
        return _exchange(opened, request(address.path, domain))


def request(path: str, domain: str) -> bytes:
    """The request; a domain that is none leaves its header to the address."""
    name = domain if re.fullmatch(r"[A-Za-z0-9.-]{1,253}", domain) else "localhost"
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {name}",
        "X-Forwarded-Proto: https",
        "User-Agent: mastovault",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _exchange(opened: socket.socket, asked: bytes) -> Answer:
    received = b""
    try:
        opened.settimeout(_SECONDS)
        opened.sendall(asked)
        while len(received) < _MAX_ANSWER and (data := opened.recv(16 * 1024)):
            received += data
    except OSError:
        pass  # what came so far may be all there is
    return parse_answer(received)


def parse_answer(received: bytes) -> Answer:
    """Read an HTTP/1 answer; an empty answer for anything else. Never raises."""
    match = _STATUS.match(received)
    if match is None:
        return Answer()
    head, blank, body = received.replace(b"\r\n", b"\n").partition(b"\n\n")
    if re.search(rb"(?mi)^transfer-encoding:[ \t]*chunked", head):
        body = _unchunked(body)
    return Answer(int(match[1]), body[:2000].decode("utf-8", "replace") if blank else "")


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while match := re.match(rb"([0-9A-Fa-f]{1,6})[^\n]{0,100}\n", body):
        size = int(match[1], 16)
        if not size:
            break
        whole += body[match.end() : match.end() + size]
        body = body[match.end() + size :].removeprefix(b"\n")
    return whole


def _by_program(connection: Connection, address: Address, domain: str) -> Answer:
    host = f"[{address.host}]" if ":" in address.host else address.host
    url = f"http://localhost{address.path}" if address.unix else f"http://{host}:{address.port}{address.path}"
    name = domain if re.fullmatch(r"[A-Za-z0-9.-]{1,253}", domain) else "localhost"
    done = connection.run(Command(sh(_BY_PROGRAM, url, address.unix, name), env={"LC_ALL": "C"}), timeout=30)
    # curl shows an interim answer before the real one.
    return parse_answer(done.stdout) if done.status == 0 else Answer()
