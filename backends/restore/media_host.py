"""Where a media tree is restored to, and long commands there: fed and followed at once, ended by a cancel."""

from __future__ import annotations

import posixpath
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from backends.assets.media_listing import Listing, find_command, parse_records
from backends.connection.base import Command, Connection, Process
from backends.errors import AssetFailed, Cancelled, MastovaultError
from backends.progress import Job
from backends.untrusted import clean

_CHUNK = 256 * 1024


class TookTooLong(Exception):
    """Something was not done by its time; only what looks gives one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files go, as whom, and what of the tree is compared. Goes through JSON; nothing secret is in it."""

    root: str
    """The live tree, without symbolic links as far as it exists."""
    anchor: str
    """The directory that is there already: the root itself, or one that it will lie in."""
    beside: str
    """The directory on the same file system in which files are staged and kept aside."""
    as_user: str | None
    owner: str
    """`uid:gid` of Mastodon's user: for what has no owner on the target."""
    user: str
    keep_owners: bool
    """Commands run as root: each file gets its own owner."""
    perl: bool
    include_cache: bool
    subtree: str
    since: int
    """When the snapshot began, in nanoseconds since 1970."""
    loosen: bool
    """Files that are closed to others may be opened again: the database comes back with them."""
    exact: bool
    mark: str
    files: int = 0
    bytes: int = 0

    @property
    def staging(self) -> str:
        """Where files are staged."""
        return posixpath.join(self.beside, f".mastovault-restore-{self.mark}")

    @property
    def before(self) -> str:
        """Where replaced files are kept."""
        return posixpath.join(self.beside, f".mastovault-before-{self.mark}")

    def to_facts(self) -> dict[str, object]:
        """As JSON values."""
        return asdict(self)


_PLACE = TypeAdapter(Place)


def place_from(facts: Mapping[str, Any]) -> Place:
    """The place again. Raises `AssetFailed` when the facts are not what `to_facts` gave."""
    try:
        return _PLACE.validate_python(dict(facts))
    except ValidationError:
        raise AssetFailed(
            "what was noted about the media for this restore cannot be read", "Start the restore again."
        ) from None


def list_tree(
    connection: Connection, place: Place, job: Job, directory: str = "", *, until: float | None = None
) -> Listing:
    """All files of the live tree (or of another directory, whole), in memory sorted by path.

    Args:
        connection: the target.
        place: which tree, and what of it.
        job: advances by each file.
        directory: another directory than the live root.
        until: on the clock of `time.monotonic`, when to give up.

    Raises:
        TookTooLong: it was not done by then.
        AssetFailed: it cannot be listed.
    """
    argv = find_command(
        directory or place.root,
        include_cache=bool(directory) or place.include_cache,
        below="" if directory else place.subtree,
    )
    listing = Listing()
    going = exchange(connection, job, Command(argv, as_user=place.as_user))
    ended: list[tuple[int, str]] = []
    try:
        for count, listed in enumerate(parse_records(_ending(going, ended)), 1):
            listing.add(listed)
            if count % 1000 == 0:
                job.advance(1000)
                job.check_cancelled()
                if until is not None and time.monotonic() > until:
                    raise TookTooLong
    finally:
        going.close()
    status, said = ended[0]
    if status == 9 and not directory:
        return Listing()  # there is no root yet
    if status not in {0, 1}:
        raise AssetFailed(
            f"listing the media on {connection.host} broke off: {last_line(said) or f'status {status}'}", "Try again."
        )
    return listing


def _ending(
    going: Generator[bytes, None, tuple[int, str]], ended: list[tuple[int, str]]
) -> Generator[bytes, None, None]:
    ended.append((yield from going))


