"""Cleaning up after runs whose process was killed: what they left in vaults, and a record of how they ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.archive.layout import SNAPSHOT_ID
from backends.catalog import record_attempt
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import MastovaultError
from backends.model import Asset, Attempt, JobResult, JobState, utc_now
from backends.runs.events import EVENTS, LOST, EventWriter, parse_line, parse_progress, parse_result, summary_event
from backends.runs.folder import SETTLED, Request, folders, is_alive, read_request, remove_socket
from backends.runs.leftovers import Reached, clean_vault, holds, reach
from backends.runs.tail import Tail
from backends.vault.base import Vault

_NEXT_STEP = {
    "backup": "What it left behind is removed. Start it again.",
    "restore": "`mastovault undo` shows it: it can be continued or rolled back.",
    "undo": "`mastovault undo` shows it: it can be continued or rolled back.",
}


@dataclass(slots=True)
class _Trace:
    """What the events of a run tell."""

    open: set[Asset] = field(default_factory=set)
    """Jobs that had not ended."""
    begun: dict[Asset, list[str]] = field(default_factory=dict)
    """What each had begun to write: ids of snapshots, keys of shared objects."""
    results: dict[Asset, JobResult] = field(default_factory=dict)
    ended: bool = False
    lost: bool = False
    cleaned: set[str] = field(default_factory=set)
    """Vaults that were cleaned up after it."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """A run that ended without saying so."""

    folder: Path
    request: Request
    trace: _Trace


def recover(paths: Paths, config: Config) -> list[str]:
    """Clean up after every lost run; returns the ids of those that were not known to be lost yet.

    Never raises for a vault's fault: what it could not clean is cleaned the next time.
    """
    with _alone(paths.state_dir) as alone:
        left = [folder for folder in folders(paths.state_dir) if not (folder / SETTLED).exists()] if alone else []
        lost = [each for folder in left if (each := _lost(folder, config)) is not None]
        if not lost:
            return []
        reached = reach(config, [name for run in lost for name in vaults_of(config, run.request)])
        try:
            for run in lost:
                _settle(run, config, reached)
        finally:
            reached.close()
    return [run.folder.name for run in lost if not run.trace.ended]


def vaults_of(config: Config, request: Request) -> list[str]:
    """The names of the vaults that a run may have written to, of those that are configured now."""
    named = [request.options.get(name) for name in ("source", "target")]
    names = [*config.vaults_of(request.host), *(str(name) for name in named if name)]
    return [name for name in dict.fromkeys(names) if name in config.vaults]


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[bool]:
    """Whether nobody else is cleaning up right now."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(state_dir / "recover.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _lost(folder: Path, config: Config) -> _Lost | None:
    """A run whose process is gone and that left something to do; one that did not is settled at once."""
    request = read_request(folder)
    if request is None or is_alive(request, utc_now()) or request.host not in config.hosts:
        return None
    remove_socket(Path(request.control))
    trace = _read(folder)
    if trace.ended and not trace.lost:
        (folder / SETTLED).touch()
        return None
    return _Lost(folder, request, trace)


def _settle(run: _Lost, config: Config, reached: Reached) -> None:
    """Say what became of a lost run, and clean up after it in the vaults that answer."""
    events = EventWriter(run.folder)
    try:
        if not run.trace.ended:
            _declare_lost(events, run.request, run.trace, reached.of(vaults_of(config, run.request)))
        if _clean(events, run.request, run.trace, config, reached):
            (run.folder / SETTLED).touch()
    finally:
        events.close()


def _read(folder: Path) -> _Trace:
    trace = _Trace()
    for lines in Tail(folder / EVENTS).read():
        for line in lines:
            event = parse_line(line)
            if event is not None:
                with contextlib.suppress(ValueError, KeyError, RecursionError):
                    _note(trace, event)
    return trace


def _note(trace: _Trace, event: Mapping[str, Any]) -> None:
    """Take one event in. Raises `ValueError` or `KeyError` for one that is not ours."""
    kind = event["event"]
    if kind == "progress" and (job := parse_progress(event)) is not None:
        (trace.open.discard if job.state.ended else trace.open.add)(job.asset)
    elif kind == "begun":
        trace.begun.setdefault(Asset(event["job"]), []).append(str(event["key"]))
    elif kind == "result" and (result := parse_result(event)) is not None:
        trace.results[result.asset] = result
    elif kind == "summary":
        trace.ended, trace.lost = True, event.get("lost") is True
    elif kind == "cleaned":
        trace.cleaned.add(str(event["vault"]))


def _declare_lost(events: EventWriter, request: Request, trace: _Trace, vaults: Sequence[Vault]) -> None:
    """Record in the vaults that the open jobs failed, and write the summary that the run could not write."""
    results = dict(trace.results)
    for asset in request.assets:
        # A job that was cancelled before its turn has said its last state and never its result.
        if asset in results or (asset not in trace.open and trace.begun.get(asset) is None):
            continue
        stored = _stored(vaults, trace.begun.get(asset, ()))
        if stored is not None:
            results[asset] = JobResult(host=request.host, asset=asset, state=JobState.DONE, snapshot=stored)
            continue
        if request.kind == "backup":
            _record_failure(vaults, request, asset)
        results[asset] = JobResult(
            host=request.host,
            asset=asset,
            state=JobState.FAILED,
            error=LOST,
            next_step=_NEXT_STEP.get(request.kind, "Start it again."),
            exit_code=1,
        )
    events.write(summary_event([results[asset] for asset in Asset if asset in results], lost=True))


def _record_failure(vaults: Sequence[Vault], request: Request, asset: Asset) -> None:
    attempt = Attempt(
        host=request.host,
        asset=asset,
        run=request.id,
        at=request.begun_at,
        seconds=0.0,
        state=JobState.FAILED,
        error=LOST,
    )
    record_attempt(vaults, attempt)


def _stored(vaults: Sequence[Vault], begun: Sequence[str]) -> str | None:
    """The snapshot of a killed job, when it had been committed after all."""
    for vault in vaults:
        with contextlib.suppress(MastovaultError):
            for snapshot in begun:
                if SNAPSHOT_ID.fullmatch(snapshot) and holds(vault, snapshot):
                    return snapshot
    return None


def _clean(events: EventWriter, request: Request, trace: _Trace, config: Config, reached: Reached) -> bool:
    """Remove what the run left in the vaults; returns whether nothing is left in any."""
    # The vaults that are configured now: one that was taken out since is nobody's to clean any more.
    left = set(vaults_of(config, request)) - trace.cleaned
    for vault in reached.of(sorted(left)):
        with contextlib.suppress(MastovaultError, ValueError):
            if vault.name not in reached.prepared:
                if trace.begun:
                    continue  # an empty directory where a disk should be mounted
            elif not clean_vault(vault, request.host, request.assets, trace.begun, request.id):
                continue
            events.write({"event": "cleaned", "vault": vault.name})
            left.discard(vault.name)
    return not left
