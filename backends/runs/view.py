"""What the app and the commands see of runs, wherever they were begun: values read from the run folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from backends.model import JobResult, JobSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something a run needs to know (a password, a passphrase); answered over its control socket."""

    id: str
    job: str
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a job's log, cleaned."""

    at: datetime
    job: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run as its folder tells it. `lost` means its process is gone without having said how it ended."""

    id: str
    kind: str
    host: str
    begun_at: datetime
    pid: int
    alive: bool
    lost: bool
    ended_at: datetime | None = None
    jobs: tuple[JobSnapshot, ...] = ()
    results: tuple[JobResult, ...] = ()
    questions: tuple[Question, ...] = field(default_factory=tuple)
    steps: tuple[tuple[str, str], ...] = ()
    """Steps of its plan by id that have begun, in order, and what became of each: `events.step_event`."""
    who: str = ""
    """The user who began it."""
    restore: str = ""
    """The restore that it carries out or takes back, by its id; empty for other kinds."""
    what: str = ""
    """What an `undo` run does about it: `undo`, `resume`, `rollback` or `forget`."""

    @property
    def active(self) -> bool:
        """Whether there is still something to wait for."""
        return self.alive and self.ended_at is None
