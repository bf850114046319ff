"""The files of one Redis server on its host, moved by renaming only; every script may be cut off and run again.

The invariants that the steps rely on:
- the staged snapshot is there exactly as long as it was not put in place;
- the data file is never missing between the two: the old one gets a second name before the new one replaces it;
- while an append-only file is on, the configuration says `appendonly no` whenever that file and the snapshot disagree,
  so that a server that is started by anybody loads the snapshot and never begins empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.connection.base import Command, Completed, Connection, sh
from backends.errors import AssetFailed
from backends.restore.base import Target
from backends.restore.redis_place import Server
from backends.untrusted import clean

EMPTY_RDB = b"REDIS0006\xff" + bytes(8)
"""A snapshot without keys that every Redis since 2.6 and every Valkey loads; zeros mean: without a checksum."""
_PRINT_EMPTY = r"printf 'REDIS0006\377\000\000\000\000\000\000\000\000'"
# A second name where the file system has such; moved into place so that it is there whole or not at all.
_TWIN = (
    'twin() { rm -f -- "$2.new"; ln -- "$1" "$2.new" 2>/dev/null || cp -a -- "$1" "$2.new"; mv -fT -- "$2.new" "$2"; }'
)
_SYNC = 'sync -- "$@" 2>/dev/null || sync'

_STATE = r"""
cd -- "$1" || exit 9; file=$2 staged=$3 mark=$4 conf=$5; shift 5
say() { if [ -e "$2" ] || [ -L "$2" ]; then echo "$1 1"; else echo "$1 0"; fi; }
say staged "$staged"; say before "$file.before-$mark"; say file "$file"
if [ -n "$conf" ]; then say kept "$conf.before-$mark"; else echo "kept 0"; fi
aof=0 moved=0
for name do
  [ -e "$name" ] && aof=1
  { [ -e "$name.before-$mark" ] || [ -e "$name.none-$mark" ]; } && moved=1
done
echo "aof $aof"; echo "moved $moved"; echo "end 1"
"""

_PLACE = (
    _TWIN
    + r"""
set -eu
cd -- "$1"; file=$2 staged=$3 mark=$4; shift 4
before=$file.before-$mark
if [ ! -e "$staged" ]; then [ -e "$before" ]; exit; fi
if [ ! -e "$file" ]; then
  """
    + _PRINT_EMPTY
    + r""" >"$file.new-$mark"
  chown --reference="$staged" -- "$file.new-$mark"; chmod --reference="$staged" -- "$file.new-$mark"
  mv -fT -- "$file.new-$mark" "$file"
fi
[ "$file" -ef "$before" ] || twin "$file" "$before"
for name do
  if [ -e "$name" ]; then
    if [ -e "$name.before-$mark" ]; then echo "both $name and $name.before-$mark are there" >&2; exit 7; fi
    mv -T -- "$name" "$name.before-$mark"
  elif [ ! -e "$name.before-$mark" ]; then : >"$name.none-$mark"
  fi
done
mv -fT -- "$staged" "$file"
set -- "$file" .; """
    + _SYNC
)

_BACK = (
    _TWIN
    + r"""
set -eu
cd -- "$1"; file=$2 staged=$3 mark=$4; shift 4
before=$file.before-$mark undone=$file.undone-$mark
if [ -e "$before" ]; then
  if [ "$before" -ef "$file" ] || [ -e "$staged" ]; then rm -f -- "$before"
  else
    if [ -e "$file" ] && ! [ "$file" -ef "$undone" ]; then twin "$file" "$undone"; fi
    mv -fT -- "$before" "$file"
  fi
fi
rm -f -- "$before.new" "$undone.new" "$file.new-$mark"
for name do
  if [ -e "$name.before-$mark" ] || [ -e "$name.none-$mark" ]; then
    if [ -e "$name" ]; then
      if [ -e "$name.undone-$mark" ]; then echo "both $name and $name.undone-$mark are there" >&2; exit 7; fi
      mv -T -- "$name" "$name.undone-$mark"
    fi
    if [ -e "$name.before-$mark" ]; then mv -T -- "$name.before-$mark" "$name"; fi
    rm -f -- "$name.none-$mark"
  fi
done
if [ -e "$file" ]; then set -- "$file" .; else set -- .; fi
"""
    + _SYNC
)

_REMOVE = r"""
set -eu
cd -- "$1"; file=$2 mark=$3 kinds=$4; shift 4
for kind in $kinds; do
  for name in "$file" "$@"; do rm -rf -- "$name.$kind-$mark"; done
done
"""

_DROP_AOF = r"""
set -eu
cd -- "$1"; mark=$2; shift 2
for name do
  if [ -e "$name" ]; then rm -rf -- "$name.undone-$mark"; mv -T -- "$name" "$name.undone-$mark"; fi
done
"""

_CONFIG_OFF = (
    _TWIN
    + r"""
set -eu
conf=$1 mark=$2; kept=$conf.before-$mark new=$conf.mastovault-$mark
[ -e "$kept" ] || twin "$conf" "$kept"
cp -a -- "$kept" "$new"
printf '\n# Mastovault: only while Redis is restored; the original is %s\nappendonly no\n' "$kept" >>"$new"
set -- "$new"; """
    + _SYNC
    + r"""
mv -fT -- "$new" "$conf"
"""
)

_CONFIG_BACK = (
    _TWIN
    + r"""
set -eu
conf=$1 mark=$2; kept=$conf.before-$mark
rm -f -- "$conf.mastovault-$mark"
if [ -e "$kept" ]; then
  if [ "$kept" -ef "$conf" ]; then rm -f -- "$kept"; else mv -fT -- "$kept" "$conf"; fi
