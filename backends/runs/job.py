"""A job within its run: counts what is done, publishes it a few times a second, carries the cancel switch."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from backends.errors import Cancelled
from backends.model import Asset, JobResult, JobSnapshot, JobState, Secret, utc_now
from backends.runs.events import EventWriter, log_events, progress_event, result_event, step_event
from backends.untrusted import clean

PROGRESS_SECONDS = 0.25
LOG_SECONDS = 0.1
_RATE_SECONDS = 5.0

Ask = Callable[[str, str, Callable[[], bool]], Secret | None]
"""Job, prompt, and whether the job was cancelled meanwhile."""


class RunJob:
    """One asset's part of a run; a `backends.progress.Job`."""

    def __init__(self, host: str, asset: Asset, events: EventWriter, ask: Ask) -> None:
        self.asset = asset
        self._host, self._events, self._ask = host, events, ask
        self._lock = threading.RLock()
        self._cancelled = threading.Event()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._lines: list[tuple[datetime, str, str]] = []
        self._state = JobState.QUEUED
        self._step, self._unit = "", "bytes"
        self._done = 0
        self._total: int | None = None
        self._marks: deque[tuple[float, int]] = deque()
        self._changed = True
        self._published = 0.0

    @property
    def id(self) -> str:
        """The asset's name: a run has one job for each asset."""
        return self.asset.value

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin the next step."""
        with self._lock:
            if self._state is JobState.QUEUED:
                self._state = JobState.RUNNING
            elif self._state is JobState.CANCELLED:
                # It was cancelled in the moment in which its turn came: it has something to clean up after all.
                self._state = JobState.CANCELLING
            self._step, self._total, self._unit, self._done = clean(name, 200), total, unit, 0
            self._marks = deque([(time.monotonic(), 0)])
            self._changed = True
        self.publish()

    def advance(self, amount: int) -> None:
        """Count what is done in this step."""
        with self._lock:
            self._done += amount
            self._changed = True

    def log(self, line: str) -> None:
        """Add a line to the log; written with the next batch."""
        with self._lock:
            self._lines += [(utc_now(), self.id, text) for text in clean(line, lines=True).split("\n")]

    def warn(self, text: str) -> None:
        """Log what was left out; the backup remembers it for the manifest."""
        self.log(f"warning: {text}")

    def begin(self, key: str) -> None:
        """Leave a trace of something that exists only when the snapshot commits; see `recover`."""
        self._events.write({"event": "begun", "job": self.id, "key": key})

    def mark(self, step: str, state: str) -> None:
        """Say what became of one step of a plan; see `events.step_event`."""
        self._events.write(step_event(step, state))

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back on cancel; at once when that was before."""
        with self._lock:
            number = next(self._numbers)
            self._callbacks[number] = callback
            late = self._cancelled.is_set()
        if late:
            callback()
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._callbacks.pop(number, None)

    @property
    def cancelled(self) -> bool:
        """Whether the operator asked to stop."""
        return self._cancelled.is_set()

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when the operator asked to stop."""
        if self._cancelled.is_set():
            raise Cancelled

    def ask(self, prompt: str) -> Secret | None:
        """Ask the operator, wherever a screen follows this run."""
        return self._ask(self.id, prompt, self._cancelled.is_set)

    def cancel(self) -> None:
        """Ask the job to stop; its state says CANCELLING until it really has. One that has not begun has at once."""
        with self._lock:
            if self._state.ended or self._cancelled.is_set():
                return
            self._cancelled.set()
            self._state = JobState.CANCELLED if self._state is JobState.QUEUED else JobState.CANCELLING
            self._changed = True
            callbacks = list(self._callbacks.values())
        self.publish(now=True)
        for callback in callbacks:
            # Ending remote processes may take seconds, and one must not wait for the other.
            threading.Thread(target=callback, daemon=True).start()

    def finish(self, result: JobResult) -> None:
        """Publish how it ended: the last thing that is heard of this job."""
        with self._lock:
            self._state = result.state
            self._changed = True
        for text in (result.error, result.next_step):
            if text:
                self.log(text)
        self.flush_log()
        self._events.write(result_event(result))
        self.publish(now=True)

    def snapshot(self) -> JobSnapshot:
        """How far it is now."""
        with self._lock:
            return JobSnapshot(
                id=self.id,
                host=self._host,
                asset=self.asset,
                state=self._state,
                step=self._step,
                done=self._done,
                total=self._total,
                rate=self._rate(),
                unit=self._unit,
            )

    def publish(self, *, now: bool = False) -> None:
        """Write a progress event when there is news, at most four times a second unless `now`."""
        with self._lock:
            moment = time.monotonic()
            if self._changed and (now or moment - self._published >= PROGRESS_SECONDS):
                self._changed, self._published = False, moment
                self._events.write(progress_event(self.snapshot()))

    def flush_log(self) -> None:
        """Write the lines that wait."""
        with self._lock:
            lines, self._lines = self._lines, []
            for event in log_events(lines):
                self._events.write(event)

    def _rate(self) -> float | None:
        """What was done per second in the last seconds."""
        now = time.monotonic()
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_SECONDS:
            self._marks.popleft()
        began, done = self._marks[0]
        return (self._done - done) / (now - began) if now - began > PROGRESS_SECONDS else None


class Publisher:
    """Publishes the jobs of a run while they work."""

    def __init__(self, jobs: list[RunJob]) -> None:
        self._jobs = jobs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Publish what is left and end."""
        self._stop.set()
        self._thread.join()
        for job in self._jobs:
            job.flush_log()
            job.publish(now=True)

    def _loop(self) -> None:
        while not self._stop.wait(LOG_SECONDS):
            for job in self._jobs:
                job.flush_log()
                job.publish()
