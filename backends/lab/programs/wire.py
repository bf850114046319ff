"""PostgreSQL's and Redis's protocols, as little of them as the lab's stand-ins for Mastodon need."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import struct
import threading
from collections.abc import Mapping, Sequence

_VERSION = 196608
_SECONDS = 30.0


class Refused(OSError):
    """A server answered with an error."""


class Database:
    """One connection to PostgreSQL that is made when it is first used, and again when it was lost."""

    def __init__(self, settings: Mapping[str, str], name: str) -> None:
        """`settings` are `DB_*`, `name` is what pg_stat_activity calls the program."""
        self._settings = settings
        self._name = name
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def ask(self, query: str) -> str:
        """The first value that a query gives, as text; empty for none. Raises `OSError`."""
        return next(iter(self.column(query)), "")

    def column(self, query: str) -> list[str]:
        """The first value of every row, as text; NULL is empty. Raises `OSError`."""
        with self._lock:
            known = self._socket is not None
            try:
                return self._ask(query)
            except Refused:
                raise
            except OSError:
                self.close()
                if not known:
                    raise
                return self._ask(query)

    def close(self) -> None:
        """Let the connection go. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, query: str) -> list[str]:
        if self._socket is None:
            self._connect()
        self._send(b"Q", query.encode() + b"\0")
        values: list[str] = []
        error = ""
        while True:
            kind, body = self._receive()
            if kind == b"D":
                size = int.from_bytes(body[2:6], "big", signed=True)
                values.append(body[6 : 6 + max(0, size)].decode())
            elif kind == b"E":
                error, fatal = _told(body)
                if fatal:
                    raise ConnectionResetError(error)
            elif kind == b"Z":
                if error:
                    raise Refused(error)
                return values

    def _connect(self) -> None:
        get = self._settings.get
        host, port = get("DB_HOST", "localhost"), int(get("DB_PORT") or 5432)
        if host.startswith("/"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(_SECONDS)
            self._socket.connect(f"{host}/.s.PGSQL.{port}")
        else:
            self._socket = socket.create_connection((host or "localhost", port), timeout=_SECONDS)
        user = get("DB_USER") or "mastodon"
        words = ("user", user, "database", get("DB_NAME") or "mastodon_production", "application_name", self._name)
        body = struct.pack("!i", _VERSION) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
        self._socket.sendall(struct.pack("!i", len(body) + 4) + body)
        try:
            self._log_in(get("DB_PASS", ""))
        except OSError:
            self.close()
            raise

    def _log_in(self, password: str) -> None:
        proof: tuple[bytes, bytes] = (b"", b"")
        while True:
            kind, body = self._receive()
            if kind == b"E":
                raise Refused(_told(body)[0])
            if kind == b"Z":
                return
            if kind != b"R":
                continue
            match struct.unpack("!i", body[:4])[0]:
                case 3:
                    self._send(b"p", password.encode() + b"\0")
                case 10:
                    nonce = base64.b64encode(os.urandom(18))
                    first = b"n=,r=" + nonce
                    whole = b"n,," + first
                    self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(whole)) + whole)
                    proof = (first, nonce)
                case 11:
                    self._send(b"p", _scram(proof[0], body[4:], password))

    def _send(self, kind: bytes, body: bytes) -> None:
        if self._socket is None:
            raise ConnectionResetError("not connected")
        self._socket.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    def _receive(self) -> tuple[bytes, bytes]:
        head = self._exactly(5)
        return head[:1], self._exactly(int.from_bytes(head[1:], "big") - 4)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            data = self._socket.recv(count - len(found)) if self._socket else b""
            if not data:
                raise ConnectionResetError("PostgreSQL closed the connection")
            found += data
        return found


def _told(body: bytes) -> tuple[str, bool]:
    """The message of an ErrorResponse, and whether the connection ends with it."""
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
    return fields.get(b"M", "error"), fields.get(b"V", fields.get(b"S", "")) in {"FATAL", "PANIC"}


def _scram(first: bytes, challenge: bytes, password: str) -> bytes:
    """The client's final message (RFC 5802, 7677)."""
    parts = dict(part.split(b"=", 1) for part in challenge.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts[b"s"]), int(parts[b"i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    final = b"c=biws,r=" + parts[b"r"]
    signature = hmac.digest(hashlib.sha256(key).digest(), b",".join((first, challenge, final)), "sha256")
    return final + b",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))


class Redis:
    """One connection to Redis that is made when it is first used, and again when it was lost."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """`settings` are `REDIS_*`."""
        self._settings = settings
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._lock = threading.Lock()

    def call(self, *words: str) -> str:
        """The answer to a command, its first line for those with many. Raises `OSError`."""
        with self._lock:
            known = self._socket is not None
            try:
                return self._call(words)
            except Refused:
                raise
            except OSError:
                self.close()
                if not known:
                    raise
                return self._call(words)

    def close(self) -> None:
        """Let the connection go. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _call(self, words: Sequence[str]) -> str:
        if self._socket is None:
            self._connect()
        if self._socket is None:
            raise ConnectionResetError("not connected")
        self._socket.sendall(_packed(words))
        return self._answer()

    def _connect(self) -> None:
        host, port, user, password, number = redis_address(self._settings)
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX) if host.startswith("/") else None
        if self._socket is not None:
            self._socket.settimeout(_SECONDS)
            self._socket.connect(host)
        else:
            self._socket = socket.create_connection((host, port), timeout=_SECONDS)
        try:
            first = [["AUTH", *([user] if user else []), password]] if password else []
            for words in [*first, ["SELECT", number]]:
                self._socket.sendall(_packed(words))
                self._answer()
        except OSError:
            self.close()
            raise

    def _answer(self) -> str:
        line = self._line()
        if line[:1] == b"-":
            raise Refused(line[1:].decode())
        if line[:1] == b"$" and line != b"$-1":
            text = self._line()
            return text.decode("utf-8", "replace")
        if line[:1] == b"*":
            return " ".join(self._answer() for _ in range(max(0, int(line[1:]))))
        return line[1:].decode()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            data = self._socket.recv(65536) if self._socket else b""
            if not data:
                raise ConnectionResetError("Redis closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line


def redis_address(settings: Mapping[str, str]) -> tuple[str, int, str, str, str]:
    """Host (or socket), port, user, password, database; `REDIS_URL` wins over the rest."""
    get = settings.get
    url = get("REDIS_URL", "")
    if not url:
        host, port = get("REDIS_HOST") or "localhost", int(get("REDIS_PORT") or 6379)
        return host, port, get("REDIS_USER", ""), get("REDIS_PASSWORD", ""), get("REDIS_DB") or "0"
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    host = unquote(parts.path) if parts.scheme == "unix" else parts.hostname or "localhost"
    number = "0" if parts.scheme == "unix" else parts.path.strip("/") or "0"
    return host, parts.port or 6379, unquote(parts.username or ""), unquote(parts.password or ""), number


def _packed(words: Sequence[str]) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
