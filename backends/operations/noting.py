"""What a backup notes on its way: warnings for the manifest, and what was begun, in case the run is killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.snapshot import SnapshotWriter, Source
from backends.model import Secret
from backends.progress import Job
from backends.untrusted import clean


class NotingJob:
    """A job that also remembers its warnings."""

    def __init__(self, inner: Job) -> None:
        self._inner = inner
        self.warnings: list[str] = []

    @property
    def id(self) -> str:
        """The job's name within its run."""
        return self._inner.id

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin the next step."""
        self._inner.step(name, total, unit)

    def advance(self, amount: int) -> None:
        """Count what is done in this step."""
        self._inner.advance(amount)

    def log(self, line: str) -> None:
        """Add a line to the log."""
        self._inner.log(line)

    def warn(self, text: str) -> None:
        """Say that something was left out, and remember it for the manifest."""
        self.warnings.append(clean(text))
        self._inner.warn(text)

    def forget_warnings(self) -> None:
        """Start over: what the next attempt leaves out is said again."""
        self.warnings.clear()

    def begin(self, key: str) -> None:
        """Leave a trace of something that exists only when the snapshot commits."""
        note = getattr(self._inner, "begin", None)
        if note is not None:
            note(key)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the job is cancelled."""
        return self._inner.on_cancel(callback)

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when the operator asked to stop."""
        self._inner.check_cancelled()

    def ask(self, prompt: str) -> Secret | None:
        """Ask the operator."""
        return self._inner.ask(prompt)


class RecordingWriter:
    """A `SnapshotWriter` that leaves a trace of every shared object before it is written."""

    def __init__(self, inner: SnapshotWriter, job: NotingJob) -> None:
        self._inner, self._job = inner, job

    @property
    def id(self) -> str:
        """The snapshot's id."""
        return self._inner.id

    def write(
        self, name: str, source: Source, *, compress: bool, already: tuple[Literal["zstd"], ...] = ()
    ) -> ObjectEntry:
        """Store an object of this snapshot."""
        return self._inner.write(name, source, compress=compress, already=already)

    def write_shared(self, key: str, source: Source, *, compress: bool) -> ObjectEntry:
        """Store an object under a key of its own."""
        self._job.begin(key)
        return self._inner.write_shared(key, source, compress=compress)

    def refer(self, entries: Sequence[ObjectEntry]) -> None:
        """Count existing shared objects as part of this snapshot."""
        self._inner.refer(entries)

    def commit(self, facts: Mapping[str, Any], *, warnings: Sequence[str] = ()) -> Manifest:
        """Write the manifest."""
        return self._inner.commit(facts, warnings=warnings)

    def discard(self) -> None:
        """Remove everything that was written."""
        self._inner.discard()
