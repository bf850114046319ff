"""What is on the disk of a Redis server: its file, its rights, its room. Read-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.connection.base import Command, Connection, sh

_ASK = r"""
dir=$1 file=$2 conf=$3; shift 3
cd -- "$dir" 2>/dev/null || { echo "dir 0"; exit; }
echo "dir 1"
[ -w . ] && echo "writable 1"
stat -c 'owner %U %G' -- .
if [ -e "$file" ]; then stat -L -c 'file %U %G %a %s %Y' -- "$file"; fi
stat -f -c 'free %a %S' -- .
for name do
  if [ -e "$name" ]; then echo "aof $(du -sk -- "$name" | cut -f1)"; fi
done
if [ -n "$conf" ]; then
  real=$(readlink -f -- "$conf") && [ -f "$real" ] && [ -r "$real" ] && [ -w "${real%/*}" ] && echo "config $real"
fi
echo "now $(date +%s)"
echo "end 1"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One server's directory as whoever may look sees it."""

    reachable: bool = False
    writable: bool = False
    owner: str = ""
    group: str = ""
    mode: int = 0o660
    file_bytes: int | None = None
    """Of the data file; None when there is none."""
    free: int | None = None
    aof: bool = False
    """Whether an append-only file is there."""
    aof_bytes: int = 0
    config: str = ""
    """The configuration file, links followed, when it can be changed by renaming; else empty."""


def look_at_disk(
    connection: Connection, directory: str, file: str, config: str, aof_names: Sequence[str], as_user: str | None
) -> Disk:
    """Look into the directory of a server. Raises `ConnectionFailed`, `BecomeRefused`."""
    script = sh(_ASK, directory, file, config, *aof_names)
    done = connection.run(Command(script, as_user=as_user, env={"LC_ALL": "C"}), timeout=60)
    return parse_disk(done.text)


def parse_disk(text: str) -> Disk:
    """What the script said; never raises."""
    words: dict[str, list[str]] = {}
    aof: list[int] = []
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        words.setdefault(name, rest.split(" "))
        if name == "aof":
            aof.append(_number(rest))
    if "end" not in words or words.get("dir") != ["1"]:
        return Disk()
    found = words.get("file", [])
    whose = found if len(found) == 5 else words.get("owner", [])
    free = words.get("free", [])
    mode = found[2] if len(found) == 5 and found[2].isdigit() and not set(found[2]) & set("89") else "660"
    return Disk(
        reachable=True,
        writable="writable" in words,
        owner=_known(whose, 0),
        group=_known(whose, 1),
        mode=int(mode, 8) & 0o7777,
        file_bytes=_number(found[3]) if len(found) == 5 else None,
        free=_number(free[0]) * _number(free[1]) if len(free) == 2 else None,
        aof=bool(aof),
        aof_bytes=sum(aof) * 1024,
        config=" ".join(words.get("config", [])),
    )


def _known(words: list[str], place: int) -> str:
    name = words[place] if len(words) > place else ""
    return "" if name == "UNKNOWN" else name


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
