"""Mastodon's own programs (`bin/rails`, `bin/tootctl`) on the target: as its user, with its Ruby, cancellable."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.connection.base import Command, sh
from backends.errors import AssetFailed, MastovaultError
from backends.restore.base import Target, Work
from backends.untrusted import clean

_RUN = r'cd -- "$1" || exit 97; PATH=$2${PATH:+:$PATH}; export PATH; shift 2; exec "$@" 2>&1'
_PIECE = 16 * 1024
_LINE = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where Mastodon's programs are and as whom they run. Goes through JSON."""

    root: str
    user: str
    """Empty for the login user."""
    path: str
    """Directories of its Ruby, before those of the PATH."""

    def shown(self, *words: str) -> str:
        """A command as it can be typed."""
        line = f"cd {shlex.quote(self.root)} && RAILS_ENV=production PATH={shlex.quote(self.path)}:$PATH"
        line = f"{line} {shlex.join(words)}"
        return clean(f"sudo -u {shlex.quote(self.user)} sh -c {shlex.quote(line)}" if self.user else line)

    def to_json(self) -> dict[str, str]:
        """For the facts."""
        return {"root": self.root, "user": self.user, "path": self.path}


def place_of(target: Target, programs: list[str]) -> Place:
    """From where the units start their programs, and where rbenv is by Mastodon's guide."""
    home = posixpath.dirname(target.installation.root)
    own = [posixpath.dirname(program) for program in programs if program.startswith("/home/") or "rbenv" in program]
    paths = dict.fromkeys((*own, f"{home}/.rbenv/shims", f"{home}/.rbenv/bin"))
    user = target.installation.user
    other = "" if user == target.connection.login_user else user
    return Place(root=target.installation.root, user=other, path=":".join(paths))


def place_from(facts: Mapping[str, Any]) -> Place:
    """From the facts."""
    return Place(root=str(facts["root"]), user=str(facts["user"]), path=str(facts["path"]))


def run(
    work: Work,
    place: Place,
    *words: str,
    env: Mapping[str, str] | None = None,
    on_text: Callable[[str], None] = lambda _text: None,
) -> str:
    """Run one program to its end and return the last lines of what it wrote.

    Args:
        work: whose connection and job; a cancel ends the program.
        place: where.
        words: the program, relative to the code's directory, and its arguments.
        env: further variables; nothing secret.
        on_text: told of everything it writes, raw, as it comes; progress bars too.

    Raises:
        AssetFailed: it failed.
        Cancelled: the operator asked to stop.
        ConnectionFailed: the connection is gone.
    """
    work.job.log(f"$ {place.shown(*words)}")
    command = Command(
        sh(_RUN, place.root, place.path, *words),
        as_user=place.user or None,
        env={"RAILS_ENV": "production", **(env or {})},
    )
    tail = ""
    with work.connection.start(command) as process:
        forget = work.job.on_cancel(process.terminate)
        try:
            work.job.check_cancelled()
            process.close_stdin()
            while data := process.read(_PIECE):
                text = data.decode("utf-8", "replace")
                on_text(text)
                tail = (tail + text)[-8 * _LINE :]
            status = process.wait(timeout=60)
        except TimeoutError:
            status = -1
        except MastovaultError:
            work.job.check_cancelled()
            raise
        finally:
            forget()
    work.job.check_cancelled()
    lines = [clean(line, _LINE).strip() for line in re.split(r"[\r\n]+", tail)]
    lines = [line for line in lines if line]
    for line in lines[-8:]:
        work.job.log(line)
    if status != 0:
        name = posixpath.basename(words[0])
        what = f"{name} {words[1]}" if len(words) > 1 else name
        raise AssetFailed(
            f"{what} failed on {work.connection.host}: {_telling(lines) or f'status {status}'}",
            f"Run it there by hand and look at what it says: {place.shown(*words)}",
        )
    return "\n".join(lines[-8:])


def _telling(lines: list[str]) -> str:
    """The line that says why."""
    return next(
        (line for line in lines if re.search(r"(?i)\b\w*(?:error|aborted)\b", line)), lines[-1] if lines else ""
    )
