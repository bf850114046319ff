"""Room on the target: where the server keeps its data, and where a copy of the dump may stand for a while."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.connection.base import Command, Connection, sh
from backends.errors import BecomeRefused, CommandFailed
from backends.restore.database_admin import Admin, is_local

_MARK = "mastovault-room"
_IN_MEMORY = {"tmpfs", "ramfs"}
_MIB = 1024 * 1024
# As text a row may take more than in its table, above all what the table holds compressed (TOAST).
_TEXT_MORE = 1.3
_MARGIN = 1.05

# $1 mark, then kind and path in turns. An unreadable path is asked about one directory higher.
# ps cuts its lines to $COLUMNS, also where nobody looks; BusyBox has no -ww for it.
_LOOK = r"""
mark=$1; shift
{ ps -A -ww -o args= || ps -A -o args=; } 2>/dev/null | while IFS= read -r line; do
  case $line in *postgres*-D*) printf '%s\tserver\t%s\n' "$mark" "$line" ;; esac
done
while [ $# -gt 1 ]; do
  kind=$1 path=$2 at=$2; shift 2
  if [ "$path" = '~' ]; then path=$HOME at=$HOME; fi
  said=
  while :; do
    said=$(df -Pk -- "$at" 2>/dev/null | tail -n 1)
    if [ -n "$said" ] || [ "$at" = / ] || [ -z "$at" ]; then break; fi
    at=${at%/*}; at=${at:-/}
  done
  writable=no; if [ -d "$path" ] && [ -w "$path" ] && [ -x "$path" ]; then writable=yes; fi
  type=$(stat -f -c %T -- "$at" 2>/dev/null)
  printf '%s\troom\t%s\t%s\t%s\t%s\t%s\n' "$mark" "$kind" "$path" "$writable" "$type" "$said"
done
"""


@dataclass(frozen=True, slots=True)
class Room:
    """Free bytes below a path, and the file system it is on."""

    path: str
    free: int
    mount: str
    writable: bool
    in_memory: bool


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where data and staging could be; `data` is None when where the server keeps its data cannot be told."""

    data: Room | None
    staging: tuple[Room, ...]


def find_rooms(connection: Connection, admin: Admin) -> Rooms:
    """Ask the host's file systems. What cannot be asked is left out.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    place = admin.place
    local = is_local(place)
    live = admin.live
    known = (live.tablespace_path if live else "") or admin.data_directory
    wanted = ["staging", "~", "staging", "/var/tmp"]  # noqa: S108
    if local and known:
        wanted = ["data", known, "staging", posixpath.dirname(known), *wanted]
    try:
        text = _ask(connection, place.as_user, wanted)
        if local and not known and (guess := data_directory(text.splitlines(), place.port)):
            text += _ask(connection, place.as_user, ["data", guess])
    except (BecomeRefused, CommandFailed):
        return Rooms(None, ())
    return parse_rooms(text)


def _ask(connection: Connection, as_user: str | None, wanted: Sequence[str]) -> str:
    command = Command(sh(_LOOK, _MARK, *wanted), as_user=as_user, env={"LC_ALL": "C"})
    return connection.run(command, timeout=30).text


def parse_rooms(text: str) -> Rooms:
    """Read what the look-around printed; lines of anything else are passed over."""
    data: Room | None = None
    staging: list[Room] = []
    for line in text.splitlines():
        fields = line.split("\t", 6)
        if len(fields) != 7 or fields[:2] != [_MARK, "room"]:
            continue
        _, _, kind, path, writable, kind_of_fs, said = fields
        df = re.search(r"\s[0-9]{1,18}\s+[0-9]{1,18}\s+([0-9]{1,18})\s+[0-9]{1,3}%\s+(/.*)$", said)
        if df is None or not path.startswith("/"):
            continue
        room = Room(path, int(df[1]) * 1024, df[2], writable == "yes", kind_of_fs in _IN_MEMORY)
        if kind == "data":
            data = room
        elif kind == "staging":
            staging.append(room)
    return Rooms(data, tuple(staging))


def data_directory(lines: Iterable[str], port: int) -> str:
    """Where a server on this port keeps its data, from the arguments of the processes; empty when it is not clear."""
    found: dict[str, str] = {}
    for line in lines:
        fields = line.split("\t", 2)
        if len(fields) != 3 or fields[:2] != [_MARK, "server"]:
            continue
        words = fields[2].split()
        where = _option(words, "-D")
        if words and posixpath.basename(words[0]) in {"postgres", "postmaster"} and where.startswith("/"):
            found[where] = _option(words, "-p")
    named = [where for where, its in found.items() if its == str(port)]
    silent = [where for where, its in found.items() if not its]
    candidates = named or silent
    return candidates[0] if len(candidates) == 1 else ""


def _option(words: Sequence[str], name: str) -> str:
    for at, word in enumerate(words):
        if word == name:
            return words[at + 1] if at + 1 < len(words) else ""
        if word.startswith(name) and len(word) > len(name):
            return word[len(name) :]
    return ""


def database_need(facts: Mapping[str, Any]) -> int:
    """Bytes that the restored database takes at most: tables and indexes as they were."""
    size = facts.get("database_bytes")
    return size if isinstance(size, int) and size > 0 else 0


def table_bytes(facts: Mapping[str, Any]) -> int:
    """Bytes of all tables without their indexes."""
    tables = facts.get("tables")
    values = tables.values() if isinstance(tables, dict) else ()
    sizes = [table.get("bytes") for table in values if isinstance(table, dict)]
    return sum(size for size in sizes if isinstance(size, int) and size > 0)


def staged_need(facts: Mapping[str, Any], plain_bytes: int, *, packed: bool) -> int:
    """Bytes of the dump as a file.

    Args:
        facts: of the manifest.
        plain_bytes: of the dump's object.
        packed: whether those are of a stream that the host had compressed, so that its real size is only guessed.
    """
    if not packed:
        return plain_bytes
    return max(plain_bytes, int(table_bytes(facts) * _TEXT_MORE) + _MIB)


def choose_staging(rooms: Rooms, *, staged: int, database: int) -> Room | None:
    """The first place that holds the dump beside the database that is made of it; None when there is none."""
    for room in rooms.staging:
        if not room.writable or room.in_memory:
            continue
        shared = rooms.data is None or rooms.data.mount == room.mount
        if room.free >= (staged + (database if shared else 0)) * _MARGIN:
            return room
    return None
