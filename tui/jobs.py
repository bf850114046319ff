"""Runs as the screens list them: one entry a job, running first, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backends.model import Asset, JobResult, JobSnapshot, JobState
from backends.runs.view import Question, RunView
from tui.widgets import say
from tui.widgets.text import Piece

RECENT = timedelta(minutes=10)
PLAN = "plan"
"""The kind of run that only looks, for the wizard; it is no job of the operator's."""
CHANGING = frozenset({"backup", "restore", "undo", "prune", "rewrap"})
"""Kinds of which only one works on an asset at a time."""
ON_VAULTS = frozenset({"sync", "prune", "rewrap"})
"""Kinds that move what is stored, without a host."""
_ORDER = {JobState.CANCELLING: 0, JobState.RUNNING: 0, JobState.QUEUED: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """One job of one run. `lost` means its process is gone and never said how the job ended."""

    key: str
    run: RunView
    job: JobSnapshot
    result: JobResult | None
    question: Question | None = None

    @property
    def lost(self) -> bool:
        """Whether the job can never end by itself any more."""
        return not self.job.state.ended and not self.run.active

    @property
    def active(self) -> bool:
        """Whether there is still something to wait for."""
        return not self.job.state.ended and self.run.active

    @property
    def target(self) -> str:
        """`host/asset`."""
        return f"{self.job.host}/{self.job.asset}"

    @property
    def what(self) -> str:
        """What it does, in a word."""
        return self.run.what or self.run.kind

    @property
    def log(self) -> str | None:
        """The job whose log is shown: its own; of a restore all, for its steps follow each other."""
        return None if self.run.kind in {"restore", "undo"} else self.job.id

    @property
    def number(self) -> str:
        """The short end of the run's id, as the commands take it too."""
        return short(self.run.id)


def short(run: str) -> str:
    """The last letters of a run's id, enough to tell it from its neighbours."""
    return run[-4:]


def entries(runs: Sequence[RunView], *, plans: bool = False) -> tuple[JobEntry, ...]:
    """Every job: running and waiting ones first, then the ended ones, newest first; looks only with `plans`."""
    made = [_entry(run, job) for run in runs if plans or run.kind != PLAN for job in run.jobs]
    made.sort(key=lambda entry: entry.run.begun_at, reverse=True)
    # Python's sort is stable, so those that run stay newest first among themselves.
    made.sort(key=lambda entry: _ORDER.get(entry.job.state, 2) if entry.active else 2)
    return tuple(made)


def _entry(run: RunView, job: JobSnapshot) -> JobEntry:
    result = next((one for one in run.results if one.host == job.host and one.asset is job.asset), None)
    question = next((one for one in run.questions if one.job == job.id), None)
    return JobEntry(key=f"{run.id}/{job.id}", run=run, job=job, result=result, question=question)


def at_work(found: Iterable[JobEntry]) -> Mapping[tuple[str, Asset], JobEntry]:
    """The job that is at work on each asset."""
    return {(entry.job.host, entry.job.asset): entry for entry in reversed(list(found)) if entry.active}


def strip_of(found: Sequence[JobEntry], now: datetime) -> tuple[JobEntry, ...]:
    """What the strip under the fleet shows: what runs, and what ended in the last minutes."""
    return tuple(entry for entry in found if entry.run.active or _just_ended(entry.run, now))


def _just_ended(run: RunView, now: datetime) -> bool:
    return run.ended_at is not None and now - run.ended_at < RECENT


def tally(found: Sequence[JobEntry]) -> str:
    """`2 running, 1 queued`; empty when nothing goes on."""
    active = [entry for entry in found if entry.active]
    queued = sum(entry.job.state is JobState.QUEUED for entry in active)
    parts = [(len(active) - queued, "running"), (queued, "queued")]
    return ", ".join(f"{number} {word}" for number, word in parts if number)


def percent(job: JobSnapshot) -> int | None:
    """How much of the current step is done; None when its size is not known."""
    return min(100, max(0, job.done) * 100 // job.total) if job.total else None


def left(job: JobSnapshot) -> float | None:
    """Seconds left in the current step; None when nobody can say."""
    if not job.total or not job.rate or job.done > job.total:
        return None
    return (job.total - job.done) / job.rate


def amount(job: JobSnapshot) -> str:
    """How much is done, with its unit: `3.0G of 7.1G`, `48 210 files`."""
    if job.unit == "bytes":
        done = say.size(job.done)
        return f"{done} of {say.size(job.total)}" if job.total else done
    done = say.count(job.done)
    return f"{done} of {say.count(job.total)} {job.unit}" if job.total else f"{done} {job.unit}"


def state(entry: JobEntry) -> Piece:
    """The word for where a job is, with its sign."""
    if entry.question is not None:
        return "ASKS ?", "flag"
    if entry.lost:
        return "LOST ✗", "bad"
    match entry.job.state:
        case JobState.QUEUED:
            return "QUEUED", "quiet"
        case JobState.CANCELLING:
            return "CANCELLING…", "warn"
        case JobState.DONE if entry.result is not None and entry.result.in_part:
            return "IN PART •", "warn"
        case JobState.DONE:
            return "DONE ✓", "ok"
        case JobState.FAILED:
            return "FAILED ✗", "bad"
        case JobState.SKIPPED:
            return "SKIPPED –", "quiet"
        case JobState.CANCELLED:
            return "CANCELLED –", "quiet"
        case _:
            return entry.job.step or "starting", "run"


def outcome(entry: JobEntry) -> str:
    """One line about how a job ended, or why it waits."""
    result = entry.result
    if entry.question is not None:
        return f"{entry.question.prompt} (a answers)"
    if entry.lost:
        way = "; u shows how it stands" if entry.run.restore else " and never said how it ended"
        return f"its process is gone{way}"
    if entry.job.state is JobState.QUEUED:
        return "waits for its turn"
    if result is None:
        return ""
    if result.state is JobState.CANCELLED:
        return (result.error if entry.run.restore else None) or "stopped on request"
    if result.error:
        return result.error
    if entry.run.kind != "backup":
        return result.detail or (result.warnings[0] if result.warnings else f"took {say.took(result.seconds)}")
    if not result.bytes:
        if result.state is JobState.DONE:
            return "unchanged, the copy that exists is still good" if result.snapshot else "nothing to store"
        return result.warnings[0] if result.warnings else ""
    text = f"{say.size(result.bytes)} in {say.took(result.seconds)}"
    if result.vaults:
        text += f" to {', '.join(result.vaults)}"
    if result.in_part:
        text += f", {len(result.warnings)} left out" if result.warnings else ", in part"
    return text


def cancelling(entry: JobEntry) -> str:
    """What stopping a job means."""
    return {
        "restore": "Until the swap all of it is taken back; after it, what is in place stays and u undoes it.",
        "undo": "A way back is finished before it stops.",
        "backup": "What was stored so far is removed; older snapshots stay as they are.",
        "sync": "The snapshot that is being copied is left out; what was copied before stays.",
        "prune": "The snapshot that is being removed is finished; the others stay.",
        "rewrap": "The snapshot that is at work stays as it was; those before it stay encrypted anew.",
        "extract": "The files written so far are removed.",
    }.get(entry.run.kind, "Nothing is changed by it, so nothing is lost.")


def newest_of(found: Sequence[JobEntry], host: str, asset: Asset) -> JobEntry | None:
    """The newest job on one asset, running or not."""
    mine = [entry for entry in found if entry.job.host == host and entry.job.asset is asset]
    return max(mine, key=lambda entry: entry.run.begun_at, default=None)


def outcomes(before: Sequence[JobEntry], now: Sequence[JobEntry]) -> tuple[JobEntry, ...]:
    """The jobs that were going on at the last look and have ended since."""
    going = {entry.key for entry in before if entry.active}
    return tuple(entry for entry in now if not entry.active and entry.key in going)
