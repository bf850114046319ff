"""Files of a media snapshot: its index, and the content of chosen files out of the packs.

Whoever can write to a vault can write an index and a pack. So nothing of a pack but the owner's name is believed: path,
size, mode and time are the index's, the content is what its SHA-256 says, and an index in which a file lies below
another file or below a symbolic link is refused as a whole.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from backends.archive.file_index import IndexEntry, read_index, safe_path
from backends.archive.manifest import ObjectEntry
from backends.archive.packs import BLOCK
from backends.errors import AssetFailed, Damaged
from backends.restore.media_wanted import Wanted
from backends.restore.source import Source
from backends.untrusted import clean

INDEX = "files.ndjson"
_CHUNK = 256 * 1024
_NEXT = "Use another copy of it."


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a file belonged to, as its pack says; believed as far as a user of that name exists."""

    uid: int = -1
    gid: int = -1
    user: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One file or symbolic link of a snapshot. Read `content` to its end before asking for the next member.

    The last piece of `content` comes only after the whole has been compared with its SHA-256, so that what was written
    of a damaged file is always shorter than the file.
    """

    entry: IndexEntry
    owner: Owner
    content: Iterator[bytes]


class Lineage:
    """Tells of paths that come in sorted order which of the earlier ones they lie below.

    Earlier paths that the next one begins with are all that must be remembered: sorted, they come one after another.
    """

    def __init__(self) -> None:
        self._above: list[bytes] = []

    def ancestor(self, path: bytes) -> bytes | None:
        """The earlier path that is a directory above this one, if any."""
        while self._above and not path.startswith(self._above[-1]):
            self._above.pop()
        return next((each for each in reversed(self._above) if path[len(each) : len(each) + 1] == b"/"), None)

    def add(self, path: bytes) -> None:
        """Remember a path; call `ancestor` for it before."""
        self._above.append(path)


def subtree_of(text: str) -> bytes:
    """What the operator typed as a path below the media's root; empty is the whole tree.

    Raises:
        AssetFailed: it leads out of the tree.
    """
    path = text.strip().removeprefix("./").strip("/").encode("utf-8", "surrogateescape")
    if path and not safe_path(path):
        raise AssetFailed(
            f"{clean(text, 120)!r} is no path below the media directory",
            "Give one relative to it, for example accounts/avatars.",
        )
    return path


def index(source: Source, subtree: bytes = b"") -> Iterator[IndexEntry]:
    """Every file of a snapshot at or below a path, sorted. Close it when it is not read to its end.

    Raises:
        Damaged: the index cannot be read, or describes what no tree can be.
        KeyUnavailable, VaultError: as `Source.open`.
    """
    entry = source.entry(INDEX)
    if entry is None:
        raise Damaged(f"the manifest of {source.manifest.id} names no index", _NEXT)
    lineage = Lineage()
    with source.open(entry) as plain:
        for each in read_index(plain):
            above = lineage.ancestor(each.path)
            if above is not None:
                raise Damaged(f"the index of the media has a file below the file or link {clean(above, 120)}", _NEXT)
            lineage.add(each.path)
            if is_below(each.path, subtree):
                yield each


def is_below(path: bytes, subtree: bytes) -> bool:
    """Whether a path is a subtree's, or the subtree itself; everything is below the empty one."""
    return not subtree or path == subtree or path.startswith(subtree + b"/")


def members(source: Source, wanted: Iterable[IndexEntry]) -> Generator[Member, None, None]:
    """The content of chosen entries of the index, pack by pack, in bounded memory; each pack is read once.

    Args:
        source: the snapshot.
        wanted: entries of its index, in any order.

    Raises:
        Damaged: a pack does not hold what the index says; at the latest at the end of a member's content.
        KeyUnavailable, VaultError: as `Source.open`.
    """
    sorted_ = wanted if isinstance(wanted, Wanted) else Wanted(wanted)
    packs = {name: entry for entry in source.manifest.objects if (name := _pack_of(entry))}
    pack: _Pack | None = None
    try:
        for entry in sorted_:
            if pack is None or pack.id != entry.pack:
                if pack is not None:
                    pack.close()
                pack = _opened(source, packs, entry)
            yield pack.member(entry)
    finally:
        if pack is not None:
            pack.close()


def _pack_of(entry: ObjectEntry) -> str:
    name, dot, _ = entry.name.partition(".tar")
    return name if dot else ""


def _opened(source: Source, packs: dict[str, ObjectEntry], entry: IndexEntry) -> _Pack:
    found = packs.get(entry.pack)
    if found is None:
        raise Damaged(f"the manifest of {source.manifest.id} lacks a pack that its index names", _NEXT)
    return _Pack(entry.pack, source.open(found))


class _Pack:
    """One pack, read from its beginning towards its end."""

    def __init__(self, name: str, plain: BinaryIO) -> None:
        self.id = name
        self._plain = plain
        self._at = 0
        self._open: Iterator[bytes] = iter(())

    def close(self) -> None:
        """Give the stream up."""
        self._plain.close()

    def member(self, entry: IndexEntry) -> Member:
        """The entry's file. Raises `Damaged`."""
        for _ in self._open:  # what the consumer left
            pass
        begin = entry.offset - BLOCK
        if begin < self._at:
            raise Damaged("the index of the media names two files in the same place of a pack", _NEXT)
        self._skip(begin - self._at, entry)
        owner = _owner(self._exactly(BLOCK, entry), entry)
        self._open = self._content(entry)
        return Member(entry, owner, self._open)

    def _content(self, entry: IndexEntry) -> Iterator[bytes]:
        digest = hashlib.sha256()
        left, held = entry.size, b""
        while left:
            piece = self._exactly(min(left, _CHUNK), entry)
            digest.update(piece)
            left -= len(piece)
            if held:
                yield held
            held = piece
        if digest.hexdigest() != entry.sha256:
            raise Damaged(f"the content of {clean(entry.path, 120)} is not what was backed up", _NEXT)
        if held:
            yield held

    def _skip(self, count: int, entry: IndexEntry) -> None:
        while count:
            count -= len(self._exactly(min(count, _CHUNK), entry))

    def _exactly(self, size: int, entry: IndexEntry) -> bytes:
        data = self._plain.read(size)
        if len(data) != size:
            raise Damaged(f"a pack ends before {clean(entry.path, 120)}", _NEXT)
        self._at += size
        return data


def _owner(head: bytes, entry: IndexEntry) -> Owner:
    """Who owned it, from the header right before the content."""
    try:
        info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise Damaged(f"a pack has no header where {clean(entry.path, 120)} should be", _NEXT) from None
    if info.size != entry.size and entry.link is None:
        raise Damaged(f"a pack holds another file where {clean(entry.path, 120)} should be", _NEXT)
    return Owner(info.uid, info.gid, info.uname, info.gname)
