"""What happens when the app itself is wrong: it stays up, says one sentence, and writes the rest to a file."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.model import rfc3339, utc_now

if TYPE_CHECKING:
    from textual.app import App
    from textual.message import Message

_TOO_MANY = 20
_WITHIN_SECONDS = 10.0


class FaultLog:
    """Counts and records what went wrong; the tracebacks hold no values, so no secret can be in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: set[str] = set()
        self._times: deque[float] = deque(maxlen=_TOO_MANY)

    def record(self, error: BaseException) -> bool:
        """Write the fault down; True when it is a new one that the operator has not been told of."""
        self._times.append(time.monotonic())
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else repr(error)
        new = place not in self._seen
        self._seen.add(place)
        if new:
            self._write(error)
        return new

    @property
    def flooded(self) -> bool:
        """Whether so much goes wrong that going on is of no use."""
        return len(self._times) == _TOO_MANY and self._times[-1] - self._times[0] < _WITHIN_SECONDS

    def _write(self, error: BaseException) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            opened = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(opened, "a", encoding="utf-8") as file:
                file.write(f"--- {rfc3339(utc_now())}\n")
                file.writelines(traceback.format_exception(error))
        except OSError:
            # The disk may be what is wrong; the sentence on the screen is all there is then.
            return


class Guarded:
    """Mixed into the app and its screens: an exception in a handler is told, and the message loop goes on.

    Textual 8.2.8 ends a widget's loop when a handler raises; catching at the dispatch keeps it alive.
    """

    async def _dispatch_message(self, message: Message) -> None:
        try:
            await super()._dispatch_message(message)  # type: ignore[misc]
        except Exception as error:
            app: App[Any] = self.app  # type: ignore[attr-defined]
            if not getattr(app, "stays_up", False):
                raise
            app._handle_exception(error)
