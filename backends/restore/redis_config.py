"""What a configuration file of redis-server says, as far as a restore must know (redis.conf, src/config.c)."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from backends.connection.base import Connection
from backends.mastodon.host_files import FileState, read_files

_MOST_FILES = 20
_DEFAULTS = {
    "port": "6379",
    "dir": "",
    "dbfilename": "dump.rdb",
    "appendonly": "no",
    "appenddirname": "appendonlydir",
    "appendfilename": "appendonly.aof",
    "unixsocket": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConfig:
    """The settings of one server as its file and its command line give them."""

    path: str = ""
    values: dict[str, str] = field(default_factory=dict)
    """By lower-case name, the first argument of the last line that sets it. Passwords are never among them."""
    on_command_line: frozenset[str] = frozenset()
    """What the command line sets: it wins over the file."""
    whole: bool = True
    """False when a part of it could not be read."""

    def get(self, name: str) -> str:
        """A setting, or its default."""
        return self.values.get(name, _DEFAULTS.get(name, ""))

    @property
    def aof(self) -> bool:
        """Whether the append-only file is on."""
        return self.get("appendonly").lower() == "yes"


def parse_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every directive with its arguments, in order; never raises."""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        words = _words(stripped)
        if words:
            yield words[0].lower(), words[1:]


def parse_arguments(arguments: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The configuration file that a command line of redis-server names, and the options that it sets."""
    path, values, name = "", {}, ""
    for place, word in enumerate(arguments):
        if word.startswith("--") and len(word) > 2:
            name = word[2:].lower()
            values[name] = ""
        elif name:
            values[name] = values[name] or word
        elif place == 0 and word.startswith("/"):
            path = word
    return path, {key: value for key, value in values.items() if key in _DEFAULTS}


def read_config(connection: Connection, arguments: Sequence[str], as_user: str | None) -> RedisConfig:
    """The settings of a server that is started with these arguments, files that it includes among them.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    path, options = parse_arguments(arguments)
    values: dict[str, str] = {}
    whole = _read_into(values, connection, path, as_user, [_MOST_FILES]) if path else True
    return RedisConfig(path=path, values={**values, **options}, on_command_line=frozenset(options), whole=whole)


def _read_into(values: dict[str, str], connection: Connection, path: str, as_user: str | None, left: list[int]) -> bool:
    left[0] -= 1
    if left[0] < 0 or any(wild in path for wild in "*?[") or not path.startswith("/"):
        return False
    file = read_files(connection, [path], [None, as_user]).files.get(path)
    if file is None or file.state is not FileState.READ:
        return False
    whole = True
    for name, arguments in parse_lines(file.content.decode("utf-8", "replace")):
        if name == "include" and arguments:
            whole = _read_into(values, connection, arguments[0], as_user, left) and whole
        elif name in _DEFAULTS and arguments:
            values[name] = arguments[0]
    return whole


def same_socket(one: str, other: str) -> bool:
    """Whether two paths name the same socket; /var/run is /run."""
    return _plain(one) == _plain(other)


def _plain(path: str) -> str:
    normal = posixpath.normpath(path)
    return normal[4:] if normal.startswith("/var/run/") else normal


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        return line.split()
