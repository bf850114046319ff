"""Staging: what is missing or differs goes, checked, into a directory on the file system of the media.

One tar stream over SSH into one `tar -x`. What an earlier try has staged is hashed on the host
and kept when it is good.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from backends.archive.file_index import IndexEntry
from backends.archive.packs import BLOCK, END
from backends.assets.media_listing import Listed
from backends.connection.base import Command, sh
from backends.errors import AssetFailed
from backends.model import Asset
from backends.restore.base import Work
from backends.restore.media_compare import Found, Tally, Verdict, compare
from backends.restore.media_host import Place, amount, carry, failed, list_tree, names, size_of
from backends.restore.media_source import Member, index, members, subtree_of
from backends.restore.media_tar import Owners, header, owners_of
from backends.restore.media_wanted import Records, Wanted
from backends.untrusted import clean

TAR = "tar --extract --file=- --same-permissions --numeric-owner"
_EXTRACT = f'cd -- "$1" || exit 9; umask 077; export LC_ALL=C; exec {TAR} "$2" --warning=no-timestamp'
_PREPARE = r"""umask 077
if [ -h "$1" ]; then echo 'not a directory: Permission denied' >&2; exit 5; fi
mkdir -p -- "$1/tree" && stat -f -c '%a %S %c %d' -- "$1"
"""
_STORE = 'umask 077; cat >"$1/$2.part" && mv -f -- "$1/$2.part" "$1/$2"'
_HASH = 'cd -- "$1" || exit 9; export LC_ALL=C; exec xargs -0 -r sha256sum -z --'
_SYNC = 'sync -f -- "$1" 2>/dev/null || sync'
_REMOVE = 'case "${1##*/}" in .mastovault-*) exec rm -rf -- "$1" ;; *) exit 5 ;; esac'
_ASK_AT_ONCE = 2000
_SECOND = 1_000_000_000
_SPARE = 20
"""A twentieth of what is free stays free: the database may be on the same disk."""


@dataclass(slots=True)
class Comparison:
    """What a comparison in earnest gave."""

    wanted: Wanted = field(default_factory=Wanted)
    modes: Records = field(default_factory=Records)
    extra: Records = field(default_factory=Records)
    tally: Tally = field(default_factory=Tally)
    left: Tally = field(default_factory=Tally)
    """Of what is yet to be staged."""


def stage(work: Work, place: Place) -> None:
    """Bring what is missing or differs beside the live tree; see the module."""
    _prepare(work, place)
    found = _compared(work, place)
    _require_room(work, place, found.left)
    for name, records in (("modes", found.modes), ("extra", found.extra)):
        status, said = carry(
            work.connection,
            work.job,
            Command(sh(_STORE, place.staging, name), as_user=place.as_user),
            records.chunks(),
        )
        if status:
            raise failed("staging media", work.connection.host, place.beside, said, status)
    if found.wanted.files:
        _send(work, place, found.wanted)
    carry(work.connection, work.job, Command(sh(_SYNC, place.staging), as_user=place.as_user))
    _report(work, place, found.tally)


def unstage(work: Work, place: Place) -> None:
    """Remove what was staged; an undo keeps it, for it holds what the restore had brought."""
    if work.way == "rollback":
        remove(work, place, place.staging)


def remove(work: Work, place: Place, directory: str) -> None:
    """Remove a directory of this restore, with all that is in it."""
    command = Command(sh(_REMOVE, directory), as_user=place.as_user)
    status, said = carry(work.connection, work.job, command)
    if status:
        raise failed(f"removing {clean(directory, 200)}", work.connection.host, place.beside, said, status)


def _prepare(work: Work, place: Place) -> None:
    command = Command(sh(_PREPARE, place.staging), as_user=place.as_user)
    done = work.connection.run(command)
    if done.status:
        said = done.stderr.decode("utf-8", "replace")
        raise failed("making a staging directory", work.connection.host, place.beside, said, done.status)


def _require_room(work: Work, place: Place, left: Tally) -> None:
    """Raise when what is yet to come does not fit."""
    done = work.connection.run(Command(sh(_PREPARE, place.staging), as_user=place.as_user))
    room = free_of(done.text)
    if room is None:
        return
    free, inodes = room
    where = clean(place.beside, 200)
    host = work.connection.host
    if not fits(left.room, free):
        raise AssetFailed(
            f"the media need {size_of(left.room)} at {where} on {host}, and {size_of(free)} are free",
            "Make room there, or restore a part with --path.",
        )
    if inodes is not None and left.inodes > inodes:
        raise AssetFailed(
            f"the media need {left.inodes} inodes at {where} on {host}, and {inodes} are free",
            "Remove files there (df -i shows it), or restore a part with --path.",
        )


def fits(need: int, free: int) -> bool:
    """Whether so many bytes may be used up."""
    return need <= free - free // _SPARE


def free_of(text: str) -> tuple[int, int | None] | None:
    """Free bytes and inodes from `stat -f -c '%a %S %c %d'`; inodes are None where there is no limit to them."""
    numbers = text.split()
    if len(numbers) != 4 or not all(number.isdigit() for number in numbers):
        return None
    free, block, total, inodes = map(int, numbers)
    return free * block, inodes if total else None


def _compared(work: Work, place: Place) -> Comparison:
    job = work.job
    job.step("comparing media", unit="files")
    live = list_tree(work.connection, place, job)
    if live.unreadable_count:
        shown = names(live.unreadable[:3], live.unreadable_count)
        raise AssetFailed(
            f"{amount(live.unreadable_count, 'directory')} of the media cannot be read: {shown}",
            "Connect as the user that owns the media, or set `become` for this host.",
        )
    staged = list_tree(work.connection, place, job, f"{place.staging}/tree").drain()
    result = Comparison()
    doubtful: list[IndexEntry] = []
    here = next(staged, None)
    entries = index(work.sources[Asset.MEDIA], subtree_of(place.subtree))
    for count, found in enumerate(compare(entries, live.drain()), 1):
        if count % 1000 == 0:
            job.check_cancelled()
        result.tally.count(found, place.since)
        _note(result, place, found)
        if found.entry is None or found.verdict not in {Verdict.MISSING, Verdict.DIFFERS}:
            continue
        while here is not None and here.path < found.entry.path:
            here = next(staged, None)
        if here is not None and _looks_whole(found.entry, here):
            doubtful.append(found.entry)
            if len(doubtful) >= _ASK_AT_ONCE:
                _settle(work, place, result, doubtful)
        else:
            _want(result, found.entry)
    _settle(work, place, result, doubtful)
    return result


def _note(result: Comparison, place: Place, found: Found) -> None:
    verdict, entry, listed = found
    if verdict is Verdict.EXTRA and listed is not None:
        if place.exact:
            result.extra.add(listed.path)
    elif entry is not None and listed is not None and _mode_is_mended(verdict, place):
        result.modes.add(b"%o %o %b" % (entry.mode, listed.mode, entry.path))


def _mode_is_mended(verdict: Verdict, place: Place) -> bool:
    # Without its database a snapshot must not open what was closed since: that is how Mastodon hides moderated media.
    return verdict is Verdict.MODE or (verdict is Verdict.PRIVATE and place.loosen)


def _looks_whole(entry: IndexEntry, staged: Listed) -> bool:
    """Whether a staged file may be good already."""
    # tar sets time and mode last; a file that is closed to others looks so from the start.
    return (
        entry.path == staged.path
        and entry.link is None
        and staged.kind == "f"
        and staged.size == entry.size
        and staged.mode == entry.mode
        and bool(entry.mode & 0o077)
        and staged.mtime // _SECOND == entry.mtime // _SECOND
    )


def _settle(work: Work, place: Place, result: Comparison, doubtful: list[IndexEntry]) -> None:
    """Hash what was staged before; what is not as it should be is staged again."""
    if not doubtful:
        return
    work.job.check_cancelled()
    told = b"".join(b"./%b\0" % entry.path for entry in doubtful)
    command = Command(sh(_HASH, f"{place.staging}/tree"), as_user=place.as_user)
    answer = work.connection.run(command, stdin=told, timeout=3600)
    good = _by_name(answer.stdout)
    for entry in doubtful:
        if good.get(entry.path) != entry.sha256:
            _want(result, entry)
    doubtful.clear()


def _by_name(said: bytes) -> dict[bytes, str]:
    records = (record.partition(b"  ") for record in said.split(b"\0"))
    return {name.removeprefix(b"./"): digest.decode("ascii", "replace") for digest, _, name in records if name}


def _want(result: Comparison, entry: IndexEntry) -> None:
    result.wanted.add(entry)
    result.left.count(Found(Verdict.MISSING, entry, None), 0)


def _send(work: Work, place: Place, wanted: Wanted) -> None:
    job = work.job
    job.step("staging media", wanted.bytes)
    job.log(f"sending {amount(wanted.files)}, {size_of(wanted.bytes)}: {TAR}")
    owners = owners_of(work, place)
    keep = "--same-owner" if place.keep_owners else "--no-same-owner"
    command = Command(sh(_EXTRACT, f"{place.staging}/tree", keep), as_user=place.as_user)
    found = members(work.sources[Asset.MEDIA], wanted)
    status, said = carry(work.connection, job, command, _tar(work, found, owners))
    if status:
        raise failed("staging media", work.connection.host, place.beside, said, status)


def _tar(work: Work, found: Generator[Member, None, None], owners: Owners) -> Iterator[bytes]:
    with closing(found):
        for member in found:
            work.job.check_cancelled()
            yield header(member.entry, *owners.numbers(member.owner))
            for piece in member.content:
                yield piece
                work.job.advance(len(piece))
            yield bytes(-member.entry.size % BLOCK)
        yield END


def _report(work: Work, place: Place, tally: Tally) -> None:
    job = work.job
    job.log(f"staged: {amount(tally.missing)} missing, {tally.differing} differing, {size_of(tally.size)}")
    if tally.barred:
        shown = names(tally.names[Verdict.BARRED], tally.barred)
        job.warn(f"{amount(tally.barred)} left out, a link or file is where a directory should be: {shown}")
    if tally.private and not place.loosen:
        job.log(f"{amount(tally.private)} closed to others on the target stay so")
