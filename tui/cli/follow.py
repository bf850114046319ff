"""Following runs on a terminal or as JSON lines, until they have ended."""

from __future__ import annotations

import contextlib
import getpass
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from backends.config.paths import Paths
from backends.errors import MastovaultError
from backends.model import Asset, JobResult, JobSnapshot, JobState, Secret
from backends.runs.control import answer, cancel
from backends.runs.events import progress_event, result_json
from backends.runs.launch import start_run
from backends.runs.view import RunView
from backends.runs.watch import RunsWatcher
from tui.cli import show

_POLL = 0.1
_LINE_SECONDS = 5.0


class Follower:
    """Shows what runs do; Ctrl-C cancels those that it started."""

    def __init__(self, paths: Paths, *, as_json: bool, interactive: bool) -> None:
        self._paths, self._json, self._interactive = paths, as_json, interactive
        self._watcher = RunsWatcher(paths.state_dir)
        self._shown: dict[tuple[str, str], JobSnapshot] = {}
        self._said_at: dict[tuple[str, str], float] = {}
        self._answered: set[str] = set()

    def back_up(self, work: Mapping[str, Sequence[Asset]], at_once: int) -> int:
        """Start one run for each host, some at a time, follow them all, print the summary; returns the exit code."""
        waiting = list(work.items())
        going: list[str] = []
        ended: dict[str, RunView] = {}
        order: list[str] = []
        interrupted = False
        while waiting or going:
            try:
                while waiting and len(going) < at_once:
                    host, assets = waiting.pop(0)
                    options = {"interactive": self._interactive}
                    run = start_run(self._paths, kind="backup", host=host, assets=assets, options=options)
                    going.append(run)
                    order.append(run)
                for view in self._look(going):
                    if not view.active:
                        going.remove(view.id)
                        ended[view.id] = view
                time.sleep(_POLL)
            except KeyboardInterrupt:
                interrupted = True
                waiting.clear()
                click.echo("cancelling, waiting until the runs have cleaned up", err=True)
                for run in going:
                    with contextlib.suppress(MastovaultError):
                        cancel(self._paths.state_dir, run)
        results = [result for run in order for result in _results(ended[run])]
        self._summary(results)
        return 130 if interrupted else exit_code(results)

    def follow(self, run: str) -> int:
        """Follow one run that was started elsewhere; Ctrl-C leaves it going."""
        while True:
            views = self._look([run])
            if not views or not views[0].active:
                results = _results(views[0]) if views else []
                self._summary(results)
                return exit_code(results)
            time.sleep(_POLL)

    def _look(self, runs: Sequence[str]) -> list[RunView]:
        views = [view for view in self._watcher.poll() if view.id in runs]
        for view in views:
            for job in view.jobs:
                self._progress(view, job)
            for question in view.questions:
                if self._interactive and question.id not in self._answered and view.active:
                    self._answered.add(question.id)
                    typed = getpass.getpass(f"{question.prompt}: ")
                    with contextlib.suppress(MastovaultError):
                        answer(self._paths.state_dir, view.id, question.id, Secret(typed))
        return views

    def _progress(self, view: RunView, job: JobSnapshot) -> None:
        key = (view.id, job.id)
        before = self._shown.get(key)
        if before == job:
            return
        self._shown[key] = job
        if self._json:
            click.echo(json.dumps(progress_event(job)))
            return
        now = time.monotonic()
        news = before is None or (before.step, before.state) != (job.step, job.state)
        if job.state is not JobState.QUEUED and (news or now - self._said_at.get(key, 0.0) > _LINE_SECONDS):
            self._said_at[key] = now
            click.echo(_line(job))

    def _summary(self, results: Sequence[JobResult]) -> None:
        if self._json:
            click.echo(json.dumps({"event": "summary", "results": [result_json(result) for result in results]}))
            return
        for result in results:
            word = "done in part" if result.in_part else result.state.value
            facts = [show.size(result.bytes), show.span(result.seconds)] if result.bytes else []
            click.echo(" ".join([f"{result.host}/{result.asset}", word, *facts, result.snapshot or ""]).rstrip())
            for text in (result.error, result.next_step, *result.warnings):
                if text:
                    click.echo(f"  {text}")


def _line(job: JobSnapshot) -> str:
    parts: list[Any] = [f"{job.host}/{job.asset}", job.state.value if job.state.ended else job.step]
    if job.total:
        parts.append(f"{min(100, job.done * 100 // job.total)}%")
    if job.rate and job.unit == "bytes":
        parts.append(f"{show.size(int(job.rate))}/s")
    return "  ".join(parts)


def _results(view: RunView) -> list[JobResult]:
    """How the jobs of a run ended; those of a run that was killed count as failed."""
    known = {result.asset: result for result in view.results}
    found = []
    for job in view.jobs:
        lost = JobResult(
            host=view.host,
            asset=job.asset,
            state=JobState.FAILED,
            error="the run was killed before it could say how it ended",
            next_step="Start it again; what it left behind is removed then.",
            exit_code=1,
        )
        found.append(known.get(job.asset, lost))
    return found


def exit_code(results: Sequence[JobResult]) -> int:
    """The exit code of a command by its results (docs/commands.md): failures first, then in part."""
    failed = [result for result in results if result.state is JobState.FAILED]
    if failed:
        codes = {result.exit_code or 1 for result in failed}
        return codes.pop() if len(codes) == 1 and len(failed) == len(results) else 1
    if any(result.state is JobState.CANCELLED for result in results):
        return 130
    return 3 if any(result.in_part for result in results) else 0
