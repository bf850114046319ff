"""Placing what is staged into the live tree, and taking it back: one program on the host for all files.

A file that is missing gets its name by a hard link, at once and over nothing; one that differs is kept aside first.
What was placed stands in a list beside the staged files. The program is perl's where there is one, else the shell's.
"""

from __future__ import annotations

from collections import Counter
from importlib.resources import files

from backends.connection.base import Command, sh
from backends.errors import AssetFailed
from backends.restore.base import Work
from backends.restore.media_host import Place, amount, carry, failed
from backends.restore.media_stage import remove
from backends.untrusted import clean

_BEGIN = 'list=$5/$8; [ -e "$list" ] || exit 0; export LC_ALL=C; cd /; '
_PERL = _BEGIN + 'exec perl -e "$1" -- "$2" "$3" "$4" "$5" "$6" "$7" <"$list"'
_SHELL = _BEGIN + 'exec xargs -0 -r sh -c "$1" sh "$2" "$3" "$4" "$5" "$6" "$7" <"$list"'
# What is staged now is all that will be placed, so that an undo knows it. The time is kept as find says it.
_LIST = r"""cd -- "$1" || exit 9
umask 077; export LC_ALL=C
if [ ! -e list ]; then
  find tree -mindepth 1 ! -type d -printf '%s %T@ %P\0' >list.part && mv -f list.part list
fi
"""
_TIDY = r"""export LC_ALL=C
if [ -e "$1/dirs" ]; then
  sort -rzu -- "$1/dirs" | xargs -0 -r rmdir -- 2>/dev/null
  rm -f -- "$1/dirs"
fi
if [ -d "$2" ] && [ ! -h "$2" ]; then find "$2" -depth -type d -empty -delete; fi
"""


def place(work: Work, at: Place) -> None:
    """Move in what is staged, mend modes. What cannot be placed because something else is there is said."""
    status, said = carry(work.connection, work.job, Command(sh(_LIST, at.staging), as_user=at.as_user))
    if status:
        raise failed("listing what is staged", work.connection.host, at.beside, said, status)
    work.job.step("placing media", at.files or None, unit="files")
    counts = _move(work, at, "place", "list") + _move(work, at, "modes", "modes")
    work.job.log(
        f"placed {amount(counts['placed'])}, {counts['replaced']} of them in the place of others; "
        f"modes mended: {counts['modes']}"
    )
    if counts["clash"]:
        work.job.warn(f"{amount(counts['clash'])} left out: something else came to be in their place")


def unplace(work: Work, at: Place) -> None:
    """Take back what was placed and has not changed since; put back what was aside."""
    counts = _move(work, at, "unmodes", "modes") + _move(work, at, "unplace", "list")
    _tidy(work, at)
    work.job.log(f"taken back: {amount(counts['removed'])}, {counts['back']} older ones put back")
    _say_changed(work, at, counts["changed"])


def set_aside(work: Work, at: Place) -> None:
    """Move aside what the snapshot lacks."""
    work.job.step("moving others aside", unit="files")
    counts = _move(work, at, "aside", "extra")
    work.job.log(f"{amount(counts['aside'])} that the snapshot lacks moved to {clean(at.before, 200)}")


def put_back(work: Work, at: Place) -> None:
    """Put back what was moved aside."""
    counts = _move(work, at, "unaside", "extra")
    _tidy(work, at)
    work.job.log(f"put back: {amount(counts['back'])}")
    _say_changed(work, at, counts["changed"])


def forget(work: Work, at: Place) -> None:
    """Give up what is staged still and what was kept aside."""
    remove(work, at, at.staging)
    remove(work, at, at.before)


def _say_changed(work: Work, at: Place, count: int) -> None:
    if count:
        work.job.warn(f"{amount(count)} changed since and stay; what was there before is in {clean(at.before, 200)}")


def _move(work: Work, at: Place, verb: str, records: str) -> Counter[str]:
    """Let the program do one thing with each record of a list on the host; a list that is not there is empty."""
    script, name = (_PERL, "media_mover.pl") if at.perl else (_SHELL, "media_mover.sh")
    program = _program(name)
    argv = sh(script, program, verb, at.root, at.anchor, at.staging, at.before, at.owner, records)
    counts: Counter[str] = Counter()
    stopped: list[str] = []

    def line(said: str) -> None:
        word, _, rest = said.partition(" ")
        if word == "stop":
            stopped.append(rest)
        elif rest.isdigit():
            counts[word] += int(rest)
            if word == "done":
                work.job.advance(int(rest))

    status, said = carry(work.connection, work.job, Command(argv, as_user=at.as_user), line=line)
    if stopped or status:
        raise _stopped(work, at, stopped, said, status)
    return counts


def _stopped(work: Work, at: Place, stopped: list[str], said: str, status: int) -> AssetFailed:
    why = f"{stopped[0]}\n{said}" if said and "No space left" in said else stopped[0] if stopped else said
    return failed("placing media", work.connection.host, at.root, why, status)


def _tidy(work: Work, at: Place) -> None:
    """Remove directories that were made for what was placed, as far as they are empty."""
    carry(work.connection, work.job, Command(sh(_TIDY, at.staging, at.before), as_user=at.as_user))


def _program(name: str) -> str:
    """A program's text without its comments, as it goes over the line."""
    text = files("backends.restore").joinpath("programs", name).read_text()
    return "\n".join(line.strip() for line in text.splitlines() if not line.lstrip().startswith("#"))
