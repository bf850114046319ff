"""Cleaning up after runs whose process was killed: what they left in vaults, and a record of how they ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from backends.archive.layout import HOSTS, SNAPSHOT_ID, manifest_key, snapshot_prefix
from backends.catalog import record_attempt
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import MastovaultError, NotFound
from backends.model import Asset, Attempt, JobResult, JobState, utc_now
from backends.runs.events import EVENTS, LOST, EventWriter, parse_line, parse_progress, parse_result, summary_event
from backends.runs.folder import SETTLED, Request, folders, is_alive, read_request, remove_socket
from backends.runs.tail import Tail
from backends.vault.base import Vault
from backends.vault.format import read_format
from backends.vault.open import open_vault

_LEFTOVER_AGE = timedelta(days=1)
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


def recover(paths: Paths, config: Config) -> list[str]:
    """Clean up after every lost run; returns the ids of those that were not known to be lost yet.

    Never raises for a vault's fault: what it could not clean is cleaned the next time.
    """
    found = []
    with _alone(paths.state_dir) as alone:
        for folder in folders(paths.state_dir) if alone else ():
            if not (folder / SETTLED).exists() and _look_at(folder, config, utc_now()):
                found.append(folder.name)
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


def _look_at(folder: Path, config: Config, now: datetime) -> bool:
    """Settle what can be settled of one run; returns whether it is newly known to be lost."""
    request = read_request(folder)
    if request is None or is_alive(request, now) or request.host not in config.hosts:
        return False
    remove_socket(Path(request.control))
    trace = _read(folder)
    lost, new = trace.lost or not trace.ended, not trace.ended
    events = EventWriter(folder)
    try:
        if new:
            _declare_lost(events, request, trace, config)
        if not lost or _clean(events, request, trace, config):
            (folder / SETTLED).touch()
    finally:
        events.close()
    return new


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


def _vaults(config: Config, host: str) -> list[Vault]:
    opened = []
    for name in config.vaults_of(host):
        with contextlib.suppress(MastovaultError):
            opened.append(open_vault(name, config.vaults[name]))
    return opened


def _declare_lost(events: EventWriter, request: Request, trace: _Trace, config: Config) -> None:
    """Record in the vaults that the open jobs failed, and write the summary that the run could not write."""
    vaults = _vaults(config, request.host)
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
                if SNAPSHOT_ID.fullmatch(snapshot) and _holds(vault, snapshot):
                    return snapshot
    return None


def _holds(vault: Vault, snapshot: str) -> bool:
    """Whether a vault holds a snapshot's manifest. Raises `VaultError` when it cannot be asked."""
    try:
        vault.read(manifest_key(snapshot)).close()
    except NotFound:
        return False
    return True


def _clean(events: EventWriter, request: Request, trace: _Trace, config: Config) -> bool:
    """Remove what the run left in the vaults; returns whether nothing is left in any."""
    # The vaults that are configured now: one that was taken out since is nobody's to clean any more.
    left = set(config.vaults_of(request.host)) - trace.cleaned
    for vault in _vaults(config, request.host):
        if vault.name in left:
            with contextlib.suppress(MastovaultError, ValueError):
                if trace.begun and read_format(vault) is None:
                    continue  # an empty directory where a disk should be mounted
                for keys in trace.begun.values():
                    _clean_vault(vault, request.host, keys)
                vault.clean_leftovers(utc_now() - _LEFTOVER_AGE)
                events.write({"event": "cleaned", "vault": vault.name})
                left.discard(vault.name)
    return not left


def _clean_vault(vault: Vault, host: str, keys: Sequence[str]) -> None:
    """Remove what one job left, unless its snapshot had been committed to this vault: then all of it stays.

    Raises `VaultError` when the vault cannot be used.
    """
    snapshots = [key for key in keys if SNAPSHOT_ID.fullmatch(key)]
    if any(_holds(vault, snapshot) for snapshot in snapshots):
        return
    for snapshot in snapshots:
        for stored in list(vault.list(snapshot_prefix(snapshot))):
            vault.delete(stored.key)
        # Nobody else writes below a snapshot's own prefix, so that even the youngest leftovers there are this run's.
        vault.clean_leftovers(utc_now() + _LEFTOVER_AGE, snapshot_prefix(snapshot))
        vault.delete(manifest_key(snapshot))  # which is not there; this removes the empty directory
    for key in keys:
        if key.startswith(f"{HOSTS}{host}/"):
            for stored in list(vault.list(key)):
                if stored.key.startswith(f"{key}."):  # the codecs' suffixes
                    vault.delete(stored.key)
