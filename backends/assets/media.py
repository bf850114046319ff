"""The media asset: uploads in a local tree go into packs; uploads in an object storage are the provider's to keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

from backends.archive.file_index import IndexSpool
from backends.archive.packs import PACK_BYTES, PackCutter, pack_key
from backends.archive.snapshot import SnapshotWriter
from backends.assets.base import BackupContext, Outcome, Plan, Step
from backends.assets.media_bucket import observe_bucket, storage_name
from backends.assets.media_listing import Listing, find_command, parse_records
from backends.assets.media_stream import TAR_COMMAND, TreeReader
from backends.connection.base import Command, Connection, Process, lines_of, sh
from backends.errors import AssetFailed, BecomeRefused, CommandFailed, MastovaultError
from backends.mastodon.installation import Installation, MediaKind, MediaPlace
from backends.model import Asset, AssetObservation
from backends.progress import Job
from backends.untrusted import clean

_CHUNK = 256 * 1024
_NAMES_SHOWN = 3
_SIZE_SECONDS = 5

_LOOK = r"""export LC_ALL=C
for program in find tar xargs sha256sum; do
  command -v "$program" >/dev/null 2>&1 || echo "missing $program"
done
case "$(find --version 2>/dev/null)" in *GNU*) ;; *) echo "notgnu find" ;; esac
case "$(tar --version 2>/dev/null)" in *GNU*) ;; *) echo "notgnu tar" ;; esac
if cd -- "$1" 2>/dev/null; then
  if [ -r . ]; then echo "root ok"; else echo "root unreadable"; fi
elif [ -d "$1" ]; then echo "root unreadable"
elif [ -e "$1" ]; then echo "root nodirectory"
else echo "root absent"
fi
"""
# not du: it counts directories too, and Mastodon makes several for each file
_SIZE = r"""cd -- "$1" || exit 9
export LC_ALL=C
exec timeout "$2" sh -c "find . -path ./cache -prune -o -type f -printf '%s\\n' |
  awk '{ sum += \$1 } END { printf \"%.0f\", sum }'"
