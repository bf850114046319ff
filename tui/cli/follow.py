"""Following runs on a terminal or as JSON lines, until they have ended."""

from __future__ import annotations

import contextlib
import getpass
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from backends.config.paths import Paths
from backends.errors import MastovaultError
from backends.model import Asset, JobResult, JobSnapshot, JobState, Secret
from backends.runs.control import answer, cancel
from backends.runs.events import LOST, progress_event, result_json
from backends.runs.launch import start_run
from backends.runs.view import RunView
from backends.runs.watch import RunsWatcher
from tui.cli import show

_POLL = 0.1
_LINE_SECONDS = 5.0


class Order(NamedTuple):
    """What one run is to do; `options` as its kind needs them (`backends.runs.kinds`)."""

    kind: str
    assets: tuple[Asset, ...]
    options: Mapping[str, Any] = {}


class Follower:
    """Shows what runs do, and asks the questions that they ask."""

    def __init__(self, paths: Paths, *, as_json: bool, interactive: bool) -> None:
        self._paths, self._json, self._interactive = paths, as_json, interactive
        self._watcher = RunsWatcher(paths.state_dir)
        self._shown: dict[tuple[str, str], JobSnapshot] = {}
        self._said_at: dict[tuple[str, str], float] = {}
        self._logged: dict[str, int] = {}
        self._answered: set[str] = set()

    def back_up(self, work: Mapping[str, Sequence[Asset]], at_once: int) -> int:
        """Back up assets, one run a host; see `carry_out`."""
        return self.carry_out({host: Order("backup", tuple(assets)) for host, assets in work.items()}, at_once)

    def carry_out(self, work: Mapping[str, Order], at_once: int = 4) -> int:
        """Start one run for each host, some at a time, follow them all, print the summary; returns the exit code.

        Ctrl-C (or SIGTERM) cancels the runs and waits for them; a second one waits no longer.
        """
        results: dict[str, list[JobResult]] = {host: [] for host in work}
        waiting = dict(work)
        going: dict[str, str] = {}
        with _Interrupts() as interrupts:
            told: set[str] = set()
            while waiting or going:
                if interrupts.count:
                    waiting.clear()
                    self._cancel(going, told, first=interrupts.count == 1)
                if interrupts.count > 1:
                    break
                while waiting and len(going) < at_once and not interrupts.count:
                    host = next(iter(waiting))
                    self._start(host, waiting.pop(host), going, results)
                views = self._look(going, interrupts)
                for view in views:
                    if not view.active:
                        results[going.pop(view.id)] = _results(view)
                for run in going.keys() - {view.id for view in views}:  # somebody removed its folder
                    host = going.pop(run)
                    results[host] = [_failed(host, asset, LOST, "", 1) for asset in work[host].assets]
                if going:
                    time.sleep(_POLL)
        found = [result for host in work for result in results[host]]
        self._summary(found)
        return 130 if interrupts.count else exit_code(found)

    def follow(self, run: str) -> int:
        """Follow one run that was started elsewhere, with its log; Ctrl-C leaves it going."""
        while True:
            view = next(iter(self._look([run], None)), None)
            self._log(run)
            if view is None or not view.active:
                results = _results(view) if view else []
                self._summary(results)
                return exit_code(results)
            time.sleep(_POLL)

    def _start(self, host: str, order: Order, going: dict[str, str], results: dict[str, list[JobResult]]) -> None:
        try:
            options = {**order.options, "interactive": self._interactive}
            going[start_run(self._paths, kind=order.kind, host=host, assets=order.assets, options=options)] = host
        except MastovaultError as error:
            said = (error.sentence, error.next_step, error.exit_code)
            results[host] = [_failed(host, asset, *said) for asset in order.assets]

    def _cancel(self, going: Mapping[str, str], told: set[str], *, first: bool) -> None:
        if not told and first:
            click.echo("cancelling; waiting until the runs have cleaned up (Ctrl-C again: wait no longer)", err=True)
        for run in going.keys() - told:
            with contextlib.suppress(MastovaultError):  # it has just ended
                cancel(self._paths.state_dir, run)
            told.add(run)

    def _look(self, runs: Sequence[str] | Mapping[str, str], interrupts: _Interrupts | None) -> list[RunView]:
        known = {view.id: view for view in self._watcher.poll()}
        views = [known[run] for run in runs if run in known]
        for view in views:
            for job in view.jobs:
                self._progress(view, job)
            for question in view.questions:
                if self._interactive and question.id not in self._answered and view.active:
                    self._answered.add(question.id)
                    typed = _ask(f"{view.host}: {question.prompt}: ", interrupts)
                    with contextlib.suppress(MastovaultError):  # somebody else was faster, or it took too long
                        answer(self._paths.state_dir, view.id, question.id, typed)
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

    def _log(self, run: str) -> None:
        lines, self._logged[run] = self._watcher.log(run, None, self._logged.get(run, 0))
        for line in () if self._json else lines:
            click.echo(f"{line.at.astimezone():%H:%M:%S}  {line.job}  {line.text}")

    def _summary(self, results: Sequence[JobResult]) -> None:
        if self._json:
            click.echo(json.dumps({"event": "summary", "results": [result_json(result) for result in results]}))
            return
        for result in results:
            word = "done in part" if result.in_part else result.state.value
            facts = [show.size(result.bytes), show.span(result.seconds)] if result.bytes else []
            click.echo(" ".join([f"{result.host}/{result.asset}", word, *facts, result.snapshot or ""]).rstrip())
            for text in (result.detail, result.error, result.next_step, *result.warnings):
                if text:
                    click.echo(f"  {text}")


