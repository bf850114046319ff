"""A connection to a host that is made again when it was lost; passwords are asked for once."""

from __future__ import annotations

import random
from collections.abc import Callable

from backends.config.schema import HostConfig
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.errors import ConnectionFailed
from backends.model import Secret

ATTEMPTS = 3
_PAUSE = 2.0

Ask = Callable[[str], Secret | None]


class Line:
    """One connection at a time, for one thread."""

    def __init__(self, name: str, host: HostConfig) -> None:
        self._name, self._host = name, host
        self._answers = Answers()
        self._held: Connection | None = None

    def connect(
        self,
        log: Callable[[str], None],
        wait: Callable[[float], None],
        ask: Ask | None,
        attempts: int = ATTEMPTS,
    ) -> Connection:
        """The live connection; connects when there is none, and tries again when that may help.

        Args:
            log: told of every attempt that failed.
            wait: waits some seconds, or raises `Cancelled`.
            ask: asks the operator for a secret.
            attempts: how often.

        Raises:
            ConnectionFailed, LoginRefused, HostKeyUnknown, HostKeyChanged: as `open_connection`.
        """
        attempt = 1
        while self._held is None:
            try:
                asked = self._answers.remembering(ask) if ask else None
                self._held = open_connection(self._name, self._host, ask=asked)
            except ConnectionFailed as error:
                if not error.retryable or attempt >= attempts:
                    raise
                log(f"{error.sentence}; trying again ({attempt + 1} of {attempts})")
                wait(pause(attempt))
                attempt += 1
        return self._held

    def lose(self) -> None:
        """Drop a connection that failed, so that the next `connect` makes a new one."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def close(self) -> None:
        """Close what is open."""
        self.lose()


class Answers:
    """What the operator has typed, kept for as long as a run lasts."""

    def __init__(self) -> None:
        self._known: dict[str, Secret] = {}

    def remembering(self, ask: Ask) -> Ask:
        """An `ask` for one connection that asks the operator only for what is not known, or was refused."""
        given: set[str] = set()

        def answer(prompt: str) -> Secret | None:
            # What one connection asks for a second time was refused the first time: it is asked anew.
            if prompt in given or prompt not in self._known:
                self._known.pop(prompt, None)
                answered = ask(prompt)
                if answered is None:
                    return None
                self._known[prompt] = answered
            given.add(prompt)
            return self._known[prompt]

        return answer


def pause(attempt: int) -> float:
    """Seconds to wait before the next attempt: growing, with jitter so that many runs do not come back at once."""
    return min(60.0, _PAUSE * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret depends on it
