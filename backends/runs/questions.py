"""What a run has asked and nobody has answered yet."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

from backends.errors import MastovaultError
from backends.model import Secret
from backends.runs.events import EventWriter
from backends.untrusted import clean

WAIT_SECONDS = 600.0


class Questions:
    """Asks over the events and waits for the control socket to bring the answer."""

    def __init__(self, events: EventWriter, *, interactive: bool) -> None:
        self._events, self._interactive = events, interactive
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
            waited = 0.0
            while self._open[number] is None and waited < WAIT_SECONDS and not stopped():
                self._lock.wait(0.2)
                waited += 0.2
            self._events.write({"event": "answered", "id": number})
            return self._open.pop(number)

    def answer(self, message: Mapping[str, Any]) -> None:
        """Take an answer from the control socket. Raises `MastovaultError` when nothing was asked."""
        secret = message["secret"]
        if not isinstance(secret, str):
            raise TypeError("secret")
        with self._lock:
            number = message["question"]
            if number not in self._open:
                raise MastovaultError("that question was answered already")
            self._open[number] = Secret(secret)
            self._lock.notify_all()
