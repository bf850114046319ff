"""Following runs from outside: reads only what is new in their folders."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from backends.model import Asset, JobResult, JobSnapshot, utc_now
from backends.runs import events
from backends.runs.folder import RUN_ID, Request, folders, is_alive, read_request, runs_dir
from backends.runs.tail import Tail
from backends.runs.view import LogLine, Question, RunView
from backends.untrusted import clean

_MAX_LINES = 20_000
_OPEN_LOGS = 8
# How `EventWriter` begins these lines. Most of a long run's lines are progress that a later line has replaced.
_PROGRESS = re.compile(rb'\{"event":"progress","job":"([^"]+)"')
_LOG = b'{"event":"log"'


@dataclass(slots=True)
class _Known:
    """What has been read of one run so far."""

    request: Request
    tail: Tail
    jobs: dict[str, JobSnapshot] = field(default_factory=dict)
    results: dict[Asset, JobResult] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    lost: bool = False
    ended_at: datetime | None = None
    view: RunView | None = None


@dataclass(slots=True)
class _Log:
    """The log of one run, as far as it was read; the oldest of too many lines are dropped."""

    tail: Tail
    lines: list[LogLine] = field(default_factory=list)
    dropped: int = 0


class RunsWatcher:
    """All runs of one state directory; each `poll` reads what came since the last."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._known: dict[str, _Known] = {}
        self._logs: dict[str, _Log] = {}

    def poll(self) -> tuple[RunView, ...]:
        """Every run, newest first."""
        now = utc_now()
        present = {folder.name: folder for folder in folders(self._state_dir)}
        for name in self._known.keys() - present.keys():
            del self._known[name]
            self._logs.pop(name, None)
        for name, folder in present.items():
            known = self._known.get(name)
            if known is None or (known.request.pid == 0 and not known.ended):
                request = read_request(folder)
                if request is None:
                    continue
                known = self._known.setdefault(name, _Known(request, Tail(folder / events.EVENTS)))
                known.request = request
            if not known.ended or known.view is None:
                _update(known, now)
        return tuple(known.view for _, known in sorted(self._known.items(), reverse=True) if known.view is not None)

    def log(self, run_id: str, job: str | None = None, since: int = 0) -> tuple[list[LogLine], int]:
        """The lines of a run (of one of its jobs) after the first `since` of it, and the next `since`."""
        log = self._open_log(run_id)
        if log is None:
            return [], since
        for lines in log.tail.read():
            for line in lines:
                if line.startswith(_LOG) and (event := events.parse_line(line)) is not None:
                    log.lines += events.parse_lines(event)
            if (surplus := len(log.lines) - _MAX_LINES) > 0:
                del log.lines[:surplus]
                log.dropped += surplus
        found = log.lines[max(0, since - log.dropped) :]
        return [line for line in found if job in (None, line.job)], log.dropped + len(log.lines)

    def _open_log(self, run_id: str) -> _Log | None:
        if not RUN_ID.fullmatch(run_id):
            return None
        # Read when somebody looks at it; the one looked at longest ago is forgotten, as it can be read again.
        log = self._logs.pop(run_id, None) or _Log(Tail(runs_dir(self._state_dir) / run_id / events.EVENTS))
        self._logs[run_id] = log
        if len(self._logs) > _OPEN_LOGS:
            del self._logs[next(iter(self._logs))]
        return log


def _update(known: _Known, now: datetime) -> None:
    # First whether it lives, then what it said: a run that ends in between has said everything.
    alive = is_alive(known.request, now)
    for lines in known.tail.read():
        for event in _worthwhile(lines):
            with contextlib.suppress(RecursionError):  # a document of brackets
                _apply(known, event)
    request = known.request
    alive = alive and not known.ended
    known.view = RunView(
        id=request.id,
        kind=request.kind,
        host=request.host,
        begun_at=request.begun_at,
        pid=request.pid,
        alive=alive,
        lost=known.lost or not (alive or known.ended),
        ended_at=known.ended_at,
        jobs=tuple(known.jobs.values()),
        results=tuple(known.results[asset] for asset in Asset if asset in known.results),
        questions=tuple(known.questions.values()) if alive else (),
        steps=tuple(known.steps.items()),
        who=request.who,
        restore=_restore(request),
        what=clean(str(request.options.get("what", "")), 20) if request.kind == "undo" else "",
    )


def _restore(request: Request) -> str:
    asked = request.options.get("request")
    found = asked.get("id") if isinstance(asked, dict) else request.options.get("restore")
    return clean(found, 80) if isinstance(found, str) else ""


def _worthwhile(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events of some lines, in order, without logs, and of each job only the last progress."""
    found: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    for line in reversed(list(lines)):
        progress = _PROGRESS.match(line)
        if line.startswith(_LOG) or (progress and progress[1] in seen):
            continue
        event = events.parse_line(line)
        if event is None:
            continue
        if progress:
            if events.parse_progress(event) is None:
                continue
            seen.add(progress[1])
        found.append(event)
    found.reverse()
    return found


def _apply(known: _Known, event: dict[str, Any]) -> None:
    kind = event["event"]
    if kind == "progress":
        job = events.parse_progress(event)
        if job is not None:
            known.jobs[job.id] = job
    elif kind == "question":
        question = events.parse_question(event)
        if question is not None:
            known.questions[question.id] = question
    elif kind == "answered":
        known.questions.pop(str(event.get("id")), None)
    elif kind == "step":
        step = events.parse_step(event)
        if step is not None:
            known.steps[step[0]] = step[1]
    elif kind == "result":
        _keep(known, event)
    elif kind == "summary":
        found = event.get("results")
        for each in found if isinstance(found, list) else ():
            _keep(known, each)
        known.ended, known.lost = True, event.get("lost") is True
        known.ended_at = _time(event.get("at"))


def _keep(known: _Known, document: Any) -> None:
    result = events.parse_result(document)
    if result is not None:
        known.results[result.asset] = result


def _time(text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else utc_now()
    except (TypeError, ValueError):
        return utc_now()
