"""Bring a snapshot of Redis to the target, beside the live file, and check it there."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO

from backends.archive.snapshot import Source as Bytes
from backends.assets.redis_rdb import RdbHeader, RdbStream
from backends.connection.base import Command, Completed, Process, sh
from backends.errors import AssetFailed, MastovaultError
from backends.model import Asset
from backends.progress import Job
from backends.restore.base import Work
from backends.restore.redis_crc import RdbChecksum
from backends.restore.redis_files import EMPTY_RDB, RECEIVE, Files, digest_in, failed
from backends.restore.redis_place import Server
from backends.untrusted import clean

_CHUNK = 256 * 1024
_MOST_CHECKSUMMED = 256 * 1024 * 1024
"""Larger snapshots without redis-check-rdb are only compared by SHA-256 with what was stored."""
_CHECK = 'command -v redis-check-rdb >/dev/null || exit 77; exec redis-check-rdb "$1"'
_ABSENT = 77
_CHECK_SECONDS = 120.0
_SLOWEST_CHECK = 20 * 1024 * 1024
_KEYS = re.compile(r"\[info\] (\d{1,18}) keys read")
_EXPIRES = re.compile(r"\[info\] (\d{1,18}) expires")


def stage(work: Work, server: Server) -> None:
    """Send the snapshot and check it; nothing live is touched.

    Raises:
        Damaged: the stored copy is no good; what came of it is not used.
        AssetFailed: it is no snapshot that this server loads, or there is no room.
    """
    files = Files(work.target, server, work.request.id)
    if files.state().before:
        return  # it was put in place already
    checksum = _send(work, server, files)
    counted = _ask_redis(work, server, files)
    if counted is None and checksum is not None and not checksum.fits:
        raise _bad(server, "its checksum is wrong")
    work.memory.set(f"redis.{server.role}.staged", counted)


def unstage(work: Work, server: Server) -> None:
    """Remove what was staged."""
    Files(work.target, server, work.request.id).remove_staged()


def _send(work: Work, server: Server, files: Files) -> RdbChecksum | None:
    """Send the bytes; they arrived when the host computes the same digest. The checksum is that of small ones."""
    with _opened(work, server) as (plain, size):
        rdb = _header(server, plain, size, work.job)
        work.job.step(f"sending {server.object or 'an empty snapshot'}", size)
        checksum = RdbChecksum() if size <= _MOST_CHECKSUMMED and not _has_checker(work) else None
        digest = hashlib.sha256()
        script = sh(RECEIVE, files.staged_path, f"{server.owner}:{server.group}", f"{server.mode:o}")
        work.job.log(f"cat >{clean(files.staged_path, 300)}")
        command = Command(script, as_user=work.target.root, env={"LC_ALL": "C"})
        with work.connection.start(command) as process:
            forget = work.job.on_cancel(process.terminate)
            try:
                _pump(rdb, process, digest, checksum)
                try:
                    rdb.finish()
                except AssetFailed as error:
                    raise _bad(server, error.sentence.rpartition(": ")[2].rstrip(".")) from None
                process.close_stdin()
                done = Completed(process.wait(), process.read(), process.stderr_tail().encode())
            except MastovaultError:
                work.job.check_cancelled()
                raise
            finally:
                forget()
    if done.status != 0:
        raise failed(server, "writing the snapshot beside its data", done)
    if digest_in(done) != digest.hexdigest():
        raise AssetFailed(f"{server.name}: what arrived is not what was sent.", "Try again; look at the host's disk.")
    return checksum


def _pump(rdb: RdbStream, process: Process, digest: hashlib._Hash, checksum: RdbChecksum | None) -> None:
    while chunk := rdb.read(_CHUNK):
        digest.update(chunk)
        if checksum is not None:
            checksum.update(chunk)
        try:
            process.write(chunk)
        except BrokenPipeError:
            # Its status says why. What is left must still be read: a damaged copy is the more telling fault.
            while rdb.read(_CHUNK):
                pass
            return


@contextmanager
def _opened(work: Work, server: Server) -> Iterator[tuple[Bytes, int]]:
    """The plain snapshot and its length."""
    if not server.object:
        yield io.BytesIO(EMPTY_RDB), len(EMPTY_RDB)
        return
    source = work.sources[Asset.REDIS]
    entry = source.entry(server.object)
    if entry is None:
        raise AssetFailed(f"{source.manifest.id} holds no {server.object}.", "Choose another snapshot.")
    with closing(source.open(entry)) as opened:
        plain: BinaryIO = opened
        yield plain, entry.plain_bytes


def _header(server: Server, plain: Bytes, size: int, job: Job) -> RdbStream:
    try:
        rdb = RdbStream(plain, size, job)
    except AssetFailed:
        raise _bad(server, "it does not begin as one") from None
    _must_be_readable(server, rdb.header)
    return rdb


def _must_be_readable(server: Server, header: RdbHeader) -> None:
    plain, own = server.reads
    if server.same_kind or header.version <= plain or 80 <= header.version <= own:
        return
    raise AssetFailed(
        f"The snapshot has RDB format {header.version}, and {server.name} reads no newer one than {plain}.",
        "Start Redis empty and let the feeds be built again, or install a newer Redis.",
    )


def _has_checker(work: Work) -> bool:
    return work.connection.has("redis-check-rdb", as_user=work.target.root)


def _ask_redis(work: Work, server: Server, files: Files) -> dict[str, int] | None:
    """Let redis-check-rdb read the staged file; how many keys it found, None where it is not installed."""
    timeout = _CHECK_SECONDS + server.bytes / _SLOWEST_CHECK
    command = Command(sh(_CHECK, files.staged_path), as_user=work.target.root, env={"LC_ALL": "C"})
    work.job.step("checking the snapshot")
    done = work.connection.run(command, timeout=timeout)
    if done.status == _ABSENT:
        work.job.log("redis-check-rdb is not installed there; header, length and checksum were checked here")
        return None
    work.job.log(f"redis-check-rdb {clean(files.staged_path, 300)}")
    if done.status != 0:
        said = clean(done.stdout, 4000, lines=True).strip().splitlines()
        why = next((line for line in reversed(said) if "error" in line.lower() or "rror:" in line), "")
        raise _bad(server, f"redis-check-rdb says: {why or (said[-1] if said else f'status {done.status}')}")
    return keys_read(done.text)


def keys_read(text: str) -> dict[str, int] | None:
    """How many keys redis-check-rdb says that it read, and how many have a time to live; never raises."""
    keys, expires = _KEYS.search(text), _EXPIRES.search(text)
    return {"keys": int(keys[1]), "expires": int(expires[1])} if keys and expires else None


def _bad(server: Server, why: str) -> AssetFailed:
    what = server.object or "the empty snapshot"
    return AssetFailed(
        f"{what} is no good Redis snapshot: {why}.",
        "Choose another snapshot, or start Redis empty and let the feeds be built again.",
    )
