"""The grammar of `.env.production`, parsed and never sourced (gem dotenv 3.2, which Mastodon loads it with).

What it allows: `KEY=value`, `KEY: value`, `export KEY=value`, single and double quotes (over several lines too),
`# comments`, backslash escapes, `$OTHER` and `${OTHER}`. `$(command)` is recognised and never run.
The scan is linear: a file made to hurt cannot hold it up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from backends.errors import DiscoveryFailed
from backends.model import Secret
from backends.untrusted import clean

MAX_BYTES = 1024 * 1024
"""More than any settings file holds; Linux takes no single setting above 128 KiB."""
MAX_WARNINGS = 12
_MAX_EXPANDED = 4 * MAX_BYTES
"""What `$NAME` may add in one file: `A=$A$A` a few dozen times would fill any memory."""

_ASSIGNMENT = re.compile(r"(?P<export>export\s+)?(?P<key>[\w.]+)", re.ASCII)
_SPACE = re.compile(r"\s*", re.ASCII)
_UNQUOTED = re.compile(r"[^#\n]+")
_VARIABLE = re.compile(r"(\\)?\$(?!\()\{?([A-Za-z0-9_]+)?\}?")
_BLANK = " \t\r\f\v"
_SPACES = tuple(_BLANK + "\n")


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What one file defines, in its order, and what is odd about it. No warning holds a value."""

    values: dict[str, Secret]
    warnings: tuple[str, ...] = ()
    computed: frozenset[str] = frozenset()
    """Names whose value is the output of a command, so unknown; their text is kept as written."""


def decode(content: bytes, name: str) -> tuple[str, list[str]]:
    """The text of a settings file, and what is wrong with its bytes.

    Raises:
        DiscoveryFailed: it is larger than a settings file can be.
    """
    if len(content) > MAX_BYTES:
        raise too_large(name, len(content))
    warnings = []
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        warnings.append(f"{name} is not UTF-8 (line {line}); Mastodon does not start with it")
        text = content.decode("utf-8", "replace")
    if "\0" in text:
        warnings.append(f"{name} holds a NUL byte (line {text.count(chr(10), 0, text.index(chr(0))) + 1})")
        text = text.replace("\0", "\ufffd")
    return text, warnings


def too_large(name: str, size: int) -> DiscoveryFailed:
    """The error for a settings file that is none."""
    return DiscoveryFailed(
        f"{clean(name)} is {size / 1e6:.1f} MB large; a settings file has a few kilobytes, so it was not read",
        "Look at what is in it: a log or a dump may have been written there by mistake.",
    )


def parse(content: bytes, *, name: str = ".env.production", defined: Mapping[str, Secret] | None = None) -> EnvFile:
    """Read one dotenv file.

    Args:
        content: the file as it is.
        name: how the file is called in warnings.
        defined: what is set already (the process, files before this one): it wins, and `$NAME` finds it.

    Raises:
        DiscoveryFailed: it is larger than `MAX_BYTES`. Nothing else is ever raised.
    """
    name = clean(name, 200)
    text, warnings = decode(content, name)
    return _Parser(text.replace("\r\n", "\n").replace("\r", "\n"), name, defined or {}, warnings).parse()


def assignments(content: bytes) -> list[tuple[str, int, int]]:
    """Where each assignment stands: its name, where it begins, and where the line ends that it ends on (in bytes).

    The line end itself is not part of it. What is between assignments (comments, empty lines, rubbish) is in none.
    """
    # Everything that the grammar knows is ASCII, so one character for each byte gives the same assignments.
    text = content.decode("latin-1")
    begin = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    places = [at for at in range(begin, len(text)) if text[at : at + 2] != "\r\n"]
    normal = "".join("\n" if text[at] == "\r" else text[at] for at in places)
    parser = _Parser(normal, "", {}, [])
    parser.parse()
    places.append(len(text))
    return [(name, places[start], _before_line_end(text, places[end])) for name, start, end in parser.spans]


def _before_line_end(text: str, position: int) -> int:
    """The place before the line end that ends at `position`, when there is one."""
    for end in ("\r\n", "\n", "\r"):
        if text.endswith(end, 0, position):
            return position - len(end)
    return position


