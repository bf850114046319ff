"""Members of a snapshot as members of a tar stream for the target, with the owners they have there."""

from __future__ import annotations

import tarfile

from backends.archive.file_index import IndexEntry
from backends.archive.packs import BLOCK
from backends.connection.base import Command, sh
from backends.restore.base import Work
from backends.restore.media_host import Place
from backends.restore.media_source import Owner

_SECOND = 1_000_000_000
_USERS = r"""getent passwd 2>/dev/null || cat /etc/passwd
echo --
getent group 2>/dev/null || cat /etc/group
"""


def header(entry: IndexEntry, uid: int, gid: int) -> bytes:
    """The tar header of an entry, with its time to the nanosecond as pax has it (POSIX.1-2001, "pax Header Block")."""
    info = tarfile.TarInfo(entry.path.decode("utf-8", "surrogateescape"))
    info.size, info.mtime, info.mode = entry.size, entry.mtime // _SECOND, entry.mode & 0o777
    info.uid, info.gid = uid, gid
    if entry.link is not None:
        info.type, info.linkname, info.size = tarfile.SYMTYPE, entry.link.decode("utf-8", "surrogateescape"), 0
    plain = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    if not entry.mtime % _SECOND:
        return plain
    sign = "-" if entry.mtime < 0 else ""
    whole, fraction = divmod(abs(entry.mtime), _SECOND)
    record = _pax(f"mtime={sign}{whole}.{fraction:09d}\n".encode())
    extended = tarfile.TarInfo("./PaxHeaders/mtime")
    extended.type, extended.size = tarfile.XHDTYPE, len(record)
    return extended.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % BLOCK) + plain


def _pax(pair: bytes) -> bytes:
    """A record with its own length before it."""
    length = len(pair) + 1
    while length != len(pair) + 1 + len(str(length)):
        length = len(pair) + 1 + len(str(length))
    return b"%d %b" % (length, pair)


class Owners:
    """Users and groups of the target, by name."""

    def __init__(self, uid: int, gid: int, users: dict[str, int], groups: dict[str, int]) -> None:
        self._own = uid, gid
        self._users, self._groups = users, groups

    def numbers(self, owner: Owner) -> tuple[int, int]:
        """Those of a file: the ones of its owner where such a user exists, else those of Mastodon's user."""
        uid = self._users.get(owner.user)
        if uid is None:
            return self._own
        return uid, self._groups.get(owner.group, self._own[1])


def owners_of(work: Work, place: Place) -> Owners:
    """Ask the target; where files cannot be given away, all are Mastodon's."""
    uid, _, gid = place.owner.partition(":")
    own = (int(uid), int(gid)) if uid.isdigit() and gid.isdigit() else (0, 0)
    if not place.keep_owners:
        return Owners(*own, {}, {})
    done = work.connection.run(Command(sh(_USERS), as_user=place.as_user))
    users, _, groups = done.text.partition("\n--\n")
    return Owners(*own, _numbers(users), _numbers(groups))


def _numbers(text: str) -> dict[str, int]:
    """The third field of each line by the first (passwd(5), group(5))."""
    fields = (line.split(":") for line in text.splitlines())
    return {each[0]: int(each[2]) for each in fields if len(each) > 2 and each[2].isdigit() and len(each[2]) < 11}
