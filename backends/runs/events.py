"""The events of a run, one JSON document a line in `events.jsonl`: written by its process, read by everybody."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.model import Asset, JobResult, JobSnapshot, JobState, rfc3339, utc_now
from backends.runs.view import LogLine, Question
from backends.untrusted import clean

EVENTS = "events.jsonl"
LOST = "the run was killed before it could say how it ended"
_BATCH = 500
_NOT_OURS = (KeyError, ValueError, TypeError, OverflowError, OSError, RecursionError)


class EventWriter:
    """Appends events; every line is written with one call, so that readers and writers need no lock between them."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._handle = os.open(folder / EVENTS, flags, 0o600)
        self._lock = threading.Lock()
        size = os.fstat(self._handle).st_size
        # What a killed process wrote last may be half a line, and so may what a full disk took.
        self._torn = size > 0 and os.pread(self._handle, 1, size - 1) != b"\n"

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event. A full disk loses the event, never the run."""
        data = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        with self._lock:
            if self._torn:
                data = b"\n" + data
            with contextlib.suppress(OSError):
                written = os.write(self._handle, data)
                self._torn = 0 < written < len(data) or (self._torn and written == 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def progress_event(job: JobSnapshot) -> dict[str, Any]:
    """How far a job is (docs/commands.md)."""
    return {
        "event": "progress",
        "job": job.id,
        "host": job.host,
        "asset": job.asset.value,
        "step": job.step,
        "done": job.done,
        "total": job.total,
        "rate": job.rate,
        "unit": job.unit,
        "state": job.state.value,
    }


def log_events(lines: Sequence[tuple[datetime, str, str]]) -> Iterator[dict[str, Any]]:
    """Log lines in batches: time, job, text."""
    for first in range(0, len(lines), _BATCH):
        batch = lines[first : first + _BATCH]
        yield {"event": "log", "lines": [[at.timestamp(), job, text] for at, job, text in batch]}


def result_event(result: JobResult) -> dict[str, Any]:
    """How a job ended, as soon as it has."""
    return {"event": "result", **result_json(result)}


def result_json(result: JobResult) -> dict[str, Any]:
    """How a job ended (docs/commands.md)."""
    return {
        "host": result.host,
        "asset": result.asset.value,
        "result": result.state.value,
        "snapshot": result.snapshot,
        "bytes": result.bytes,
        "seconds": round(result.seconds, 3),
        "error": result.error,
        "next_step": result.next_step,
        "in_part": result.in_part,
        "warnings": list(result.warnings),
        "vaults": list(result.vaults),
        "exit_code": result.exit_code,
        "detail": result.detail,
    }


def summary_event(results: Iterable[JobResult], *, lost: bool = False) -> dict[str, Any]:
    """The last event of a run. `lost` marks the summary that was written for a run whose process was killed."""
    event = {"event": "summary", "at": rfc3339(utc_now()), "results": [result_json(result) for result in results]}
    return {**event, "lost": True} if lost else event


def parse_line(line: bytes) -> dict[str, Any] | None:
    """One event; None for a line that is none (torn, or not ours)."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def parse_progress(event: Mapping[str, Any]) -> JobSnapshot | None:
    """The job of a progress event; None when it cannot be understood."""
    try:
        total, rate = event["total"], event["rate"]
        return JobSnapshot(
            id=clean(str(event["job"]), 80),
            host=clean(str(event["host"]), 80),
            asset=Asset(event["asset"]),
            state=JobState(event["state"]),
            step=clean(str(event["step"]), 200),
            done=int(event["done"]),
            total=None if total is None else int(total),
            rate=None if rate is None else float(rate),
            unit=clean(str(event["unit"]), 20),
        )
    except _NOT_OURS:
        return None


def parse_result(document: Any) -> JobResult | None:
    """One result of a summary; None when it cannot be understood."""
    try:
        snapshot, error, step = document["snapshot"], document["error"], document["next_step"]
        return JobResult(
            host=clean(str(document["host"]), 80),
            asset=Asset(document["asset"]),
            state=JobState(document["result"]),
            snapshot=None if snapshot is None else clean(str(snapshot), 200),
            bytes=int(document["bytes"]),
            seconds=float(document["seconds"]),
            error=None if error is None else clean(str(error)),
            next_step=None if step is None else clean(str(step)),
            in_part=document["in_part"] is True,
            warnings=tuple(clean(str(text)) for text in document["warnings"]),
            vaults=tuple(clean(str(name), 80) for name in document["vaults"]),
            exit_code=int(document["exit_code"]),
            detail=clean(str(document.get("detail", ""))),
        )
    except _NOT_OURS:
        return None


def step_event(step: str, state: str) -> dict[str, Any]:
    """What becomes of one step of a plan: `begun`, `done`, `failed` or `undone`."""
    return {"event": "step", "step": step, "state": state}


def parse_step(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """A step's id and state; None when it cannot be understood."""
    step, state = event.get("step"), event.get("state")
    if not isinstance(step, str) or state not in {"begun", "done", "failed", "undone"}:
        return None
    return clean(step, 80), str(state)


def parse_lines(event: Mapping[str, Any]) -> list[LogLine]:
    """The lines of a log event; those that cannot be understood are left out."""
    found = []
    lines = event.get("lines")
    for entry in lines if isinstance(lines, list) else ():
        try:
            at, job, text = entry
            moment = datetime.fromtimestamp(float(at), UTC)
            found.append(LogLine(at=moment, job=clean(str(job), 80), text=clean(str(text))))
        except _NOT_OURS:
            continue
    return found


def parse_question(event: Mapping[str, Any]) -> Question | None:
    """A question; None when it cannot be understood."""
    try:
        return Question(
            id=clean(str(event["id"]), 40), job=clean(str(event["job"]), 80), prompt=clean(str(event["prompt"]), 300)
        )
    except _NOT_OURS:
        return None
