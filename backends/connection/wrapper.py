"""The few lines of shell that every command begins with, and how their words are read.

The wrapper runs as the user that the command runs as, in the innermost shell, and ends by becoming the command:
1. it writes a random marker to stderr and to stdout, on stdout with its process id and process group. What comes
   before is noise of a login shell, sudo or su, and never part of a stream; the group is what `terminate` ends;
2. when asked to, it reads stdin up to a second random marker (a password that nobody wanted is dropped there) and
   then one line for each secret variable. POSIX `read` takes single bytes from a pipe, so the rest stays untouched;
3. it becomes the command, whose arguments it got as arguments: no value is ever part of a script.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

from backends.connection.base import Command

# Neither quotes, backslashes, line breaks nor exclamation marks: it passes through sh, bash, zsh, fish and csh alike.
# $1 marker, $2 stdin marker or empty, $3 user whose home is to be HOME or empty, $4 trailer or empty (checked.py),
# then names of secrets, then $1 again, then the command.
SCRIPT = (
    "__mvm=$1; __mvk=$2; __mvu=$3; __mve=$4; shift 4; "
    'if [ -n "$__mvu" ]; then cd /; eval "HOME=~$__mvu"; USER=$__mvu; LOGNAME=$__mvu; export HOME USER LOGNAME; fi; '
    "if read -r __mvs 2>/dev/null </proc/$$/stat; then "
    "__mvs=${__mvs##*) }; __mvs=${__mvs#* }; __mvs=${__mvs#* }; __mvs=${__mvs%% *}; "
    "else __mvs=$(ps -o pgid= -p $$ 2>/dev/null); fi; "
    'echo "$__mvm" >&2; echo "$__mvm" $$ $__mvs; '
    'if [ -n "$__mvk" ]; then while IFS= read -r __mvl; do if [ "$__mvl" = "$__mvk" ]; then break; fi; done; fi; '
    'until [ "$1" = "$__mvm" ]; do IFS= read -r __mvl || exit 125; export "$1=$__mvl"; shift; done; shift; '
    'if [ -z "$__mve" ]; then exec "$@"; fi; "$@"; __mvs=$?; printf %s "$__mve" 2>/dev/null; exit $__mvs'
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?")
_AWKWARD = {"'": "'\"'\"'", "\\": "'\"\\\\\"'"}
_PREAMBLE_LIMIT = 256 * 1024


def valid_user(name: str) -> bool:
    """Whether a text can be a user's name; others never reach a command line."""
    return _USER.fullmatch(name) is not None


def quote(text: str) -> str:
    """One word for a shell that is not known: sh, bash, zsh and fish (which unescapes in quotes) read it alike."""
    return "'" + "".join(_AWKWARD.get(character, character) for character in text) + "'"


def command_line(argv: tuple[str, ...]) -> str:
    """An argument list as one line for the host's login shell, which is replaced by it."""
    return "exec " + " ".join(quote(word) for word in argv)


# Says which process sudo, runuser or su becomes: what it starts may stay in that process's group.
_OUTER = 'echo "$1" $$; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A command with its wrapper, ready to be put behind sudo or su."""

    marker: str
    stdin_marker: str
    argv: tuple[str, ...]
    trailer: str
    """What stdout must end with, when somebody stands between; or empty."""
    stdin: bytes = field(repr=False)
    """What goes over stdin before the command's own input; holds the secrets."""

    def behind(self, prefix: tuple[str, ...]) -> tuple[str, ...]:
        """The whole argument list, behind the words that make another user of us."""
        return ("/bin/sh", "-c", _OUTER, "sh", outer_marker(self.marker), *prefix, *self.argv) if prefix else self.argv


def outer_marker(marker: str) -> str:
    """The marker of the process that sudo, runuser or su becomes."""
    return f"outer-of-{marker[3:]}"


def wrap(command: Command, *, home_of: str = "", drop_input: bool = False, checked: bool = False) -> Wrapped:
    """Put the wrapper around a command.

    Args:
        command: what to run; its `as_user` is not looked at here.
        home_of: the user whose home becomes HOME, when it runs as somebody else than the login user.
        drop_input: stdin may begin with a password that was not asked for.
        checked: let stdout end with a trailer (checked.py).

    Raises:
        ValueError: a name or a value cannot be handed over; the value is not in the message.
    """
    secret_env = dict(command.secret_env or {})
    for name, value in secret_env.items():
        if not _NAME.fullmatch(name) or any(bad in value.reveal() for bad in "\n\0"):
            raise ValueError(f"the secret variable {name!r} cannot be handed over in one line")
    if not command.argv or any("\0" in word for word in command.argv):
        raise ValueError("a command needs a program, and no argument may hold NUL")
    env = [f"{name}={value}" for name, value in (command.env or {}).items()]
    argv = ("env", *env, *command.argv) if env else command.argv
    marker = f"mv-{secrets.token_hex(16)}"
    stdin_marker = f"mv-{secrets.token_hex(16)}" if secret_env or drop_input else ""
    trailer = f"end-{secrets.token_hex(16)}" if checked else ""
    lines = [stdin_marker, *(value.reveal() for value in secret_env.values())] if stdin_marker else []
    return Wrapped(
        marker=marker,
        stdin_marker=stdin_marker,
        trailer=trailer,
        argv=("/bin/sh", "-c", SCRIPT, "sh", marker, stdin_marker, home_of, trailer, *secret_env, marker, *argv),
        stdin=b"".join(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines),
    )


@dataclass(slots=True)
class Preamble:
    """Reads stdout up to the marker's line."""

    marker: bytes
    noise: bytes = b""
    pid: int | None = None
    outer_pid: int | None = None
    """The process that sudo, runuser or su became, when there is one."""
    group: int | None = None
    """The process group; None when the host did not say one that can be ours."""
    _seen: bytes = field(default=b"", repr=False)

    def feed(self, data: bytes) -> bytes | None:
        """Take a piece of stdout; once the marker's line is complete, return what came after it.

        Raises:
            OverflowError: the noise has no end.
        """
        self._seen += data
        begin = self._seen.find(self.marker)
        end = self._seen.find(b"\n", begin) if begin >= 0 else -1
        if end < 0:
            if len(self._seen) > _PREAMBLE_LIMIT:
                raise OverflowError
            return None
        self.noise = self._seen[:begin]
        numbers = self._seen[begin + len(self.marker) : end].split()
        rest, self._seen = self._seen[end + 1 :], b""
        self._take_outer()
        if numbers and all(number.isdigit() and len(number) < 12 for number in numbers):
            self.pid = int(numbers[0])
            # A group is ours when it was made for our own process; any other may be the server's.
            if len(numbers) > 1 and int(numbers[1]) > 1 and int(numbers[1]) in (self.pid, self.outer_pid):
                self.group = int(numbers[1])
        return rest

    def _take_outer(self) -> None:
        word = outer_marker(self.marker.decode()).encode()
        begin = self.noise.find(word)
        if begin >= 0:
            line, _, after = self.noise[begin + len(word) :].partition(b"\n")
            self.noise = self.noise[:begin] + after
            if line.strip().isdigit():
                self.outer_pid = int(line)

    @property
    def pending(self) -> bytes:
        """What came so far without a marker in it."""
        self.noise = self._seen
        self._take_outer()
        return self.noise
