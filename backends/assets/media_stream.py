"""Files of a media tree as one stream of tar members, with an exact account of what could not be read.

GNU tar gets the names over stdin and writes the archive to stdout; nothing is spooled on the host. tar fills a file
that shrank or could not be read to its end with zeros, so whatever it was unhappy with is compared by SHA-256 on the
host, and read once more when it differs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from backends.archive.file_index import IndexEntry
from backends.archive.packs import Member, Placed, TarTorn, read_members
from backends.assets.media_listing import Listed
from backends.connection.base import Command, Connection, Process, sh
from backends.errors import AssetFailed, MastovaultError
from backends.progress import Job
from backends.untrusted import clean

BATCH_FILES = 16 * 1024
BATCH_BYTES = 512 * 1024 * 1024
_ASK_AT_ONCE = 2000
_FEED = 32 * 1024
_FRESH_SECONDS = 600
_TAR_DONE = frozenset({0, 1, 2})
"""0 all well, 1 some files changed, 2 some files could not be read (GNU tar manual, "Return status")."""

TAR_COMMAND = (
    "tar --create --file=- --format=gnu --no-recursion --hard-dereference --blocking-factor=128 --null --no-unquote "
    "--files-from=-"
)
_TAR = f'cd -- "$1" || exit 9; export LC_ALL=C; exec {TAR_COMMAND}'
_EXISTING = (
    'cd -- "$1" || exit 9; exec xargs -0 -r sh -c '
    '\'for name; do if [ -e "$name" ] || [ -h "$name" ]; then printf "%s\\\\0" "$name"; fi; done\' sh'
)
_HASHES = 'cd -- "$1" || exit 9; export LC_ALL=C; exec xargs -0 -r sha256sum -z --'


@dataclass(slots=True)
class Account:
    """What became of the files that were listed. Lists hold the first thousand names."""

    stored: int = 0
    links: int = 0
    size: int = 0
    """Bytes of all that is stored."""
    vanished: int = 0
    unreadable: int = 0
    changed: int = 0
    unreadable_names: list[bytes] = field(default_factory=list)
    changed_names: list[bytes] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def count_unreadable(self, names: Sequence[bytes]) -> None:
        """Count files that are there but could not be read."""
        self.unreadable += len(names)
        self.unreadable_names += names[: 1000 - len(self.unreadable_names)]

    def count_changed(self, names: Sequence[bytes]) -> None:
        """Count files that changed each time they were read."""
        self.changed += len(names)
        self.changed_names += names[: 1000 - len(self.changed_names)]


class TreeReader:
    """Reads the listed files of one tree, batch by batch.

    `members` yields them for a `PackCutter`, which reports back through `placed`; what is really stored goes to
    `indexed`, in order of the paths, once its batch has been settled.
    """

    def __init__(
        self, connection: Connection, root: str, as_user: str | None, job: Job, indexed: Callable[[IndexEntry], None]
    ) -> None:
        self.account = Account()
        self._connection = connection
        self._root = root
        self._as_user = as_user
        self._job = job
        self._indexed = indexed
        self._placed: dict[bytes, Placed] = {}
        self._doubtful: set[bytes] = set()
        self._now = 0.0

    def members(self, listing: Iterable[Listed]) -> Generator[Member, None, None]:
        """Every file that can be read, in order; one that changed while it was read comes once more."""
        for batch in batches(listing, files=BATCH_FILES, size=BATCH_BYTES):
            yield from self._batch({one.path: one for one in batch})

    def placed(self, placed: Placed) -> None:
        """Where a member ended up; the last word counts."""
        self._placed[placed.path] = placed

    def _batch(self, batch: dict[bytes, Listed]) -> Iterator[Member]:
        pending = list(batch)
        for last_try in (False, True):
            self._now = time.time()
            status = yield from self._stream(pending, batch)
            pending = self._settle(status, pending, last_try=last_try)
            if not pending:
                break
        for path in sorted(self._placed):
            self._index(self._placed[path], batch[path])
        self._placed.clear()

    def _stream(self, names: Sequence[bytes], batch: dict[bytes, Listed]) -> Generator[Member, None, int]:
        """One tar over `names`; returns its exit status."""
        self._doubtful.clear()
        command = Command(sh(_TAR, self._root), as_user=self._as_user)
        with self._connection.start(command) as process, self._explained(process):
            forget = self._job.on_cancel(process.terminate)
            feeder = _Feeder(process, names)
            try:
                waiting = iter(names)
                for member in read_members(process):
                    path = member.path
                    if not any(path == name for name in waiting):  # moves on to the name, past those that are missing
                        raise TarTorn(f"tar sent a file that was not asked for: {clean(path, 80)}")
                    yield Member(member.info, self._content(process, member, batch[path]))
                feeder.join()
                status = process.wait(timeout=60)
            finally:
                forget()
            self._job.check_cancelled()
            if status not in _TAR_DONE:
                raise TarTorn(f"tar ended with status {status}")
            if status:
                self._remember(process.stderr_tail())
        return status

    @contextmanager
    def _explained(self, process: Process) -> Iterator[None]:
        """Turn a stream that broke off into one sentence, or into `Cancelled` when that is why."""
        try:
            yield
        except (TarTorn, TimeoutError) as error:
            self._job.check_cancelled()
            said = process.stderr_tail().strip().splitlines()
            raise AssetFailed(
                f"Reading the media from {self._connection.host} broke off: "
                f"{said[-1] if said else str(error) or 'tar does not end'}.",
                "Nothing was stored; run the backup again.",
            ) from error
        except MastovaultError:
            self._job.check_cancelled()  # a lost stream is how a cancel looks from here
            raise

    def _remember(self, said: str) -> None:
        for line in said.splitlines():
            if line and len(self.account.complaints) < 20:
                self.account.complaints.append(line)
                self._job.log(f"tar: {line}")

    def _content(self, process: Process, member: Member, listed: Listed) -> Iterator[bytes]:
        """The member's bytes, counted. It runs while `_stream` waits, so it explains its own faults."""
        chunk = b""
        with self._explained(process):
            for chunk in member.content:
                self._job.advance(len(chunk))
                self._job.check_cancelled()
                yield chunk
        info = member.info
        seconds = listed.mtime // 1_000_000_000
        fresh = self._now - seconds < _FRESH_SECONDS
        if not info.issym() and (chunk[-1:] == b"\0" or info.size != listed.size or info.mtime != seconds or fresh):
            self._doubtful.add(listed.path)

    def _settle(self, status: int, names: Sequence[bytes], *, last_try: bool) -> list[bytes]:
        """Count what is missing or wrong; returns what should be read once more."""
        missing = [name for name in names if name not in self._placed]
        there = self._existing(missing)
        self.account.count_unreadable([name for name in missing if name in there])
        self.account.vanished += len(missing) - len(there)
        if not status or not self._doubtful:
            return []
        doubtful = sorted(self._doubtful)
        hashes = self._hashes(doubtful)
        wrong = [name for name in doubtful if hashes.get(name) != self._placed[name].sha256]
        for name in wrong:
            del self._placed[name]
        there = self._existing([name for name in wrong if name not in hashes])
        self.account.count_unreadable(sorted(there))
        self.account.vanished += sum(name not in hashes and name not in there for name in wrong)
        differing = [name for name in wrong if name in hashes]
        if last_try:
            self.account.count_changed(differing)
            return []
        return differing

    def _index(self, placed: Placed, listed: Listed) -> None:
        same_second = listed.mtime // 1_000_000_000 == placed.mtime
        mtime = listed.mtime if same_second else placed.mtime * 1_000_000_000
        self._indexed(
            IndexEntry(
                placed.path,
                placed.size,
                mtime,
                placed.mode,
                placed.sha256,
                placed.pack,
                placed.offset,
                placed.link,
            )
        )
        self.account.stored += 1
        self.account.links += placed.link is not None
        self.account.size += placed.size

    def _existing(self, names: Sequence[bytes]) -> set[bytes]:
        return {record.removeprefix(b"./") for record in self._ask(_EXISTING, names)}

    def _hashes(self, names: Sequence[bytes]) -> dict[bytes, str]:
        """SHA-256 of each file that can be read on the host, as `sha256sum -z` says it (`hash  name`)."""
        records = (record.partition(b"  ") for record in self._ask(_HASHES, names))
        return {name.removeprefix(b"./"): digest.decode("ascii", "replace") for digest, _, name in records}

    def _ask(self, script: str, names: Sequence[bytes]) -> Iterator[bytes]:
        for start in range(0, len(names), _ASK_AT_ONCE):
            self._job.check_cancelled()
            command = Command(sh(script, self._root), as_user=self._as_user)
            told = b"".join(b"./%b\0" % name for name in names[start : start + _ASK_AT_ONCE])
            answer = self._connection.run(command, stdin=told, timeout=3600)
            yield from filter(None, answer.stdout.split(b"\0"))


