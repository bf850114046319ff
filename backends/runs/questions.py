"""What a run has asked and nobody has answered yet."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from backends.errors import MastovaultError
from backends.model import Secret
from backends.runs.events import EventWriter
from backends.untrusted import clean

WAIT_SECONDS = 600.0
_ANSWERED = Secret("")


class Questions:
    """Asks over the events and waits for the control socket to bring the answer."""

    def __init__(self, events: EventWriter, *, interactive: bool, wait_seconds: float = WAIT_SECONDS) -> None:
        self._events, self._interactive, self._wait_seconds = events, interactive, wait_seconds
        self._lock = threading.Condition()
        self._open: dict[str, Secret | None] = {}

    def ask(self, job: str, prompt: str, stopped: Callable[[], bool]) -> Secret | None:
        """Ask, and wait for the answer; None when nobody can answer, nobody did in ten minutes, or the job stops."""
        if not self._interactive:
            return None
        number = secrets.token_hex(4)
        with self._lock:
            self._open[number] = None
            self._events.write({"event": "question", "id": number, "job": job, "prompt": clean(prompt, 300)})
            until = time.monotonic() + self._wait_seconds
            while self._open[number] is None and time.monotonic() < until and not stopped():
                self._lock.wait(0.2)
            self._events.write({"event": "answered", "id": number})
            return self._open.pop(number) or None

    def answer(self, message: Mapping[str, Any]) -> None:
        """Take an answer from the control socket; an empty one says that nobody can answer.

        Raises:
            MastovaultError: nothing was asked, or it was answered.
        """
        secret = message["secret"]
        if not isinstance(secret, str):
            raise TypeError("secret")
        with self._lock:
            number = message["question"]
            if self._open.get(number, _ANSWERED) is not None:
                raise MastovaultError("that question was answered already")
            self._open[number] = Secret(secret)
            self._lock.notify_all()
