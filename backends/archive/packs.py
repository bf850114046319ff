"""Packs: many files of a tree in tar archives of about 64 MiB, written once (docs/format.md).

A pack is a plain GNU tar that `tar -x` opens. Names are raw bytes, relative to the tree's root. Where a file's content
begins within the plain pack is recorded as its offset, so that one file can be read without the index of a tar.
"""

from __future__ import annotations

import hashlib
import secrets
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backends.archive.snapshot import Source
from backends.errors import MastovaultError

PACK_BYTES = 64 * 1024 * 1024
CHUNK = 256 * 1024
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
_MAX_NAME = 64 * 1024
_REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_MODE = 0o777


class TarTorn(MastovaultError):
    """A tar stream ended before its end, or is no tar."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file or symbolic link of a tar stream; read `content` to its end before asking for the next member."""

    info: tarfile.TarInfo
    content: Iterator[bytes]

    @property
    def path(self) -> bytes:
        """The name as raw bytes, without a leading `./`."""
        return self.info.name.encode("utf-8", "surrogateescape").removeprefix(b"./")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a member ended up: its pack, where its content begins in the plain tar, and its content's SHA-256."""

    path: bytes
    size: int
    mtime: int
    mode: int
    link: bytes | None
    sha256: str
    pack: str
    offset: int


def pack_key(host: str, pack: str) -> str:
    """The vault's key of a pack, without the codecs' suffixes."""
    return f"hosts/{host}/media/packs/{pack}.tar"


def new_pack_id() -> str:
    """A name that no other pack has: 128 random bits."""
    return secrets.token_hex(16)


def read_members(source: Source) -> Iterator[Member]:
    """Follow a GNU tar stream without holding more than a chunk of it.

    Raises:
        TarTorn: the stream ended early or holds what GNU tar does not write for files and links.
    """
    source = _Buffered(source)
    names: dict[bytes, str] = {}
    while True:
        head = _exactly(source, BLOCK)
        if head == bytes(BLOCK):
            _drain(source)
            return
        info = _parse(head)
        if info.type in {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}:
            names[info.type] = _long_name(source, info.size)
            continue
        info.name = names.pop(tarfile.GNUTYPE_LONGNAME, info.name)
        info.linkname = names.pop(tarfile.GNUTYPE_LONGLINK, info.linkname)
        if info.type in _REGULAR:
            content = _content(source, info.size)
        elif info.issym():
            info.size = 0
            content = iter(())
        else:
            raise TarTorn(f"the tar stream holds an entry of the unexpected type {info.type!r}")
        yield Member(info, content)
        for _ in content:  # what the consumer left
            pass


class PackCutter:
    """Cuts a series of members into packs; `next_pack` until it returns None.

    Each pack must be read to its end before the next one is asked for. `placed` is called for each member right after
    its last byte went into a pack, and before the next member is asked for.
    """

    def __init__(self, members: Iterator[Member], placed: Callable[[Placed], None], target: int = PACK_BYTES) -> None:
        self._members = members
        self._placed = placed
        self._target = target
        self._waiting: Member | None = None

    def next_pack(self) -> PackSource | None:
        """The next pack to store, or None when no member is left."""
        self._waiting = self._waiting or next(self._members, None)
        if self._waiting is None:
            return None
        return PackSource(new_pack_id(), self._bytes)

    def _bytes(self, pack: str) -> Iterator[bytes]:
        position = 0
        while (member := self._waiting) is not None:
            head = _normal(member).tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            offset = position + len(head)
            padding = -member.info.size % BLOCK
            if position and offset + member.info.size + padding > self._target:
                break
            digest = hashlib.sha256()
            yield head
            for chunk in member.content:
                digest.update(chunk)
                yield chunk
            yield bytes(padding)
            position = offset + member.info.size + padding
            self._placed(_place(member, digest.hexdigest(), pack, offset))
            self._waiting = next(self._members, None)
        yield END


class PackSource:
    """One pack as a stream of plain bytes."""

    def __init__(self, pack: str, content: Callable[[str], Iterator[bytes]]) -> None:
        self.id = pack
        self._chunks = content(pack)
        self._rest = bytearray()

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end. Whatever the members raise comes through."""
        wanted = CHUNK if size < 0 else size
        parts = bytearray() if not self._rest else self._rest
        while len(parts) < wanted:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            parts += chunk
        self._rest = parts[wanted:]
        del parts[wanted:]
        if size < 0 and parts:
            return bytes(parts) + self.read(-1)
        return bytes(parts)


class _Buffered:
    """Reads large pieces, since a header is only 512 bytes and a read over SSH is dear."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._data = b""
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, at most one piece; b"" at the end."""
        if self._at == len(self._data):
            self._data, self._at = self._source.read(CHUNK), 0
        piece = self._data[self._at : self._at + size if size >= 0 else None]
        self._at += len(piece)
        return piece


def _normal(member: Member) -> tarfile.TarInfo:
    """The header as it is stored: relative name, owner and times kept, no set-user-id, nothing else of the host's."""
    info = tarfile.TarInfo(member.path.decode("utf-8", "surrogateescape"))
    info.size, info.mtime, info.mode = member.info.size, int(member.info.mtime), member.info.mode & _MODE
    info.uid, info.gid = member.info.uid, member.info.gid
    info.uname, info.gname = member.info.uname, member.info.gname
    if member.info.issym():
        info.type, info.linkname = tarfile.SYMTYPE, member.info.linkname
    return info


def _place(member: Member, sha256: str, pack: str, offset: int) -> Placed:
    info = member.info
    link = info.linkname.encode("utf-8", "surrogateescape") if info.issym() else None
    return Placed(member.path, info.size, int(info.mtime), info.mode & _MODE, link, sha256, pack, offset)


def _parse(head: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise TarTorn("what came is no tar stream") from error


def _long_name(source: Source, size: int) -> str:
    if size > _MAX_NAME:
        raise TarTorn("the tar stream holds a name of more than 64 KiB")
    raw = _exactly(source, size + -size % BLOCK)[:size]
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _content(source: Source, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = source.read(min(left, CHUNK))
        if not chunk:
            raise TarTorn("the tar stream ended in the middle of a file")
        left -= len(chunk)
        if not left:
            _exactly(source, -size % BLOCK)
        yield chunk


def _exactly(source: Source, size: int) -> bytes:
    first = source.read(size) if size else b""
    if len(first) == size:
        return first
    parts = bytearray(first)
    while len(parts) < size:
        chunk = source.read(size - len(parts)) if parts else b""
        if not chunk:
            raise TarTorn("the tar stream ended early")
        parts += chunk
    return bytes(parts)


def _drain(source: Source) -> None:
    """Read what pads a tar after its end, so that the writer does not die of a broken pipe."""
    while source.read(CHUNK):
        pass
