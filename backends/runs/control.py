"""Telling a run something over its control socket: cancel a job, answer a question. One JSON document each way."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.errors import MastovaultError
from backends.model import Secret
from backends.runs.folder import folder_of, read_request
from backends.untrusted import clean

_TIMEOUT = 5.0
MAX_MESSAGE = 64 * 1024


def cancel(state_dir: Path, run_id: str, job: str | None = None) -> None:
    """Ask a run, or one job of it, to stop; it says CANCELLING until it has.

    Raises:
        MastovaultError: there is no such run, or it has ended.
    """
    _tell(state_dir, run_id, {"do": "cancel", "job": job})


def answer(state_dir: Path, run_id: str, question_id: str, secret: Secret) -> None:
    """Give a run the secret that it asked for; it goes through the socket only.

    Raises:
        MastovaultError: there is no such run, it has ended, or the question was answered already.
    """
    _tell(state_dir, run_id, {"do": "answer", "question": question_id, "secret": secret.reveal()})


def _tell(state_dir: Path, run_id: str, message: Mapping[str, Any]) -> None:
    request = read_request(folder_of(state_dir, run_id))
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_TIMEOUT)
            line.connect(request.control if request else "")
            line.sendall(json.dumps(message).encode() + b"\n")
            with line.makefile("rb") as answers:
                said = json.loads(answers.readline(MAX_MESSAGE))
    except (OSError, ValueError):
        raise MastovaultError(
            f"the run {run_id} does not answer; it has ended", "`mastovault runs` shows how."
        ) from None
    if not said.get("ok"):
        raise MastovaultError(clean(str(said.get("error", "the run refused")), 300))
