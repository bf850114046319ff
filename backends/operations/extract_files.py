"""Writing the plain files of a snapshot to this machine: each whole and under a temporary name until it is checked."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from backends.archive.file_index import IndexEntry, safe_path
from backends.archive.manifest import ObjectEntry
from backends.errors import AssetFailed, Damaged
from backends.model import Asset
from backends.progress import Job
from backends.restore.media_host import amount, size_of
from backends.restore.media_source import Member, index, members
from backends.restore.media_wanted import Records, Wanted
from backends.restore.secrets_source import read_environment_tar
from backends.restore.source import Source
from backends.untrusted import clean

_CHUNK = 1024 * 1024
_BLOCK = 4096
_RDB = "dump"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Written(NamedTuple):
    """What one asset became: names below the directory, bytes, and a sentence."""

    names: tuple[str, ...]
    bytes: int
    detail: str


def write_asset(source: Source, folder: Path, job: Job, subtree: bytes) -> Written:
    """Write what a snapshot holds below a folder that is its own, as it will be called.

    Raises:
        Damaged, KeyUnavailable, VaultError: it cannot be read.
        AssetFailed: it cannot be written.
        Cancelled: the operator asked to stop.
    """
    writers: dict[Asset, Callable[[], Written]] = {
        Asset.DATABASE: lambda: _objects(source, folder, job, ("database.pgdump", "globals.sql")),
        Asset.SECRETS: lambda: _environment(source, folder, job),
        Asset.MEDIA: lambda: _media(source, folder, job, subtree),
        Asset.REDIS: lambda: _objects(source, folder, job, _dumps(source)),
    }
    with explained(folder.parent.parent):
        return writers[source.asset]()


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Turn what the file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        shown = clean(str(directory), 200)
        if error.errno in _NO_ROOM:
            raise AssetFailed(
                f"there is no room left in {shown}; what was half written is removed",
                "Free some room, or name a directory on a larger disk.",
            ) from None
        raise AssetFailed(
            f"{shown} cannot be written: {error.strerror or type(error).__name__}", "Name another directory."
        ) from None


def _objects(source: Source, folder: Path, job: Job, names: tuple[str, ...]) -> Written:
    found = [(name, entry) for name in names if (entry := _entry(source, name)) is not None]
    if not found:
        raise Damaged(f"the manifest of {source.manifest.id} names no {names[0] if names else 'RDB file'}")
    _require_room(folder, sum(entry.plain_bytes for _, entry in found))
    written = 0
    for name, entry in found:
        job.step(f"writing {name}", entry.plain_bytes)
        with source.open(entry) as plain, _new(folder / name) as file:
            while piece := plain.read(_CHUNK):
                job.check_cancelled()
                file(piece)
                written += len(piece)
                job.advance(len(piece))
    kept = tuple(name for name, _ in found)
    return Written(kept, written, f"{', '.join(kept)}: {size_of(written)}")


def _entry(source: Source, name: str) -> ObjectEntry | None:
    suffixes = {name, f"{name}.age", f"{name}.zst.age"}
    return next((entry for entry in source.manifest.objects if entry.name in suffixes), None)


def _dumps(source: Source) -> tuple[str, ...]:
    """The RDB files of a snapshot: `dump.rdb`, `dump-<role>.rdb`. Names of objects are single parts already."""
    names = (entry.name.removesuffix(".age").removesuffix(".zst") for entry in source.manifest.objects)
    return tuple(name for name in names if name.startswith(_RDB) and name.endswith(".rdb"))


@contextmanager
def _new(path: Path, mode: int = 0o600) -> Iterator[Callable[[bytes], object]]:
    """A new file that only its owner may read, on disk at the end; never through a link."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        yield file.write
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _environment(source: Source, folder: Path, job: Job) -> Written:
    job.step("writing environment")
    written, count = 0, 0
    for file in read_environment_tar(source):
        job.check_cancelled()
        path = os.fsencode(file.path.lstrip("/"))
        if not safe_path(path):
            raise Damaged(f"the secrets hold a file at the impossible path {clean(file.path, 100)}")
        place = folder / "environment" / os.fsdecode(path)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _new(place, file.mode & 0o600) as take:
            take(file.content)
        written, count = written + len(file.content), count + 1
    return Written(("environment",), written, f"environment: {amount(count)}")