class _Parser:
    def __init__(self, text: str, name: str, defined: Mapping[str, Secret], warnings: list[str]) -> None:
        self.text = text
        self.name = name
        self.defined = defined
        self.warnings = warnings
        self.values: dict[str, Secret] = {}
        self.computed: set[str] = set()
        self.expanded = 0
        self.spans: list[tuple[str, int, int]] = []
        """Each assignment's name, its beginning, and the beginning of the line after it."""

    def parse(self) -> EnvFile:
        position = 0
        while position < len(self.text):
            position = self._statement(_skip(self.text, position))
        more = len(self.warnings) - MAX_WARNINGS
        if more > 0:
            self.warnings[MAX_WARNINGS:] = [f"{self.name}: {more} more warnings like these"]
        return EnvFile(self.values, tuple(self.warnings), frozenset(self.computed))

    def _statement(self, start: int) -> int:
        """Take the statement that begins here, and return where the next line begins."""
        match = _ASSIGNMENT.match(self.text, start)
        if match is None:
            return self._next_line(start)
        exported, key = bool(match["export"]), match["key"]
        value, end = self._separated_value(match.end())
        if end < 0 and exported:
            # `export` may itself be the name: `export = 1`.
            exported, key = False, "export"
            value, end = self._separated_value(start + len(key))
        if end < 0:
            return self._next_line(start)
        if exported and value is None and key not in self.defined:
            if key not in self.values:
                self.warnings.append(f"{self.name} exports {clean(key, 80)}, which has no value")
        else:
            self._define(key, value or "")
        following = self._next_line(end)
        self.spans.append((key, start, following))
        return following

    def _separated_value(self, position: int) -> tuple[str | None, int]:
        """The value after a name, None when there is none, and where it ends: -1 when this is no assignment."""
        text = self.text
        equals = _skip(text, position)
        if text.startswith("=", equals):
            begin = equals + 1
        elif text.startswith(":", position) and text[position + 1 : position + 2] in _SPACES:
            begin = position + 2
        else:
            return None, position if self._line_ends(position) else -1
        quote = _skip(text, begin)
        if text[quote : quote + 1] in {"'", '"'} and (close := self._closing(quote)) >= 0:
            return text[quote : close + 1], close + 1
        found = _UNQUOTED.match(text, begin)
        return (found[0], found.end()) if found else (None, begin)

    def _closing(self, opening: int) -> int:
        """Where the quoted value that opens here closes, so that nothing but a comment follows it; -1 if nowhere."""
        quote, position, escaped = self.text[opening], opening + 1, []
        while (position := self.text.find(quote, position)) >= 0:
            # A quote after a backslash closes only when no other one does.
            if self.text[position - 1] == "\\" and position - 1 > opening:
                escaped.append(position)
                position += 1
                continue
            if self._line_ends(position + 1):
                return position
            break
        return next((each for each in reversed(escaped) if self._line_ends(each + 1)), -1)

    def _line_ends(self, position: int) -> bool:
        while position < len(self.text) and self.text[position] in _BLANK:
            position += 1
        return position >= len(self.text) or self.text[position] in "#\n"

    def _next_line(self, position: int) -> int:
        end = self.text.find("\n", position)
        return len(self.text) if end < 0 else end + 1

    def _define(self, key: str, raw: str) -> None:
        if key in self.defined:
            # dict order is the file's order; the value is the one that counts.
            self.values[key] = self.defined[key]
            return
        self.computed.discard(key)
        self.values[key] = Secret(self._value(key, raw.strip(" \t\n\r\f\v")))

    def _value(self, key: str, raw: str) -> str:
        quote = raw[0] if len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "'\"" else ""
        value = raw[1:-1] if quote else raw
        if quote == "'":
            return value
        if quote == '"':
            value = self._line_breaks(value)
        value = re.sub(r"\\([^$])", r"\1", value)
        value, runs_command = _commands(value)
        if runs_command:
            self.computed.add(key)
            self.warnings.append(
                f"{clean(key, 80)} in {self.name} is the output of a command, which is not run; its value is unknown"
            )
            return value
        return _VARIABLE.sub(lambda match: self._variable(key, match), value)

    def _line_breaks(self, value: str) -> str:
        mode = self.values.get("DOTENV_LINEBREAK_MODE") or self.defined.get("DOTENV_LINEBREAK_MODE")
        if mode is not None and mode.reveal() == "legacy":
            return value.replace("\\n", "\n").replace("\\r", "\r")
        return value.replace("\\n", "\\\\n").replace("\\r", "\\\\r")

    def _variable(self, key: str, match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        if not match[2]:
            return match[0]
        found = self.defined.get(match[2]) or self.values.get(match[2])
        if found is None:
            self.warnings.append(f"{clean(key, 80)} in {self.name} refers to a setting that is defined nowhere before")
            return ""
        value = found.reveal()
        self.expanded += len(value)
        if self.expanded > _MAX_EXPANDED:
            self.computed.add(key)
            self.warnings.append(f"{clean(key, 80)} in {self.name} grows without end; its value is unknown")
            return ""
        return value


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _commands(value: str) -> tuple[str, bool]:
    """Take the backslash from every escaped `$(...)`, and say whether one is left that would be run."""
    if "$(" not in value:
        return value, False
    closed = _balanced(value)
    kept, runs, last = [], False, 0
    for match in re.finditer(r"(\\)?\$\(", value):
        if not match[1]:
            runs = True
        elif match.end() - 1 in closed:
            kept.append(value[last : match.start()])
            last = match.start() + 1
    return "".join(kept) + value[last:], runs


def _balanced(value: str) -> set[int]:
    """Positions of the opening parentheses that are closed, with something in between."""
    closed: set[int] = set()
    opened: list[int] = []
    for position, character in enumerate(value):
        if character == "(":
            opened.append(position)
        elif character == ")" and opened:
            start = opened.pop()
            if position > start + 1:
                closed.add(start)
    return closed
