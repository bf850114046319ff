"""Small files of a host, many in one round trip, each read once and with the least right that opens it."""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from backends.connection.base import Command, Connection, sh
from backends.errors import BecomeRefused, CommandFailed
from backends.mastodon.env_file import MAX_BYTES
from backends.untrusted import clean

TIMEOUT = 30.0
_ALL_BYTES = 24 * MAX_BYTES

_SCRIPT = r"""
mark=$1 limit=$2; shift 2
say() { printf '\n%s %s %s\n' "$mark" "$1" "$2"; }
for path do
  if [ -f "$path" ]; then
    about=$(stat -L -c '%a %s %u %g %Y %U/%G' -- "$path" 2>/dev/null) || about='0 0 0 0 0 /'
    size=${about#* }; size=${size%% *}
    if [ ! -r "$path" ]; then say unreadable "$about"
    elif [ "$size" -gt "$limit" ]; then say large "$about"
    else
      say read "$about"
      head -c "$limit" -- "$path" 2>/dev/null || say failed "$about"
    fi
  elif [ -e "$path" ]; then say special '0 0 0 0 0 /'
  else
    dir=$path state=absent
    while dir=${dir%/*}; [ -n "$dir" ]; do
      [ -d "$dir" ] || continue
      [ -x "$dir" ] || state=hidden
      break
    done
    say "$state" '0 0 0 0 0 /'
  fi
done
say end '0 0 0 0 0 /'
"""


class FileState(StrEnum):
    """How reading one file ended."""

    READ = "read"
    ABSENT = "absent"
    UNREADABLE = "unreadable"
    """It is there, its mode does not let us read."""
    HIDDEN = "hidden"
    """A directory above it does not let us look."""
    LARGE = "large"
    SPECIAL = "special"
    """A directory, a socket, a pipe: nothing that is read."""
    FAILED = "failed"
    """Reading broke off (a bad disk, a stale mount)."""

    @property
    def lacks_right(self) -> bool:
        """Whether another user may see more."""
        return self in {FileState.UNREADABLE, FileState.HIDDEN}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFile:
    """One file as it was when it was read; symbolic links are followed."""

    path: str
    state: FileState
    content: bytes = b""
    mode: int = 0
    bytes: int = 0
    uid: int = 0
    gid: int = 0
    owner: str = ""
    group: str = ""
    modified: int = 0
    """Seconds since 1970."""
    read_as: str | None = None
    """Who answered; None is the login user."""


@dataclass(frozen=True, slots=True)
class FilesRead:
    """What was read, by path, and why a further right was not granted (empty when it was not needed)."""

    files: dict[str, HostFile]
    refusal: str = ""


def read_files(connection: Connection, paths: Sequence[str], as_users: Sequence[str | None]) -> FilesRead:
    """Read files as the first user, and those that this user may not read as the next.

    Args:
        connection: the host.
        paths: absolute paths; others are left out.
        as_users: in the order to try; None is the login user.

    Raises:
        ConnectionFailed: the connection is gone.
        CommandFailed: the host's shell did not do what it was told.
    """
    wanted = [path for path in dict.fromkeys(paths) if path.startswith("/") and "\0" not in path]
    files: dict[str, HostFile] = {}
    refusal = ""
    for user in dict.fromkeys(None if user == connection.login_user else user for user in as_users):
        missing = [path for path in wanted if path not in files or files[path].state.lacks_right]
        if not missing:
            break
        try:
            found = _read(connection, missing, user)
        except BecomeRefused as error:
            refusal = refusal or error.sentence
            continue
        files.update(found)
    return FilesRead(files, refusal)


def _read(connection: Connection, paths: Sequence[str], user: str | None) -> dict[str, HostFile]:
    mark = f"mastovault-{secrets.token_hex(16)}"
    command = Command(sh(_SCRIPT, mark, str(MAX_BYTES), *paths), as_user=user, env={"LC_ALL": "C"})
    done = connection.run(command, timeout=TIMEOUT, limit=_ALL_BYTES)
    # What comes before the first mark is a login banner.
    _, *parts = done.stdout.split(b"\n" + mark.encode() + b" ")
    answers = [part.partition(b"\n") for part in parts]
    found: dict[str, HostFile] = {}
    for header, _, content in answers:
        state, _, about = header.decode("utf-8", "replace").partition(" ")
        if state == "end":
            if len(found) == len(paths):
                return found
            break
        if state == FileState.FAILED and found:
            path = list(found)[-1]
        elif len(found) < len(paths):
            path = paths[len(found)]
        else:
            break
        found[path] = _file(path, state, about, content, user)
    raise CommandFailed(
        f"the shell of {clean(connection.host, 100)} did not answer as expected while files were read"
        + (f": {clean(done.stderr, 300).strip()}" if done.stderr.strip() else ""),
        "Log in by hand and see whether `sh` works there and nothing else answers.",
        status=done.status,
    )


def _file(path: str, state: str, about: str, content: bytes, user: str | None) -> HostFile:
    # Names of a directory service may hold spaces, so they come last.
    *numbers, names = about.split(" ", 5)
    values = [int(part, 8 if index == 0 else 10) for index, part in enumerate(numbers) if _digits(part, index)]
    mode, size, uid, gid, modified = values if len(values) == 5 else (0, 0, 0, 0, 0)
    owner, _, group = names.partition("/")
    known = FileState(state) if state in set(FileState) else FileState.FAILED
    return HostFile(
        path=path,
        state=known,
        content=content if known is FileState.READ else b"",
        mode=mode & 0o7777,
        bytes=len(content) if known is FileState.READ else size,
        uid=uid,
        gid=gid,
        owner=_name(owner, uid),
        group=_name(group, gid),
        modified=modified,
        read_as=user,
    )


def _digits(part: str, index: int) -> bool:
    allowed = "01234567" if index == 0 else "0123456789"
    return 0 < len(part) < 20 and all(character in allowed for character in part)


def _name(name: str, number: int) -> str:
    return str(number) if name in {"", "UNKNOWN"} else clean(name, 100)


def reads_as(files: FilesRead, path: str, login_user: str, become: str) -> tuple[str, str]:
    """The sentence and the next step for a file that no user could read."""
    file = files.files[path]
    shown = clean(path, 300)
    if file.state is FileState.HIDDEN:
        what = f"{login_user} may not look into the directories above {shown}"
    else:
        what = f"{shown} cannot be read by {login_user} (mode {file.mode:04o}, owner {file.owner}:{file.group})"
    if files.refusal:
        what += f", and {files.refusal}"
    if become == "none":
        owner = file.owner or posixpath.basename(posixpath.dirname(path)) or "its owner"
        return what, f'Log in as {owner}, or set `become = "sudo"` for this host.'
    return what, "Allow it with sudo, or log in as the user that owns it."
