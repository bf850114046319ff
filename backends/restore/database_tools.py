"""Which pg_restore, vacuumdb and psql of the target fit both the dump and the server."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.assets.database_access import command
from backends.assets.database_programs import Found, find_programs
from backends.connection.base import Connection, sh
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace

_MARK = "mastovault-tool"
# From 17 on pg_restore sets transaction_timeout, which older servers do not know and refuse.
_SETS_NEW_TIMEOUT = 17

_LOOK = r"""
mark=$1; shift
printf '%s\tcores\t%s\n' "$mark" "$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)"
while read -r name amount unit; do
  case $name in MemAvailable:) printf '%s\tmemory\t%s\n' "$mark" "$amount" ;; esac
done </proc/meminfo 2>/dev/null
for prefix do
  said=$("${prefix}pg_restore" --version 2>/dev/null) || continue
  vacuum=${prefix}vacuumdb; command -v "$vacuum" >/dev/null || vacuum=
  printf '%s\tset\t%s\t%s\t%s\n' "$mark" "$prefix" "$vacuum" "$said"
done
"""


@dataclass(frozen=True, slots=True)
class Tools:
    """One set of programs; `vacuumdb` is empty where there is none."""

    pg_restore: str
    vacuumdb: str
    psql: str
    major: int
    version: str


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What the target has for restores: sets of programs, cores, memory in bytes, a zstd that works."""

    host: str
    sets: tuple[Tools, ...]
    psql: str
    zstd: bool
    cores: int = 1
    memory: int = 0

    def fitting(self, dump_major: int, server_major: int) -> Tools:
        """The set to load a dump with: never older than the pg_dump that made it, the server's own where possible.

        Raises:
            AssetFailed: there is none; says what to install.
        """
        able = [tools for tools in self.sets if tools.major >= dump_major]
        sound = [tools for tools in able if tools.major < _SETS_NEW_TIMEOUT or server_major >= _SETS_NEW_TIMEOUT]
        if sound:
            return min(sound, key=lambda tools: (abs(tools.major - server_major), tools.major))
        wanted = max(dump_major, server_major)
        if dump_major >= _SETS_NEW_TIMEOUT > server_major:
            raise AssetFailed(
                f"The dump was made by pg_dump {dump_major}, whose pg_restore does not work with PostgreSQL"
                f" {server_major} on {self.host}.",
                f"Upgrade PostgreSQL there to {dump_major} or newer, or restore to a host that has it.",
            )
        if able:
            raise AssetFailed(
                f"pg_restore {able[0].version} on {self.host} does not work with its server, PostgreSQL"
                f" {server_major}.",
                f"Install the client of the server's version there (postgresql-client-{server_major} on Debian).",
            )
        if not self.sets:
            raise AssetFailed(
                f"pg_restore was not found on {self.host}.",
                f"Install the PostgreSQL client there (postgresql-client-{wanted or 15} on Debian).",
            )
        newest = max(self.sets, key=lambda tools: tools.major)
        raise AssetFailed(
            f"pg_restore {newest.version} on {self.host} is older than the pg_dump {dump_major} that made the dump.",
            f"Install a newer PostgreSQL client there (postgresql-client-{wanted} on Debian).",
        )


def find_toolbox(connection: Connection, place: DatabasePlace) -> Toolbox:
    """Look for the programs beside every pg_dump of the host.

    Raises:
        AssetFailed: there is not even a pg_dump, or no psql.
    """
    found = find_programs(connection, place)
    prefixes = [programs.pg_dump.removesuffix("pg_dump") for programs in found.sets]
    asked = command(place, sh(_LOOK, _MARK, *dict.fromkeys(prefixes)))
    text = connection.check(asked, what="Looking for pg_restore").text
    return parse_toolbox(text, found)


def parse_toolbox(text: str, found: Found) -> Toolbox:
    """Read what the look-around printed; lines of anything else, such as a banner, are passed over."""
    sets: list[Tools] = []
    cores, memory = 1, 0
    for line in text.splitlines():
        match line.split("\t"):
            case [mark, "cores", number] if mark == _MARK and re.fullmatch(r"[0-9]{1,5}", number):
                cores = max(1, int(number))
            case [mark, "memory", number] if mark == _MARK and re.fullmatch(r"[0-9]{1,15}", number):
                memory = int(number) * 1024
            case [mark, "set", prefix, vacuumdb, said] if mark == _MARK:
                version = re.search(r"\(PostgreSQL\) ((\d{1,4})[\w.]{0,20})", said)
                if version:
                    tools = Tools(f"{prefix}pg_restore", vacuumdb, found.psql, int(version[2]), version[1])
                    sets.append(tools)
    return Toolbox(found.host, tuple(sets), found.psql, found.zstd, cores, memory)


def dump_major(facts: Mapping[str, Any]) -> int:
    """Major version of the pg_dump that made a dump, else of its server; 0 when the manifest does not say."""
    match = re.match(r"(\d{1,4})(?:\D|$)", str(facts.get("dump_version", "")))
    return int(match[1]) if match else server_major(facts)


def server_major(facts: Mapping[str, Any]) -> int:
    """Major version of the server that a dump came from; 0 when the manifest does not say."""
    number = facts.get("server_version_num")
    return number // 10000 if isinstance(number, int) else 0


def beside_program(program: str, name: str) -> str:
    """Another program of the same set."""
    directory = posixpath.dirname(program)
    return posixpath.join(directory, name) if directory else name


def shown_versions(sets: Sequence[Tools]) -> str:
    """For people: `15.18, 17.2`."""
    return ", ".join(tools.version for tools in sets)