class _Feeder:
    """Writes the names to tar from a thread of its own: tar may stop reading them until its output is taken."""

    def __init__(self, process: Process, names: Sequence[bytes]) -> None:
        self._process = process
        self._names = names
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._feed, name="media-names", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until all names are told. Raises `TarTorn` when tar stopped listening before."""
        self._thread.join()
        if isinstance(self._error, MastovaultError):
            raise self._error
        if self._error is not None:
            raise TarTorn("tar stopped before it had all names") from self._error

    def _feed(self) -> None:
        try:
            told = bytearray()
            for name in self._names:
                told += b"./%b\0" % name
                if len(told) >= _FEED:
                    self._process.write(bytes(told))
                    told.clear()
            self._process.write(bytes(told))
            self._process.close_stdin()
        except (OSError, ValueError, MastovaultError) as error:
            self._error = error


def batches(listing: Iterable[Listed], *, files: int, size: int) -> Iterator[list[Listed]]:
    """Split a listing so that one batch has at most so many files and, but for a single larger file, bytes."""
    remaining = iter(listing)
    while batch := list(islice(remaining, 1)):
        weight = batch[0].size
        for listed in remaining:
            batch.append(listed)
            weight += listed.size
            if len(batch) >= files or weight >= size:
                break
        yield batch
