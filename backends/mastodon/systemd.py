"""What systemd says of services, and the files that units read their environment from (systemd.exec(5))."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from backends.mastodon.env_file import EnvFile, decode
from backends.model import Secret
from backends.untrusted import clean

PROPERTIES = "Id,User,WorkingDirectory,Environment,EnvironmentFiles,ExecStart,ActiveState,FragmentPath,DropInPaths"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SERVES = re.compile(r"\b(?:puma|sidekiq)\b|streaming")
_MAX_UNITS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One service as `systemctl show` tells it. `environment` is what its `Environment=` lines set."""

    id: str
    user: str
    directory: str
    exec_start: str
    active: bool
    environment: dict[str, Secret]
    environment_files: tuple[str, ...]
    fragment: str
    drop_ins: tuple[str, ...]

    @property
    def named_so(self) -> bool:
        """Whether its name says Mastodon."""
        return self.id.startswith("mastodon")

    @property
    def may_serve(self) -> bool:
        """Whether it may be a part of a Mastodon; what lies in its directory decides."""
        return self.directory.startswith("/") and (self.named_so or bool(_SERVES.search(self.exec_start)))

    @property
    def rank(self) -> int:
        """Whose environment counts when units differ: web, then Sidekiq, then the rest."""
        return 0 if "puma" in self.exec_start else 1 if "sidekiq" in self.exec_start else 2


def parse_units(text: str) -> tuple[Unit, ...]:
    """Services from the output of `systemctl show -p ...`; never raises."""
    units: dict[str, Unit] = {}
    for block in re.split(r"\n\s*\n", text)[:_MAX_UNITS]:
        properties: dict[str, list[str]] = {}
        for line in block.splitlines():
            name, separator, value = line.partition("=")
            if separator and value:
                properties.setdefault(name.strip(), []).append(value)
        unit = _unit(properties)
        if unit.id:
            units[unit.id] = unit
    return tuple(sorted(units.values(), key=lambda unit: (unit.rank, not unit.active, unit.id)))


def _unit(properties: dict[str, list[str]]) -> Unit:
    def first(name: str) -> str:
        return properties.get(name, [""])[0].strip()

    # WorkingDirectory=!/path and -/path: "may be missing".
    return Unit(
        id=clean(first("Id"), 200),
        user=first("User"),
        directory=first("WorkingDirectory").lstrip("!-").rstrip("/"),
        exec_start=" ".join(properties.get("ExecStart", ()))[:4000],
        active=first("ActiveState") in {"active", "activating", "reloading"},
        environment=parse_environment(first("Environment")),
        environment_files=tuple(_environment_files(properties.get("EnvironmentFiles", ()))),
        fragment=first("FragmentPath"),
        drop_ins=tuple(path for path in first("DropInPaths").split() if path.startswith("/")),
    )


def _environment_files(values: Iterable[str]) -> Iterable[str]:
    for value in values:
        path = re.sub(r"\s*\(ignore_errors=\w+\)\s*$", "", value).strip()
        if path.startswith("/") and not any(wild in path for wild in "*?["):
            yield path


def parse_environment(text: str) -> dict[str, Secret]:
    """The value of the `Environment` property: assignments, quoted where they need it; never raises."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    pairs = (word.partition("=") for word in words)
    return {name: Secret(value) for name, separator, value in pairs if separator and _KEY.fullmatch(name)}


def parse_environment_file(content: bytes, *, name: str) -> EnvFile:
    r"""Read an `EnvironmentFile=`: no expansion, `#` and `;` comments, `\` at a line's end joins it with the next.

    Raises:
        DiscoveryFailed: it is larger than a settings file can be. Nothing else is ever raised.
    """
    name = clean(name, 200)
    text, warnings = decode(content, name)
    return EnvFile({key: Secret(value) for key, value, *_ in _assignments(text)}, tuple(warnings))


def assignments(content: bytes) -> list[tuple[str, int, int]]:
    """Where each assignment of an `EnvironmentFile=` stands: its name, its begin, its end (bytes, no line end)."""
    begin = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    text = content.decode("latin-1")[begin:]
    return [(key, start + begin, end + begin) for key, _, start, end in _assignments(text)]


def _assignments(text: str) -> Iterable[tuple[str, str, int, int]]:
    """Name, value, and where the assignment begins and ends."""
    position = 0
    while position < len(text):
        if text[position] in " \t\r\n":
            position += 1
            continue
        equals = _KEY.match(text, position)
        if text[position] in "#;" or equals is None or not text.startswith("=", equals.end()):
            position = _line_end(text, position)
            continue
        start = position
        value, position = _value(text, equals.end() + 1)
        yield equals[0], value, start, position


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end + 1


def _value(text: str, position: int) -> tuple[str, int]:
    kept: list[str] = []
    quote = ""
    bare = 0
    """How much of `kept` must stay when blanks at the end go."""
    while position < len(text) and text[position] in " \t":
        position += 1
    while position < len(text):
        character = text[position]
        if character == "\n" and not quote:
            break
        if character == quote:
            quote, bare = "", len(kept)
        elif not quote and character in "'\"":
            quote = character
        elif character == "\\" and quote != "'" and position + 1 < len(text):
            position += 1
            if text[position] != "\n":
                literal = quote == '"' and text[position] not in '"\\`$'
                kept.append(("\\" if literal else "") + text[position])
                bare = len(kept)
        else:
            kept.append(character)
            if quote or character not in " \t\r":
                bare = len(kept)
        position += 1
    return "".join(kept[:bare]), position