def exchange(
    connection: Connection, job: Job, command: Command, chunks: Iterable[bytes] = ()
) -> Generator[bytes, None, tuple[int, str]]:
    """Run a command: give it `chunks` on its stdin, yield its stdout, return its status and the end of its stderr.

    Raises:
        Cancelled: the job was; the command is ended.
        ConnectionFailed: the connection was lost.
        MastovaultError: whatever `chunks` raised; the command is ended.
    """
    with connection.start(command) as process:
        forget = job.on_cancel(process.terminate)
        feeder = _Feeder(process, chunks)
        try:
            while data := process.read(_CHUNK):
                yield data
            feeder.join()
            status = process.wait()
        except MastovaultError as error:
            process.terminate()
            feeder.join(quiet=True)
            job.check_cancelled()
            if feeder.error is not None and isinstance(error, Cancelled):  # it ended the command: see there why
                raise feeder.error from None
            raise
        finally:
            forget()
            process.terminate()
            feeder.join(quiet=True)
        job.check_cancelled()
        return status, process.stderr_tail()


class _Feeder:
    """Writes to a command from a thread of its own: it may stop reading until its output is taken."""

    def __init__(self, process: Process, chunks: Iterable[bytes]) -> None:
        self.error: BaseException | None = None
        self._process, self._chunks = process, chunks
        self._thread = threading.Thread(target=self._feed, name="media-feed", daemon=True)
        self._thread.start()

    def join(self, *, quiet: bool = False) -> None:
        """Wait until all is told. Raises what kept it from being told."""
        self._thread.join()
        if self.error is not None and not quiet:
            raise self.error

    def _feed(self) -> None:
        telling = iter(self._chunks)
        try:
            held = bytearray()
            for chunk in telling:
                held += chunk  # small pieces would each cost a packet and a turn of the far end
                if len(held) >= _CHUNK:
                    self._process.write(bytes(held))
                    held.clear()
            self._process.write(bytes(held))
            self._process.close_stdin()
        except OSError:
            pass  # it takes no more; its status says why
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that reads
            self.error = error
            self._process.terminate()
        finally:
            if isinstance(telling, Generator):
                telling.close()


def carry(
    connection: Connection,
    job: Job,
    command: Command,
    chunks: Iterable[bytes] = (),
    line: Callable[[str], None] = lambda _line: None,
) -> tuple[int, str]:
    """Run a command to its end whatever it takes; `line` is told each line of its output. As `exchange`."""
    going = exchange(connection, job, command, chunks)
    ended: list[tuple[int, str]] = []
    rest = b""
    for data in _ending(going, ended):
        *lines, rest = (rest + data).split(b"\n")
        for each in lines:
            line(clean(each, 500))
    return ended[0]


def failed(what: str, host: str, where: str, said: str, status: int) -> AssetFailed:
    """Why a command on the target failed, as one sentence and the next step."""
    last = last_line(said) or f"status {status}"
    if "No space left on device" in said or "quota" in last.lower():
        return AssetFailed(
            f"there is no room left for the media at {clean(where, 200)} on {host}",
            "Make room there (or inodes: df -i), then restore again.",
        )
    if "Read-only file system" in said:
        return AssetFailed(f"{clean(where, 200)} on {host} is read-only", "Mount it writable, then restore again.")
    if "Permission denied" in said or "Operation not permitted" in said:
        return AssetFailed(
            f"{what} on {host} was refused: {last}",
            "Connect as the user that owns the media, or set `become` for this host.",
        )
    return AssetFailed(f"{what} on {host} failed: {last}", "Look at the host, then restore again.")


def last_line(said: str) -> str:
    """The last line of what a command said, shown."""
    lines = [line for line in said.splitlines() if line.strip()]
    return clean(lines[-1], 300).strip() if lines else ""


def names(paths: Iterator[bytes] | Iterable[bytes], count: int) -> str:
    """A few names, and how many more there are."""
    shown = [clean(path, 100) for path in paths]
    more = count - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def amount(number: int, noun: str = "file") -> str:
    """`1 file`, `2 files`, `3 directories`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def size_of(count: int) -> str:
    """Bytes for people: `1.5 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
