"""Following runs from outside: reads only what is new in their folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from backends.model import JobResult, JobSnapshot, utc_now
from backends.runs import events
from backends.runs.folder import Request, folders, is_alive, read_request, runs_dir
from backends.runs.view import LogLine, Question, RunView

_CHUNK = 4 << 20
_MAX_LINES = 20_000


@dataclass(slots=True)
class _Known:
    """What has been read of one run so far."""

    request: Request
    offset: int = 0
    rest: bytes = b""
    jobs: dict[str, JobSnapshot] = field(default_factory=dict)
    results: list[JobResult] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    lines: list[LogLine] = field(default_factory=list)
    dropped: int = 0
    ended: bool = False
    lost: bool = False
    ended_at: datetime | None = None
    view: RunView | None = None


class RunsWatcher:
    """All runs of one state directory; each `poll` reads what came since the last."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._known: dict[str, _Known] = {}

    def poll(self) -> tuple[RunView, ...]:
        """Every run, newest first."""
        now = utc_now()
        present = {folder.name: folder for folder in folders(self._state_dir)}
        for name in self._known.keys() - present.keys():
            del self._known[name]
        for name, folder in present.items():
            known = self._known.get(name)
            if known is None or (known.request.pid == 0 and not known.ended):
                request = read_request(folder)
                if request is None:
                    continue
                known = self._known.setdefault(name, _Known(request))
                known.request = request
            if not known.ended or known.view is None:
                self._update(known, now)
        return tuple(known.view for _, known in sorted(self._known.items(), reverse=True) if known.view is not None)

    def log(self, run_id: str, job: str | None = None, since: int = 0) -> tuple[list[LogLine], int]:
        """The lines of a run (of one of its jobs) after the first `since` of it, and the next `since`."""
        known = self._known.get(run_id)
        if known is None:
            return [], since
        if not known.ended:
            self._read(known)
        lines = known.lines[max(0, since - known.dropped) :]
        return [line for line in lines if job in (None, line.job)], known.dropped + len(known.lines)

    def _update(self, known: _Known, now: datetime) -> None:
        # First whether it lives, then what it said: a run that ends in between has said everything.
        alive = is_alive(known.request, now)
        self._read(known)
        request = known.request
        known.view = RunView(
            id=request.id,
            kind=request.kind,
            host=request.host,
            begun_at=request.begun_at,
            pid=request.pid,
            alive=alive and not known.ended,
            lost=known.lost or not (alive or known.ended),
            ended_at=known.ended_at,
            jobs=tuple(known.jobs.values()),
            results=tuple(known.results),
            questions=() if known.ended else tuple(known.questions.values()),
        )

    def _read(self, known: _Known) -> None:
        path = runs_dir(self._state_dir) / known.request.id / events.EVENTS
        try:
            with path.open("rb") as file:
                file.seek(known.offset)
                while data := file.read(_CHUNK):
                    known.offset += len(data)
                    *whole, known.rest = (known.rest + data).split(b"\n")
                    for line in whole:
                        event = events.parse_line(line)
                        if event is not None:
                            _apply(known, event)
        except OSError:
            return


def _apply(known: _Known, event: dict[str, Any]) -> None:
    kind = event["event"]
    if kind == "progress":
        job = events.parse_progress(event)
        if job is not None:
            known.jobs[job.id] = job
    elif kind == "log":
        known.lines += events.parse_lines(event)
        if len(known.lines) > _MAX_LINES:
            surplus = len(known.lines) - _MAX_LINES
            del known.lines[:surplus]
            known.dropped += surplus
    elif kind == "question":
        question = events.parse_question(event)
        if question is not None:
            known.questions[question.id] = question
    elif kind == "answered":
        known.questions.pop(str(event.get("id")), None)
    elif kind == "summary":
        found = event.get("results")
        parsed = [events.parse_result(each) for each in found] if isinstance(found, list) else []
        known.results = [result for result in parsed if result is not None]
        known.ended, known.lost = True, event.get("lost") is True
        known.ended_at = _time(event.get("at"))


def _time(text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else utc_now()
    except (TypeError, ValueError):
        return utc_now()