class _Interrupts:
    """Counts Ctrl-C and SIGTERM instead of being torn out of the middle of something; a prompt is broken off."""

    def __init__(self) -> None:
        self.count = 0
        self._prompting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Whoever starts us in the background, where a shell has Ctrl-C ignored, means that.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def while_reading(self, read: Callable[[], str]) -> str:
        """What `read` reads; empty when a signal came. It raises here: nothing else ends a read of a terminal."""
        try:
            self._prompting = True
            return "" if self.count else read()
        except KeyboardInterrupt:
            return ""
        finally:
            self._prompting = False

    def _heard(self, _number: int, _frame: object) -> None:
        self.count += 1
        if self._prompting:
            raise KeyboardInterrupt


def _ask(prompt: str, interrupts: _Interrupts | None) -> Secret:
    """What the operator types; empty when nothing."""
    try:
        if interrupts is None:
            return Secret(getpass.getpass(prompt))
        return Secret(interrupts.while_reading(lambda: getpass.getpass(prompt)))
    except EOFError:
        return Secret("")


def _line(job: JobSnapshot) -> str:
    parts: list[Any] = [f"{job.host}/{job.asset}", job.state.value if job.state.ended else job.step]
    if job.state is JobState.CANCELLING:
        parts.append("cancelling")
    if job.total and not job.state.ended:
        parts.append(f"{min(100, job.done * 100 // job.total)}%")
    if job.rate and job.unit == "bytes" and not job.state.ended:
        parts.append(f"{show.size(int(job.rate))}/s")
    return "  ".join(parts)


def _failed(host: str, asset: Asset, error: str, next_step: str, code: int) -> JobResult:
    return JobResult(
        host=host, asset=asset, state=JobState.FAILED, error=error, next_step=next_step or None, exit_code=code
    )


def _results(view: RunView) -> list[JobResult]:
    """How the jobs of a run ended; those of a run that was killed count as failed."""
    known = {result.asset: result for result in view.results}
    step = "Start it again; what it left behind is removed then."
    return [known.get(job.asset) or _failed(view.host, job.asset, LOST, step, 1) for job in view.jobs]


def exit_code(results: Sequence[JobResult]) -> int:
    """The exit code of a command by its results (docs/commands.md): failures first, then in part."""
    failed = [result for result in results if result.state is JobState.FAILED]
    if failed:
        codes = {result.exit_code or 1 for result in failed}
        return codes.pop() if len(codes) == 1 and len(failed) == len(results) else 1
    if any(result.state is JobState.CANCELLED for result in results):
        return 130
    return 3 if any(result.in_part for result in results) else 0
