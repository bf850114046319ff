"""The dump as a file on the target, in a private directory, for as long as it is loaded from there."""

from __future__ import annotations

import posixpath
import shlex
from contextlib import suppress
from typing import BinaryIO

from backends.archive.manifest import ObjectEntry
from backends.assets.database_access import command
from backends.connection.base import Command, Connection, Process, sh
from backends.errors import AssetFailed, BecomeRefused, CommandFailed, MastovaultError
from backends.mastodon.installation import DatabasePlace
from backends.progress import Job
from backends.restore.source import Source
from backends.untrusted import clean

FILE = "database.pgdump"
_PIECE = 256 * 1024

# $1 directory, $2 file, then the command whose output is kept. A directory that is there must be ours alone.
_KEEP = r"""
umask 077
if ! mkdir -- "$1" 2>/dev/null; then
  if [ -h "$1" ] || ! [ -d "$1" ] || ! [ -O "$1" ]; then
    mkdir -- "$1"; echo "mastovault: $1 cannot be made" >&2; exit 20
  fi
fi
to=$1/$2; shift 2
rm -f -- "$to"
"$@" > "$to"
"""
# A directory that was there before us, with other things in it, stays.
_REMOVE = 'rm -f -- "$1/$2" && { rmdir -- "$1" 2>/dev/null || :; }'


class NoRoom(AssetFailed):
    """The dump does not fit into the staging directory."""


def compressed_entry(entry: ObjectEntry, *, zstd_there: bool) -> tuple[ObjectEntry, bool]:
    """The entry as it goes over the wire, and whether the target has to decompress it.

    A dump that is stored with zstd crosses the network like that where the target has a zstd; what was stored is
    checked all the same, by the SHA-256 of the stored bytes and by zstd's own checksum.
    """
    if zstd_there and entry.codecs == ["zstd", "age"]:
        return entry.model_copy(update={"codecs": ["age"], "plain_sha256": ""}), True
    return entry, False


def dump_entry(source: Source) -> ObjectEntry:
    """The dump among the objects of a snapshot. Raises `AssetFailed`."""
    entry = source.entry("database.pgdump")
    if entry is None:
        raise AssetFailed(f"{source.manifest.id} holds no dump of a database.", "Choose another snapshot.")
    return entry


def pump(stream: BinaryIO, process: Process, job: Job) -> None:
    """Write a stream to a command, to its end; a command that takes no more ends this, but not the stream's check.

    Raises:
        Damaged, VaultError, KeyUnavailable: of the stream; whatever the command did with it does not count.
        ConnectionFailed, Cancelled: of the command.
    """
    taken = True
    while data := stream.read(_PIECE):
        job.check_cancelled()
        if taken:
            try:
                process.write(data)
            except BrokenPipeError:
                taken = False
                # One that failed makes the rest pointless; one that has all it needs leaves the rest to be checked.
                if not _ended_well(process):
                    return
        job.advance(len(data))


def _ended_well(process: Process) -> bool:
    try:
        return process.wait(timeout=30) == 0
    except TimeoutError:
        return False


def stage(connection: Connection, place: DatabasePlace, source: Source, directory: str, job: Job, *, zstd: bool) -> str:
    """Put the dump into a file on the target, decrypted and decompressed; returns its path.

    Args:
        connection: the target.
        place: as whom; the file belongs to that system user, mode 0600 in a directory of 0700.
        source: the snapshot.
        directory: where; made when it is missing.
        job: advanced by what is sent.
        zstd: whether the target has a zstd.

    Raises:
        NoRoom: the file system is full; nothing is left there.
        AssetFailed, Damaged, VaultError, ConnectionFailed, Cancelled: nothing is left there where we can still reach.
    """
    entry, there = compressed_entry(dump_entry(source), zstd_there=zstd)
    job.step("staging the dump", total=entry.plain_bytes or entry.bytes)
    keep = keep_command(place, directory, zstd=there)
    job.log(f"$ … | {shown_keep(directory, zstd=there)}")
    try:
        with source.open(entry) as stream, connection.start(keep) as process:
            forget = job.on_cancel(process.terminate)
            try:
                job.check_cancelled()
                pump(stream, process, job)
                process.close_stdin()
                status = process.wait(timeout=600)
            finally:
                forget()
            job.check_cancelled()
            if status != 0:
                raise _failed(process.stderr_tail(), connection.host, directory)
    except BaseException as error:
        with suppress(MastovaultError):
            unstage(connection, place, directory)
        if isinstance(error, MastovaultError):
            job.check_cancelled()
        if isinstance(error, TimeoutError):
            raise AssetFailed(f"Writing the dump on {connection.host} did not end.", "Look at its disks.") from error
        raise
    return posixpath.join(directory, FILE)


def unstage(connection: Connection, place: DatabasePlace, directory: str) -> None:
    """Remove the staged dump and, when it is empty, its directory. Nothing there is fine.

    Raises:
        AssetFailed: it could not be removed.
    """
    script = sh(_REMOVE, directory, FILE)
    try:
        connection.check(Command(script, as_user=place.as_user, env={"LC_ALL": "C"}), what="Removing the staged dump")
    except (CommandFailed, BecomeRefused) as error:
        raise AssetFailed(
            f"The staged dump in {clean(directory, 200)} on {connection.host} could not be removed: {error.sentence}",
            "Remove it by hand: it holds everything that is in the database.",
        ) from error


def keep_command(place: DatabasePlace, directory: str, *, zstd: bool) -> Command:
    """What runs on the target while the dump is staged."""
    program = ("zstd", "-q", "-d", "-c") if zstd else ("cat",)
    made = command(place, sh(_KEEP, directory, FILE, *program))
    return Command(made.argv, as_user=made.as_user, env={"LC_ALL": "C"})


def shown_keep(directory: str, *, zstd: bool) -> str:
    """The same, as it can be typed."""
    program = "zstd -d -c" if zstd else "cat"
    path = shlex.quote(posixpath.join(directory, FILE))
    return clean(f"(umask 077; mkdir {shlex.quote(directory)}; {program} > {path})")


def _failed(said: str, host: str, directory: str) -> AssetFailed:
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    where = clean(directory, 200)
    if "No space left" in said or "quota exceeded" in said.lower():
        return NoRoom(f"{where} on {host} has no room for the dump.", "Free some space there and restore again.")
    if "zstd" in said and ("rror" in said or "ecode" in said):
        return AssetFailed(
            f"The snapshot's dump is damaged: zstd on {host} says {clean(last, 200)}",
            "Restore another snapshot; `mastovault verify` finds out which ones are whole.",
        )
    return AssetFailed(
        f"The dump could not be written to {where} on {host}: {clean(last, 200)}",
        "Look at the rights and the room of that directory.",
    )
