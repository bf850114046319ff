"""Decoding what is stored, object by object, as streams: settings, roles, the index of the media and its packs."""

from __future__ import annotations

import codecs
import hashlib
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import groupby
from typing import BinaryIO

from backends.archive.file_index import IndexEntry, read_index
from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.packs import BLOCK
from backends.errors import Damaged
from backends.mastodon.env_file import MAX_BYTES
from backends.restore.media_source import Lineage
from backends.restore.media_wanted import Wanted
from backends.untrusted import clean

_CHUNK = 256 * 1024
_GLOBALS = "--\n-- PostgreSQL database cluster dump"
_MARK = 4096
_MOST_FILES = 1000


def read_all(plain: BinaryIO) -> None:
    """Read to the end, which compares the stream with its manifest. Raises `Damaged`."""
    while plain.read(_CHUNK):
        pass


def globals_sql(plain: BinaryIO) -> None:
    """The roles: text that begins and ends as pg_dumpall writes it. Raises `Damaged`."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    head, tail = "", ""
    while data := plain.read(_CHUNK):
        text = decoder.decode(data)
        head = head if len(head) >= _MARK else head + text[:_MARK]
        tail = (tail + text)[-_MARK:]
    if not head.startswith(f"{_GLOBALS}\n--") or f"{_GLOBALS} complete" not in tail:
        raise Damaged("the roles do not begin and end as pg_dumpall writes them")


def environment(plain: BinaryIO, manifest: Manifest) -> None:
    """The settings: a tar that holds the files which the manifest names. Raises `Damaged`."""
    found: set[str] = set()
    try:
        with tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                if not member.isfile() or member.size > MAX_BYTES or len(found) >= _MOST_FILES:
                    raise Damaged("the settings hold something that was never put there")
                content = tar.extractfile(member)
                if content is None or len(content.read()) != member.size:
                    raise Damaged("the settings are cut off")
                found.add(member.name.lstrip("/"))
    except (tarfile.TarError, UnicodeError, ValueError) as error:
        raise Damaged("the settings are no tar") from error
    known = manifest.facts.get("files")
    named = {str(each.get("path", "")).lstrip("/") for each in known} if isinstance(known, list) else set()
    if missing := named - {clean(name, 1000) for name in found}:
        raise Damaged(f"the settings lack {clean(', '.join(sorted(missing)), 200)}")


def is_pack(entry: ObjectEntry) -> bool:
    """Whether an object is a pack of media files."""
    return "/media/packs/" in entry.key


class MediaProof:
    """The index of a media snapshot against its packs, in bounded memory.

    Args:
        manifest: of the snapshot.
        packs: names of the pack objects that will be read.
        problem: told of everything that is wrong and does not end the reading.
    """

    def __init__(self, manifest: Manifest, packs: Collection[str], problem: Callable[[str], None]) -> None:
        self._objects = {entry.name.partition(".tar")[0]: entry.name for entry in manifest.objects if is_pack(entry)}
        self._packs, self._problem = packs, problem
        self._wanted = Wanted()
        self.files = 0

    def read_index(self, plain: BinaryIO) -> None:
        """Every line; what lies in the packs that will be read is remembered. Raises `Damaged`."""
        lineage = Lineage()
        for entry in read_index(plain):
            if lineage.ancestor(entry.path) is not None:
                self._problem(f"the index has {clean(entry.path, 120)} below what is a file or link itself")
            lineage.add(entry.path)
            name = self._objects.get(entry.pack)
            if name is None:
                self._problem("the index names a pack that the manifest lacks")
            elif name in self._packs:
                self._wanted.add(entry)

    def by_pack(self) -> Iterator[tuple[str, Iterable[IndexEntry]]]:
        """The files by pack object, in the order of their places in it; each group before the next."""
        for pack, entries in groupby(self._wanted, key=lambda entry: entry.pack):
            yield self._objects[pack], entries

    def check_pack(self, plain: BinaryIO, entries: Iterable[IndexEntry]) -> None:
        """Compare the files of one pack with the index. Raises `Damaged` when the rest of it cannot be read."""
        at = 0
        for entry in entries:
            begin = entry.offset - BLOCK
            if begin < at:
                raise Damaged("the index names two files in the same place")
            _skip(plain, begin - at)
            self._head(_exactly(plain, BLOCK), entry)
            if _digest(plain, entry.size) != entry.sha256:
                self._problem(f"the content of {clean(entry.path, 120)} is not what was backed up")
            at = entry.offset + entry.size
            self.files += 1

    def _head(self, head: bytes, entry: IndexEntry) -> None:
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            self._problem(f"there is no header where {clean(entry.path, 120)} should be")
            return
        # Of a long name the header right before the content holds only the beginning.
        name = info.name.encode("utf-8", "surrogateescape").removeprefix(b"./")
        if not entry.path.startswith(name[:90]) or (entry.link is None) is info.issym():
            self._problem(f"another file is where {clean(entry.path, 120)} should be")


def _digest(plain: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        piece = _exactly(plain, min(size, _CHUNK))
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _skip(plain: BinaryIO, count: int) -> None:
    while count:
        count -= len(_exactly(plain, min(count, _CHUNK)))


def _exactly(plain: BinaryIO, size: int) -> bytes:
    data = plain.read(size)
    if len(data) != size:
        raise Damaged("it ends before the last file that the index names in it")
    return data
