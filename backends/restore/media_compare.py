"""What of a media snapshot is missing on a target, and what differs: two sorted lists, merged.

Names are write-once (facts: Mastodon's obfuscate_file_name), so a file of the same name and size is the same file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from backends.archive.file_index import IndexEntry
from backends.assets.media_listing import Listed
from backends.restore.media_source import Lineage

_SHOWN = 3
BLOCK = 4096
"""What a file or a directory takes at least on most file systems."""


class Verdict(StrEnum):
    """What becomes of one path."""

    SAME = "same"
    MISSING = "missing"
    DIFFERS = "differs"
    MODE = "mode"
    """The file is there, with another mode."""
    PRIVATE = "private"
    """The file is there and closed to others, while the snapshot has it open: it may have been moderated since."""
    EXTRA = "extra"
    """Only the target has it."""
    BARRED = "barred"
    """A file or a link is on the target where one of its directories should be."""


class Found(NamedTuple):
    """One path and what was found out about it."""

    verdict: Verdict
    entry: IndexEntry | None
    listed: Listed | None


def compare(index: Iterable[IndexEntry], live: Iterable[Listed]) -> Iterator[Found]:
    """Merge a snapshot's index with a listing; both sorted by path."""
    above = Lineage()
    entries, listing = iter(index), iter(live)
    entry, listed = next(entries, None), next(listing, None)
    while entry is not None or listed is not None:
        if listed is not None and (entry is None or listed.path <= entry.path):
            above.ancestor(listed.path)
            above.add(listed.path)
            if entry is not None and entry.path == listed.path:
                yield Found(_verdict(entry, listed), entry, listed)
                entry = next(entries, None)
            else:
                yield Found(Verdict.EXTRA, None, listed)
            listed = next(listing, None)
        elif entry is not None:
            barred = above.ancestor(entry.path) is not None
            yield Found(Verdict.BARRED if barred else Verdict.MISSING, entry, None)
            entry = next(entries, None)


def _verdict(entry: IndexEntry, listed: Listed) -> Verdict:
    is_link = listed.kind != "f"
    if is_link != (entry.link is not None) or (not is_link and listed.size != entry.size):
        return Verdict.DIFFERS
    if is_link or listed.mode == entry.mode:
        return Verdict.SAME
    return Verdict.PRIVATE if not listed.mode & 0o077 and entry.mode & 0o077 else Verdict.MODE


@dataclass(slots=True)
class Tally:
    """A comparison in numbers."""

    files: int = 0
    """In the snapshot, links too."""
    same: int = 0
    missing: int = 0
    differing: int = 0
    size: int = 0
    """Bytes of what is missing or differs."""
    modes: int = 0
    private: int = 0
    extra: int = 0
    extra_bytes: int = 0
    newer: int = 0
    """Those of the extra ones that changed after the snapshot began."""
    barred: int = 0
    directories: int = 0
    """That what is missing or differs lies in."""
    room: int = 0
    """Bytes that what is missing or differs takes on a disk."""
    outside: int = 0
    """Symbolic links to be placed that lead out of the tree."""
    names: dict[str, list[bytes]] = field(default_factory=dict)
    """A few names for each verdict, and for `outside`."""
    _last: bytes = b""

    @property
    def inodes(self) -> int:
        """What what is missing or differs takes: directories are needed twice, beside and in place."""
        return self.missing + self.differing + 2 * self.directories

    def count(self, found: Found, since: int) -> None:
        """Count one; `since` is when the snapshot began, in nanoseconds since 1970."""
        verdict, entry, listed = found
        self.files += entry is not None
        if verdict is Verdict.EXTRA and listed is not None:
            self.extra += 1
            self.extra_bytes += listed.size
            self.newer += listed.mtime > since
            return
        if verdict is Verdict.SAME or entry is None:
            self.same += 1
            return
        self._name(verdict, entry.path)
        if verdict is Verdict.MODE:
            self.modes += 1
        elif verdict is Verdict.PRIVATE:
            self.private += 1
        elif verdict is Verdict.BARRED:
            self.barred += 1
        else:
            self._bring(verdict, entry)

    def _bring(self, verdict: Verdict, entry: IndexEntry) -> None:
        self.missing += verdict is Verdict.MISSING
        self.differing += verdict is Verdict.DIFFERS
        self.size += entry.size
        fresh = _new_directories(self._last, entry.path)
        self._last = entry.path
        self.directories += fresh
        self.room += entry.size + -entry.size % BLOCK + 2 * fresh * BLOCK
        if entry.link is not None and leads_out(entry.path, entry.link):
            self.outside += 1
            self._name("outside", entry.path)

    def _name(self, what: str, path: bytes) -> None:
        names = self.names.setdefault(str(what), [])
        if len(names) < _SHOWN:
            names.append(path)


def leads_out(path: bytes, link: bytes) -> bool:
    """Whether a symbolic link at a path leads out of the tree, as far as its text tells."""
    if link.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in link.split(b"/"):
        depth += -1 if part == b".." else part not in {b"", b"."}
        if depth < 0:
            return True
    return False


def _new_directories(last: bytes, path: bytes) -> int:
    """How many directories of a path the one before it, in sorted order, does not lie in."""
    before, here = last.split(b"/")[:-1], path.split(b"/")[:-1]
    shared = 0
    for one, other in zip(before, here, strict=False):
        if one != other:
            break
        shared += 1
    return len(here) - shared
