"""Telling a run something over its control socket: cancel a job, answer a question. One JSON document each way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.errors import MastovaultError
from backends.model import Secret, utc_now
from backends.runs.folder import Request, folder_of, is_alive, process_start, read_request
from backends.untrusted import clean

_TIMEOUT = 5.0
PATIENCE = 10.0
"""Seconds until a run that was just started must listen."""
MAX_MESSAGE = 64 * 1024


class _NoAnswer(MastovaultError):
    """Nobody listens on the control socket."""


def cancel(state_dir: Path, run_id: str, job: str | None = None) -> None:
    """Ask a run, or one job of it, to stop; it says CANCELLING until it has.

    Raises:
        MastovaultError: there is no such run, or it has ended.
    """
    try:
        _tell(state_dir, run_id, {"do": "cancel", "job": job})
    except _NoAnswer:
        request = read_request(folder_of(state_dir, run_id))
        if job is not None or request is None or not _terminate(request):
            raise


def answer(state_dir: Path, run_id: str, question_id: str, secret: Secret) -> None:
    """Give a run the secret that it asked for; it goes through the socket only. An empty one says: nobody can answer.

    Raises:
        MastovaultError: there is no such run, it has ended, or the question was answered already.
    """
    _tell(state_dir, run_id, {"do": "answer", "question": question_id, "secret": secret.reveal()})


def _tell(state_dir: Path, run_id: str, message: Mapping[str, Any]) -> None:
    folder = folder_of(state_dir, run_id)
    try:
        with _connect(folder) as line:
            line.sendall(json.dumps(message).encode() + b"\n")
            with line.makefile("rb") as answers:
                said = json.loads(answers.readline(MAX_MESSAGE))
        refused = "" if said["ok"] else clean(str(said.get("error", "the run refused")), 300)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _NoAnswer(
            f"the run {folder.name} does not answer; it has ended", "`mastovault runs` shows how."
        ) from None
    if refused:
        raise MastovaultError(refused, "`mastovault runs` shows it.")


def _connect(folder: Path) -> socket.socket:
    """Connect to a run; one that is alive and does not listen yet gets some seconds. Raises `OSError`."""
    while True:
        request = read_request(folder)
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(_TIMEOUT)
        try:
            line.connect(request.control if request else "")
        except OSError:
            line.close()
            now = utc_now()
            if request is None or not is_alive(request, now) or (now - request.begun_at).total_seconds() > PATIENCE:
                raise
            time.sleep(0.05)
        else:
            return line


def _terminate(request: Request) -> bool:
    """End a run whose socket is gone by a signal, which cancels it as well; never another process with its number."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(request.pid)
        try:
            if request.started and process_start(request.pid) == request.started:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
                return True
        finally:
            os.close(handle)
    return False
