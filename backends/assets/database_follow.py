"""What pg_dump says while it works: progress table by table, lines for the log, how each stage ended."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping

from backends.progress import Job
from backends.untrusted import clean

_MAX_LINE = 4000
_KEPT_ERRORS = 20
# `pg_dump --verbose` writes a few lines for each of Mastodon's 116 tables; a hostile host could write any number.
_MAX_LOGGED = 2000
_TABLE = re.compile(r'dumping contents of table "(.+)"$')
_SERIOUS = re.compile(r"\b(?:error|fatal|panic|warning|detail|hint|killed|terminated)\b", re.IGNORECASE)
_QUIET = re.compile(r"pg_dump: (?:finding |flagging |reading |identifying |processing )")


class LineSplitter:
    """Makes lines of pieces that arrive in any length; what is longer than a line may be is cut."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line[:_MAX_LINE].decode("utf-8", "replace").rstrip("\r"))
        self._rest = self._rest[:_MAX_LINE]

    def finish(self) -> None:
        """Take what is left without a line feed."""
        if self._rest:
            self._take(self._rest.decode("utf-8", "replace"))
            self._rest = b""


class TableProgress:
    """Turns `table begun` and `bytes arrived` into a smooth advance over the tables' sizes."""

    def __init__(self, sizes: Mapping[str, int], advance: Callable[[int], None], *, guess: float) -> None:
        self._sizes = sizes
        self._advance = advance
        self._ratio = guess
        self._finished = 0
        self._streamed_finished = 0
        self._streamed = 0
        self._table: str | None = None
        self._shown = 0
        self._lock = threading.Lock()

    def begin_table(self, name: str) -> None:
        """A table's contents begin; the one before is whole."""
        with self._lock:
            if self._table is not None:
                self._finished += self._sizes.get(self._table, 0)
                self._streamed_finished = self._streamed
                # A few small tables say little about how much smaller a stream is than its tables
                if self._finished > 16 * 1024 * 1024 and self._streamed_finished:
                    self._ratio = self._finished / self._streamed_finished
            self._table = name
            self._show(self._finished)

    def arrived(self, count: int) -> None:
        """Bytes of the stream have come."""
        with self._lock:
            self._streamed += count
            if self._table is not None:
                size = self._sizes.get(self._table, 0)
                within = (self._streamed - self._streamed_finished) * self._ratio
                self._show(self._finished + int(min(within, size * 0.98)))

    def end(self) -> None:
        """The dump is whole."""
        with self._lock:
            self._show(sum(self._sizes.values()))

    def _show(self, done: int) -> None:
        if done > self._shown:
            self._advance(done - self._shown)
            self._shown = done


class Follower:
    """Listens to the stderr of a dump."""

    def __init__(self, job: Job, progress: TableProgress, marker: str) -> None:
        self._job = job
        self._progress = progress
        self._marker = marker
        self._splitter = LineSplitter(self._line)
        self._logged = 0
        self.statuses: dict[str, int] = {}
        self.said: list[str] = []

    def feed(self, data: bytes) -> None:
        """The next piece of stderr; called from a thread of the connection."""
        self._splitter.feed(data)

    def finish(self) -> None:
        """Stderr has ended."""
        self._splitter.finish()

    def _line(self, line: str) -> None:
        if line.startswith(self._marker):
            words = line[len(self._marker) :].split()
            for name, status in zip(words[::2], words[1::2], strict=False):
                if status.isascii() and status.isdigit():
                    self.statuses[name] = int(status)
            return
        if table := _TABLE.search(line):
            self._progress.begin_table(table[1])
        if not line.strip():
            return
        serious = bool(_SERIOUS.search(line))
        if serious and not table:
            self.said = [*self.said, clean(line, 500)][-_KEPT_ERRORS:]
        if serious or not _QUIET.match(line):
            self._log(line)

    def _log(self, line: str) -> None:
        self._logged += 1
        if self._logged <= _MAX_LOGGED:
            self._job.log(line)
        elif self._logged == _MAX_LOGGED + 1:
            self._job.log("… and more lines, left out")