def _media(source: Source, folder: Path, job: Job, subtree: bytes) -> Written:
    tree = folder / "media"
    tree.mkdir(mode=0o755, exist_ok=True)  # what an earlier copy gave is kept
    job.step("reading the index")
    wanted, links, done = _wanted(source, tree, job, subtree)
    if subtree and not (wanted.files or links.count or done):
        raise AssetFailed(
            f"the snapshot holds nothing below {clean(subtree, 200)}",
            "Give a path relative to the media directory, for example accounts/avatars.",
        )
    _require_room(folder, wanted.bytes + _BLOCK * wanted.files)
    job.step("writing media", wanted.bytes)
    files, size = wanted.files + done, wanted.bytes
    for member in members(source, wanted):
        job.check_cancelled()
        _write_member(tree, member, job)
    refused = _make_links(tree, links)
    os.sync()
    if refused:
        job.warn(f"{amount(refused, 'symbolic link')} left out: the file system of the directory has none")
    return Written(("media",), size, f"media: {amount(files + links.count - refused)}, {size_of(size)}")


def _wanted(source: Source, tree: Path, job: Job, subtree: bytes) -> tuple[Wanted, Records, int]:
    """What is to be written, the links to be made at the end, and how many files an earlier try has written."""
    wanted, links, done = Wanted(), Records(), 0
    for count, entry in enumerate(index(source, subtree)):
        if count % 1000 == 0:
            job.check_cancelled()
        if entry.link is not None:
            links.add(entry.path)
            links.add(entry.link)
            links.count -= 1
        elif _is_written(tree, entry):
            done += 1
        else:
            wanted.add(entry)
    return wanted, links, done


def _is_written(tree: Path, entry: IndexEntry) -> bool:
    """Whether we wrote it: a file has its whole size only once its content was checked."""
    try:
        known = os.lstat(os.fsencode(tree) + b"/" + entry.path)
    except OSError:
        return False
    return known.st_size == entry.size


def _write_member(tree: Path, member: Member, job: Job) -> None:
    entry = member.entry
    path = os.fsencode(tree) + b"/" + entry.path
    parent = path.rpartition(b"/")[0]
    if not os.path.isdir(parent):  # noqa: PTH112 - names are bytes
        os.makedirs(parent, mode=0o755, exist_ok=True)  # noqa: PTH103
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except FileExistsError:  # from a copy that turned out to be damaged
        os.unlink(path)  # noqa: PTH108
        handle = os.open(path, flags, 0o600)
    with os.fdopen(handle, "wb") as file:
        for piece in member.content:
            file.write(piece)
            job.advance(len(piece))
            job.check_cancelled()
        file.flush()
        os.fchmod(file.fileno(), entry.mode & 0o777)
        os.utime(file.fileno(), ns=(entry.mtime, entry.mtime))


def _make_links(tree: Path, links: Records) -> int:
    """Symbolic links come last, so that nothing is ever written through one; returns how many were refused."""
    refused, waiting, rest = 0, b"", b""
    for chunk in links.chunks():
        *records, rest = (rest + chunk).split(b"\0")
        for record in records:
            if not waiting:
                waiting = record
                continue
            path, waiting = os.fsencode(tree) + b"/" + waiting, b""
            os.makedirs(path.rpartition(b"/")[0], mode=0o755, exist_ok=True)  # noqa: PTH103
            try:
                os.symlink(record, path)  # noqa: PTH211
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}:
                    raise
                refused += 1
    return refused


def _require_room(folder: Path, need: int) -> None:
    known = os.statvfs(folder)
    free = known.f_bavail * known.f_frsize
    if need > free:
        raise AssetFailed(
            f"{size_of(need)} are needed in {clean(str(folder.parent.parent), 200)}, and {size_of(free)} are free",
            "Free some room, or name a directory on a larger disk.",
        )


def remove(path: Path) -> None:
    """Remove a file or a tree; what is not there is no fault."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
