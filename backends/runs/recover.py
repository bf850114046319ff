"""Cleaning up after runs whose process was killed: what they left in vaults, and a record of how they ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from backends.archive.layout import SNAPSHOT_ID, manifest_key, snapshot_prefix
from backends.catalog import record_attempt
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import MastovaultError, NotFound
from backends.model import Asset, Attempt, JobResult, JobState, utc_now
from backends.runs.events import EVENTS, EventWriter, parse_line, parse_progress, summary_event
from backends.runs.folder import Request, folders, is_alive, read_request
from backends.vault.base import Vault
from backends.vault.names import check_key
from backends.vault.open import open_vault

LOST = "the run was killed before it could say how it ended"
_LEFTOVER_AGE = timedelta(days=1)


@dataclass(slots=True)
class _Trace:
    """What the events of a run tell: which jobs had begun, what they had begun to write, whether a summary came."""

    begun: dict[Asset, list[str]] = field(default_factory=dict)
    open: set[Asset] = field(default_factory=set)
    ended: bool = False


def recover(paths: Paths, config: Config) -> list[str]:
    """Clean up after every lost run; returns their ids. Never raises for a vault's fault: the next run tries again."""
    found = []
    with _alone(paths.state_dir) as alone:
        if not alone:
            return []
        now = utc_now()
        for folder in folders(paths.state_dir):
            request = read_request(folder)
            if request is None or is_alive(request, now) or request.host not in config.hosts:
                continue
            trace = _read(folder)
            if not trace.ended:
                _settle(folder, request, trace, _vaults(config, request.host))
                found.append(request.id)
    return found


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


def _read(folder: Path) -> _Trace:
    trace = _Trace()
    with contextlib.suppress(OSError), (folder / EVENTS).open("rb") as file:
        for line in file:
            event = parse_line(line)
            if event is None:
                continue
            if event["event"] == "progress":
                job = parse_progress(event)
                if job is not None:
                    (trace.open.discard if job.state.ended else trace.open.add)(job.asset)
            elif event["event"] == "begun":
                with contextlib.suppress(ValueError, KeyError):
                    trace.begun.setdefault(Asset(event["job"]), []).append(str(event["key"]))
            elif event["event"] == "summary":
                trace.ended = True
    return trace


def _vaults(config: Config, host: str) -> list[Vault]:
    opened = []
    for name in config.vaults_of(host):
        with contextlib.suppress(MastovaultError):
            opened.append(open_vault(name, config.vaults[name]))
    return opened


def _settle(folder: Path, request: Request, trace: _Trace, vaults: list[Vault]) -> None:
    results = []
    for asset in request.assets:
        if asset not in trace.open:
            continue
        stored = [found for vault in vaults if (found := _cleaned(vault, trace.begun.get(asset, [])))]
        if stored:
            results.append(JobResult(host=request.host, asset=asset, state=JobState.DONE, snapshot=stored[0]))
            continue
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
        step = "What it left behind was removed. Start it again."
        results.append(
            JobResult(host=request.host, asset=asset, state=JobState.FAILED, error=LOST, next_step=step, exit_code=1)
        )
    events = EventWriter(folder)
    events.write(summary_event(results, lost=True))
    events.close()


def _cleaned(vault: Vault, keys: list[str]) -> str | None:
    """Remove what a killed job left; returns its snapshot if that had been committed after all, which then stays."""
    snapshots = [key for key in keys if SNAPSHOT_ID.fullmatch(key)]
    shared = [key for key in keys if key not in snapshots]
    with contextlib.suppress(MastovaultError, ValueError):
        for snapshot in snapshots:
            with contextlib.suppress(NotFound):
                vault.read(manifest_key(snapshot)).close()
                return snapshot
            _remove(vault, snapshot_prefix(snapshot))
        for key in shared:
            _remove(vault, check_key(key))
        vault.clean_leftovers(utc_now() - _LEFTOVER_AGE)
    return None


def _remove(vault: Vault, prefix: str) -> None:
    for stored in list(vault.list(prefix)):
        vault.delete(stored.key)
