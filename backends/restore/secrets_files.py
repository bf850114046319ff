"""The settings files on the target: looked at, staged beside, moved by renaming. Every script may be cut and run again.

Between staging and swap `<path>.restore-<id>` is there; nothing is staged again once the swap has begun. The swap gives
the old file a second name first, so that there is a settings file at any moment; the way back moves each file on its
own, while the services are stopped.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.connection.base import Command, Connection, sh
from backends.errors import AssetFailed, CommandFailed
from backends.restore.base import Target
from backends.untrusted import clean

_SYNC = 'sync -- "$@" 2>/dev/null || sync'
_SECONDS = 60.0

_PROBE = r"""
mark=$1; shift
say() { printf '\n%s %s\n' "$mark" "$1"; }
while [ "$1" != -- ]; do
  if id -u -- "$1" >/dev/null 2>&1; then say "user $1"; fi
  if getent group -- "$1" >/dev/null 2>&1 || grep -q -- "^$1:" /etc/group; then say "group $1"; fi
  shift
done
shift
for path do
  real=$(readlink -f -- "$path" 2>/dev/null) || real=
  [ -n "$real" ] || real=$path
  there=${real%/*} missing=0
  while [ -n "$there" ] && ! [ -d "$there" ]; do there=${there%/*} missing=$((missing + 1)); done
  if [ -f "$real" ]; then kind=file; elif [ -e "$real" ]; then kind=other; else kind=absent; fi
  if [ -w "${there:-/}" ] && [ -x "${there:-/}" ]; then write=1; else write=0; fi
  about=$(stat -c '%a %U %G' -- "$real" 2>/dev/null) || about='0 - -'
  free=$(stat -f -c '%a %S' -- "${there:-/}" 2>/dev/null) || free='- -'
  say "spot $kind $write $missing $free $about"
  printf '%s' "$real"
done
say end
"""

_STAGE = (
    r"""
set -eu
path=$1 staged=$2 before=$3 mode=$4 owner=$5 group=$6 size=$7
umask 077
[ ! -e "$before" ] || exit 0
own() { [ "$(stat -c %U:%G -- "$1")" = "$owner:$group" ] || chown -h -- "$owner:$group" "$1"; }
make() {
  if [ -z "$1" ] || [ -d "$1" ]; then return; fi
  make "${1%/*}"; mkdir -m 755 -- "$1"; own "$1"
}
make "${path%/*}"
rm -f -- "$staged"
trap 'rm -f -- "$staged"' EXIT
set -C; cat >"$staged"; set +C
[ "$(wc -c <"$staged")" -eq "$size" ] || { echo "not all of it arrived" >&2; exit 9; }
own "$staged"
chmod -- "$mode" "$staged"
set -- "$staged"; """
    + _SYNC
    + r"""
trap - EXIT
"""
)

_SWAP = r"""
set -eu
while [ $# -ge 4 ]; do
  path=$1 staged=$2 before=$3 existed=$4; shift 4
  if [ -e "$staged" ]; then
    if [ -e "$path" ] && ! [ "$path" -ef "$before" ]; then
      rm -f -- "$before.new"
      ln -- "$path" "$before.new" 2>/dev/null || cp -a -- "$path" "$before.new"
      mv -fT -- "$before.new" "$before"
    fi
    mv -fT -- "$staged" "$path"
  elif ! [ -e "$path" ] || { [ "$existed" = 1 ] && ! [ -e "$before" ]; }; then
    echo "$staged is not there any more" >&2; exit 3
  fi
  sync -- "$path" "${path%/*}" 2>/dev/null || sync
done
"""

_BACK = r"""
set -eu
while [ $# -ge 4 ]; do
  path=$1 staged=$2 before=$3 existed=$4; shift 4
  rm -f -- "$before.new"
  if [ -e "$before" ]; then
    if [ -e "$staged" ] && [ -e "$path" ]; then rm -f -- "$before"
    else
      [ ! -e "$path" ] || mv -fT -- "$path" "$staged"
      mv -fT -- "$before" "$path"
    fi
  elif [ "$existed" = 0 ] && [ -e "$path" ] && ! [ -e "$staged" ]; then mv -fT -- "$path" "$staged"
  fi
  sync -- "${path%/*}" 2>/dev/null || sync
done
"""

_REMOVE = r"""
set -eu
while [ "$1" != -- ]; do rm -f -- "$1" "$1.new"; shift; done
shift
for dir do rmdir -- "$dir" 2>/dev/null || :; done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a file will be: its real path (behind symbolic links) and what is there now."""

    path: str
    kind: str
    """`file`, `absent`, or `other` for something that is no file."""
    writable: bool
    """Whether whoever looked may write into the directory, or make it."""
    missing: int
    """How many directories must be made."""
    free: int | None
    mode: int
    owner: str
    group: str


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found on the target."""

    spots: dict[str, Spot]
    users: frozenset[str]
    groups: frozenset[str]


def probe(connection: Connection, paths: Sequence[str], names: Sequence[str], as_user: str | None) -> Probed:
    """Look at where files will be, and which users and groups there are.

    Raises:
        BecomeRefused, ConnectionFailed: as `Connection.run`.
        CommandFailed: the shell did not answer as expected.
    """
    mark = f"mastovault-{secrets.token_hex(8)}"
    known = [name for name in dict.fromkeys(names) if re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.$-]{0,99}", name)]
    command = Command(sh(_PROBE, mark, *known, "--", *paths), as_user=as_user, env={"LC_ALL": "C"})
    done = connection.run(command, timeout=_SECONDS)
    found = parse_probe(done.stdout, mark, paths)
    if found is None:
        raise CommandFailed(
            f"the shell of {clean(connection.host, 100)} did not answer as expected"
            + (f": {clean(done.stderr, 300).strip()}" if done.stderr.strip() else ""),
            "Log in by hand and see whether `sh` works there and nothing else answers.",
            status=done.status,
        )
    return found


def parse_probe(output: bytes, mark: str, paths: Sequence[str]) -> Probed | None:
    """Read what the script printed; None for anything else. Never raises."""
    _, *parts = output.split(b"\n" + mark.encode() + b" ")
    spots: list[Spot] = []
    users: set[str] = set()
    groups: set[str] = set()
    for part in parts:
        header, _, rest = part.partition(b"\n")
        match header.decode("utf-8", "replace").split(" "):
            case ["user", name]:
                users.add(name)
            case ["group", name]:
                groups.add(name)
            case ["spot", kind, write, missing, blocks, size, mode, owner, group]:
                real = rest.decode("utf-8", "replace")
                free = int(blocks) * int(size) if _number(blocks) and _number(size) else None
                spots.append(
                    Spot(
                        path=real,
                        kind=kind,
                        writable=write == "1",
                        missing=int(missing) if _number(missing) else 0,
                        free=free,
                        mode=int(mode, 8) & 0o7777 if re.fullmatch(r"[0-7]{1,6}", mode) else 0,
                        owner=clean(owner, 100),
                        group=clean(group, 100),
                    )
                )
            case ["end"]:
                if len(spots) == len(paths) and all(spot.path.startswith("/") for spot in spots):
                    return Probed(dict(zip(paths, spots, strict=True)), frozenset(users), frozenset(groups))
    return None


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


class Files:
    """The files of one restore, from the facts of its look."""

    def __init__(self, target: Target, facts: Mapping[str, Any], mark: str) -> None:
        self._connection, self._as_user = target.connection, target.root
        self._files: list[dict[str, Any]] = list(facts["files"])
        self._dirs = [str(each) for each in facts.get("dirs", ())]
        self._mark = mark

    def stage(self, file: Mapping[str, Any], content: bytes) -> None:
        """Write one file beside its place. Raises `AssetFailed`; nothing half-written is left then."""
        path = str(file["path"])
        beside = (staged_path(path, self._mark), before_path(path, self._mark))
        how = (str(file[name]) for name in ("mode", "owner", "group"))
        what = f"writing {clean(path, 300)} beside"
        self._run(_STAGE, path, *beside, *how, str(len(content)), stdin=content, what=what)

    def swap(self) -> None:
        """Let the staged files take their places. Raises `AssetFailed`."""
        self._run(_SWAP, *self._quads(), what="putting the settings in place")

    def back(self) -> None:
        """Let the old files be in place again; the restored ones get their staged names back. Raises `AssetFailed`."""
        self._run(_BACK, *self._quads(), what="putting the old settings back")

    def remove_staged(self, *, dirs: bool) -> None:
        """Remove the staged files, and the directories that were made for them when they are empty."""
        staged = [staged_path(str(file["path"]), self._mark) for file in self._files]
        made = reversed(self._dirs) if dirs else ()
        self._run(_REMOVE, *staged, "--", *made, what="removing the staged settings")

    def remove_before(self) -> None:
        """Give up the old files."""
        kept = [before_path(str(file["path"]), self._mark) for file in self._files]
        self._run(_REMOVE, *kept, "--", what="removing the old settings")

    def _quads(self) -> list[str]:
        quads: list[str] = []
        for file in self._files:
            path = str(file["path"])
            quads += [path, staged_path(path, self._mark), before_path(path, self._mark), str(int(file["exists"]))]
        return quads

    def _run(self, script: str, *arguments: str, what: str, stdin: bytes = b"") -> None:
        command = Command(sh(script, *arguments), as_user=self._as_user, env={"LC_ALL": "C"})
        done = self._connection.run(command, stdin=stdin, timeout=_SECONDS)
        if done.status == 0:
            return
        said = clean(done.stderr, 2000, lines=True).strip().splitlines()
        host = self._connection.host
        if any("No space left" in line or "quota exceeded" in line.lower() for line in said):
            raise AssetFailed(f"{what} failed: there is no room left on {host}.", "Free some space there.")
        last = said[-1] if said else f"status {done.status}"
        raise AssetFailed(f"{what} failed on {host}: {last}", "Look at the rights and the room of that directory.")


def staged_path(path: str, mark: str) -> str:
    """Where a file waits for the swap, and is again after an undo."""
    return f"{path}.restore-{mark}"


def before_path(path: str, mark: str) -> str:
    """Where the old file is kept."""
    return f"{path}.before-{mark}"