fi
set -- "$conf" "${conf%/*}"; """
    + _SYNC
)

RECEIVE = r"""
set -eu
path=$1 owner=$2 mode=$3; umask 077
rm -f -- "$path.part"
cat >"$path.part"
[ "$(stat -c %U:%G -- "$path.part")" = "$owner" ] || chown -- "$owner" "$path.part"
chmod -- "$mode" "$path.part"
set -- "$path.part" "$path"; sync -- "$1" 2>/dev/null || sync
mv -fT -- "$1" "$2"
sha256sum -- "$2"
"""
_MTIME = 'date +%s; stat -L -c %Y -- "$1" 2>/dev/null || echo 0'


@dataclass(frozen=True, slots=True)
class State:
    """What is there of one server's restore."""

    staged: bool
    before: bool
    file: bool
    kept: bool
    """The configuration file is the changed one; the original waits beside it."""
    aof: bool
    moved: bool
    """An append-only file was moved aside, or none was there to be moved."""

    @property
    def touched(self) -> bool:
        """Whether a swap began to change what is there."""
        return self.before or self.kept or self.moved


class Files:
    """The scripts for one server of a target; each raises `AssetFailed` with what the host said."""

    def __init__(self, target: Target, server: Server, mark: str) -> None:
        self._connection: Connection = target.connection
        self._root = target.root
        self._server, self._mark = server, mark
        self.staged_path = server.path(server.staged(mark))

    def state(self) -> State:
        """Look at what is there."""
        server = self._server
        done = self._run(
            "looking into its directory",
            *sh(
                _STATE, server.directory, server.file, server.staged(self._mark), self._mark, server.config,
                *server.aof_names,
            ),
        )  # fmt: skip
        words = dict(line.split() for line in done.text.splitlines() if len(line.split()) == 2)
        if words.get("end") != "1":
            raise AssetFailed(f"{server.name}: its directory could not be looked into.", "Try again.")
        return State(**{name: words.get(name) == "1" for name in State.__slots__})

    def place(self) -> None:
        """Put the staged snapshot in place and what was there aside. Redis must be stopped."""
        self._move(_PLACE, "putting the snapshot in place")

    def back(self) -> None:
        """Bring back what was set aside, and set aside what was in its place. Redis must be stopped."""
        self._move(_BACK, "bringing the old data back")

    def drop_aof(self) -> None:
        """Set an append-only file aside that does not hold the data. Redis must be stopped."""
        self._run(
            "setting the append-only file aside",
            *sh(_DROP_AOF, self._server.directory, self._mark, *self._server.aof_names),
        )

    def remove(self, *kinds: str) -> None:
        """Remove what was set aside: `before`, `undone`, `none`."""
        server = self._server
        script = sh(_REMOVE, server.directory, server.file, self._mark, " ".join(kinds), *server.aof_names)
        self._run("removing what was kept", *script, timeout=600)

    def remove_staged(self) -> None:
        """Remove the staged snapshot, whole or in part."""
        self._run("removing the staged snapshot", "rm", "-f", "--", self.staged_path, f"{self.staged_path}.part")

    def config_off(self) -> None:
        """Let the configuration say `appendonly no` until `config_back`."""
        if self._server.config:
            self._run("changing its configuration", *sh(_CONFIG_OFF, self._server.config, self._mark))

    def config_back(self) -> None:
        """Bring the original configuration file back, if it is away."""
        if self._server.config:
            self._run("bringing its configuration back", *sh(_CONFIG_BACK, self._server.config, self._mark))

    def times(self) -> tuple[int, int]:
        """The host's clock, and when the data file was written (0: there is none); seconds since 1970."""
        done = self._run("looking at its file", *sh(_MTIME, self._server.path(self._server.file)))
        words = done.text.split()
        now, changed = ((*words, "", "")[:2]) if words else ("", "")
        return (int(now), int(changed)) if now.isdigit() and changed.isdigit() else (0, 0)

    def digest(self) -> str:
        """The SHA-256 of the staged snapshot; empty when there is none."""
        done = self._connection.run(Command(("sha256sum", "--", self.staged_path), as_user=self._root), timeout=3600)
        return digest_in(done)

    def run(self, what: str, *argv: str, timeout: float = 120.0) -> Completed:
        """Run another command as whoever may; see the class."""
        return self._run(what, *argv, timeout=timeout)

    def _move(self, script: str, what: str) -> None:
        server = self._server
        self._run(
            what,
            *sh(script, server.directory, server.file, server.staged(self._mark), self._mark, *server.aof_names),
        )

    def _run(self, what: str, *argv: str, timeout: float = 120.0) -> Completed:
        done = self._connection.run(Command(argv, as_user=self._root, env={"LC_ALL": "C"}), timeout=timeout)
        if done.status != 0:
            raise failed(self._server, what, done)
        return done


def digest_in(done: Completed) -> str:
    """The digest that sha256sum wrote last; empty when there is none."""
    words = done.text.split()
    found = [word.lstrip("\\") for word in words if len(word.lstrip("\\")) == 64]
    return found[-1] if done.status == 0 and found else ""


def failed(server: Server, what: str, done: Completed) -> AssetFailed:
    """The error for a command that ended with a status that means failure."""
    said = clean(done.stderr, 400, lines=True).strip().splitlines()
    why = said[-1] if said else f"status {done.status}"
    room = "no space" in why.lower()
    return AssetFailed(
        f"{server.name}: {what} failed: {why}",
        f"Make room in {clean(server.directory, 200)} and start again." if room else "Look at its directory by hand.",
    )
