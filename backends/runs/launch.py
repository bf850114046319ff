"""Starting a run: a folder with the request, and a process of its own that outlives whoever started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from backends.config.paths import Paths
from backends.errors import MastovaultError
from backends.model import Asset, JobSnapshot, JobState, utc_now
from backends.runs.events import EventWriter, progress_event
from backends.runs.folder import (
    begun_at,
    folders,
    is_alive,
    new_folder,
    process_start,
    read_request,
    write_request,
)

KEEP_RUNS = 200
KEEP_FOR = timedelta(days=30)
_NO_OPTIONS: Mapping[str, Any] = {}


def start_run(
    paths: Paths, *, kind: str, host: str, assets: Sequence[Asset], options: Mapping[str, Any] = _NO_OPTIONS
) -> str:
    """Start a run and return its id; the process is detached: it needs neither this process nor its terminal.

    Args:
        paths: handed on to the run.
        kind: one of `backends.runs.kinds`.
        host: the host's name in the configuration.
        assets: its jobs.
        options: `interactive` (default true): whether somebody may answer questions; and what its kind needs.

    Raises:
        MastovaultError: the state directory cannot be written.
    """
    ordered = [asset for asset in Asset if asset in assets]
    try:
        _forget_old(paths)
        folder, request = new_folder(paths.state_dir, kind=kind, host=host, assets=ordered, options=options)
        events = EventWriter(folder)
        for asset in ordered:
            queued = JobSnapshot(id=asset.value, host=host, asset=asset, state=JobState.QUEUED)
            events.write(progress_event(queued))
        events.close()
        with (folder / "output.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "backends.runs.process", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **paths.environment()},
            )
    except OSError as error:
        raise MastovaultError(
            f"no run can be started: {paths.state_dir}: {error.strerror}", "Check the owner and the room of that place."
        ) from None
    # The process says the same of itself; from here on, one that ends before it can is not taken for alive.
    with contextlib.suppress(OSError):
        write_request(folder, replace(request, pid=process.pid, started=process_start(process.pid)))
    _children.append(process)
    _reap()
    return request.id


# Ended children must be waited for, or they stay as zombies for as long as the app is open.
_children: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


def _forget_old(paths: Paths) -> None:
    """Remove the folders of runs that ended long ago, or of which there are too many."""
    now = utc_now()
    for number, folder in enumerate(reversed(folders(paths.state_dir))):
        if number >= KEEP_RUNS or now - begun_at(folder) > KEEP_FOR:
            request = read_request(folder)
            if request is None or not is_alive(request, now):
                shutil.rmtree(folder, ignore_errors=True)