"""


@dataclass(frozen=True, slots=True)
class _Look:
    """What is at the root, seen as the user who will read it."""

    root: str
    as_user: str | None
    reader: str
    state: str
    lacking: tuple[str, ...]
    refused: str = ""


class MediaAsset:
    """Uploads: avatars, headers, attachments, custom emoji (facts: Mastodon's config/initializers/paperclip.rb)."""

    asset: ClassVar[Asset] = Asset.MEDIA

    def probe(self, connection: Connection, installation: Installation) -> AssetObservation:
        """Is the tree there and readable, and how big without `cache/`; or does the bucket answer."""
        place = installation.media
        if place is not None and place.kind is not MediaKind.LOCAL:
            return observe_bucket(connection, place)
        root = _root(place)
        if root is None:
            return AssetObservation(asset=Asset.MEDIA, present=False, detail="where the media are is not known")
        look = _look(connection, installation, root)
        trouble = _trouble(look, connection.host)
        shown = clean(root, 200)
        if trouble:
            present = look.state != "absent"
            return AssetObservation(asset=Asset.MEDIA, present=present, detail=shown, warnings=(trouble.sentence,))
        return AssetObservation(asset=Asset.MEDIA, present=True, detail=shown, bytes=_estimate(connection, look))

    def plan_backup(self, connection: Connection, installation: Installation) -> Plan:
        """The listing, the packs and the index; or why nothing is copied."""
        place = installation.media
        if place is not None and place.kind is not MediaKind.LOCAL:
            step = Step(name="skip", what=f"kept by {storage_name(place)}: nothing to copy")
            return Plan(host=connection.host, asset=Asset.MEDIA, steps=(step,))
        root = _root(place)
        if root is None:
            return Plan(host=connection.host, asset=Asset.MEDIA, steps=(), blocked=_unknown(connection.host).sentence)
        look = _look(connection, installation, root)
        trouble = _trouble(look, connection.host)
        shown = clean(root, 200)
        steps = (
            Step(
                name="list",
                what=f"list the files below {shown} without cache/",
                command="find . -path ./cache -prune -o … -printf …",
            ),
            Step(name="copy", what="copy them in packs of 64 MiB", command=TAR_COMMAND),
            Step(name="index", what="write the index: path, size, time, mode, SHA-256, place"),
        )
        blocked = trouble.sentence if trouble else ""
        warnings = (f"Read as {look.reader}: {look.refused}",) if look.refused else ()
        return Plan(host=connection.host, asset=Asset.MEDIA, steps=steps, warnings=warnings, blocked=blocked)

    def back_up(self, context: BackupContext, writer: SnapshotWriter) -> Outcome:
        """Copy the whole tree; what cannot be read is left out and said (`job.warn`)."""
        place = context.installation.media
        if place is not None and place.kind is not MediaKind.LOCAL:
            return Outcome(skipped=f"kept by {storage_name(place)}")
        root = _root(place)
        if root is None:
            raise _unknown(context.connection.host)
        look = _look(context.connection, context.installation, root)
        if trouble := _trouble(look, context.connection.host):
            raise trouble
        if look.refused:
            context.job.log(f"reading as {look.reader}: {look.refused}")
        listing = _list(context, look)
        return _copy(context, writer, look, listing)


def _list(context: BackupContext, look: _Look) -> Listing:
    job, host = context.job, context.connection.host
    job.step("listing files", unit="files")
    listing = Listing()
    command = Command(find_command(look.root, include_cache=context.include_cache), as_user=look.as_user)
    with context.connection.start(command) as process:
        forget = job.on_cancel(process.terminate)
        try:
            for count, listed in enumerate(parse_records(_chunks(process)), 1):
                if listed.kind == "u" and not listed.path:
                    raise _unreadable(look, host)
                listing.add(listed)
                if count % 1000 == 0:
                    job.check_cancelled()
                    job.advance(1000)
            status = process.wait(timeout=60)
            said = process.stderr_tail()
        except (MastovaultError, TimeoutError):
            job.check_cancelled()
            raise
        finally:
            forget()
    job.check_cancelled()
    # 1 is GNU find's "something could not be looked at": a file that vanished meanwhile, or worse
    if status not in {0, 1}:
        raise AssetFailed(f"Listing the media on {host} broke off: {said or f'status {status}'}", "Run it again.")
    if serious := [line for line in said.splitlines() if line and "No such file or directory" not in line]:
        job.warn(f"Some directories could not be listed: {serious[-1]}")
    job.log(f"{listing.files} files, {listing.links} symbolic links, {listing.size} bytes")
    return listing


def _chunks(process: Process) -> Iterator[bytes]:
    return iter(lambda: process.read(_CHUNK), b"")


def _copy(context: BackupContext, writer: SnapshotWriter, look: _Look, listing: Listing) -> Outcome:
    job = context.job
    job.step("copying files", listing.size)
    spool = IndexSpool()
    reader = TreeReader(context.connection, look.root, look.as_user, job, spool.add)
    host = writer.id.partition("/")[0]
    packs = 0
    with closing(reader.members(listing.drain())) as members:  # ends the remote tar whatever happens
        cutter = PackCutter(members, reader.placed, PACK_BYTES)
        while pack := cutter.next_pack():
            writer.write_shared(pack_key(host, pack.id), pack, compress=False)
            packs += 1
    account = reader.account
    if account.unreadable and not account.stored:
        raise AssetFailed(
            f"None of {account.unreadable} media files on {context.connection.host} could be read as {look.reader}.",
            "Connect as the user that owns them, or set `become` for this host.",
        )
    job.step("writing the index")
    writer.write("files.ndjson", spool.source(), compress=True)
    _report(job, look, listing, reader)
    return Outcome(facts=_facts(context, listing, reader, packs))


def _report(job: Job, look: _Look, listing: Listing, reader: TreeReader) -> None:
    account = reader.account
    job.log(f"{account.stored} files stored, {account.size} bytes")
    if account.vanished:
        job.log(f"{account.vanished} files were deleted while the backup ran")
    if listing.others:
        job.log(f"{listing.others} sockets, pipes or devices left out")
    if account.unreadable:
        names = _some(account.unreadable_names, account.unreadable)
        job.warn(f"{_count(account.unreadable, 'file')} could not be read as {look.reader}: {names}")
    if listing.unreadable_count:
        names = _some(listing.unreadable, listing.unreadable_count)
        job.warn(f"{_count(listing.unreadable_count, 'directory')} could not be read as {look.reader}: {names}")
    if account.changed:
        names = _some(account.changed_names, account.changed)
        job.warn(f"{_count(account.changed, 'file')} kept changing while being read, left out: {names}")
    if listing.followed_not:
        names = _some(listing.followed_not, len(listing.followed_not))
        job.warn(f"What symbolic links to directories lead to was not copied, only the links: {names}")


def _facts(context: BackupContext, listing: Listing, reader: TreeReader, packs: int) -> dict[str, Any]:
    account = reader.account
    return {
        "kind": "local",
        "files": account.stored,
        "bytes": account.size,
        "links": account.links,
        "packs": packs,
        "cache_included": context.include_cache,
        "vanished": account.vanished,
        "unreadable": account.unreadable,
        "unreadable_directories": listing.unreadable_count,
        "changed": account.changed,
        "mastodon_version": context.installation.version,
    }


def _look(connection: Connection, installation: Installation, root: str) -> _Look:
    """Look as Mastodon's own user, who owns the files; as the login user where that is not granted."""
    own = installation.user if installation.user and connection.login_user not in {installation.user, "root"} else None
    refused = ""
    if own is not None:
        try:
            return _look_as(connection, root, own, "")
        except BecomeRefused as error:
            refused = error.sentence
    return _look_as(connection, root, None, refused)


def _look_as(connection: Connection, root: str, as_user: str | None, refused: str) -> _Look:
    answer = connection.run(Command(sh(_LOOK, root), as_user=as_user), timeout=20)
    state, lacking = "", []
    for line in lines_of(answer):
        word, _, rest = line.partition(" ")
        if word == "root":
            state = rest
        elif word in {"missing", "notgnu"}:
            lacking.append(rest)
    if state not in {"ok", "unreadable", "nodirectory", "absent"}:
        raise CommandFailed(
            f"Looking at {clean(root, 200)} on {connection.host} failed with status {answer.status}.",
            "Log in by hand and check that a POSIX shell answers.",
            status=answer.status,
            stderr=clean(answer.stderr, lines=True),
        )
    reader = as_user or connection.login_user
    return _Look(root, as_user, clean(reader, 40), state, tuple(dict.fromkeys(lacking)), refused)


def _trouble(look: _Look, host: str) -> AssetFailed | None:
    shown = clean(look.root, 200)
    if look.state == "absent":
        return AssetFailed(
            f"The media directory {shown} is not on {host}, or {look.reader} may not see it.",
            "Check PAPERCLIP_ROOT_PATH in .env.production, and that its disk is mounted.",
        )
    if look.state == "nodirectory":
        return AssetFailed(f"{shown} on {host} is no directory.", "Check PAPERCLIP_ROOT_PATH in .env.production.")
    if look.state == "unreadable":
        return _unreadable(look, host)
    if look.lacking:
        return AssetFailed(
            f"{host} lacks GNU {', '.join(clean(name, 20) for name in look.lacking)}, needed to read the media.",
            "Install the packages findutils, tar and coreutils there.",
        )
    return None


def _unreadable(look: _Look, host: str) -> AssetFailed:
    return AssetFailed(
        f"The media directory {clean(look.root, 200)} on {host} cannot be read as {look.reader}.",
        look.refused or "Connect as the user that owns it, or set `become` for this host.",
    )


def _unknown(host: str) -> AssetFailed:
    return AssetFailed(f"Where {host} keeps its media is not known.", "Run `mastovault host probe` for this host.")


def _estimate(connection: Connection, look: _Look) -> int | None:
    """Bytes of the tree without `cache/` when they are counted within five seconds."""
    command = Command(sh(_SIZE, look.root, str(_SIZE_SECONDS)), as_user=look.as_user)
    try:
        answer = connection.run(command, timeout=_SIZE_SECONDS + 5)
    except CommandFailed:
        return None
    digits = answer.stdout.strip()
    return int(digits) if answer.status == 0 and digits.isdigit() and len(digits) < 19 else None


def _root(place: MediaPlace | None) -> str | None:
    return place.path if place is not None and place.path else None


def _some(names: Sequence[bytes], count: int) -> str:
    shown = ", ".join(clean(name, 120) for name in names[:_NAMES_SHOWN])
    return f"{shown} and {count - _NAMES_SHOWN} more" if count > _NAMES_SHOWN else shown


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


HANDLER = MediaAsset()
