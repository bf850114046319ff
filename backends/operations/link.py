"""The one connection that the jobs of a host share, made again when it was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

from backends.config.schema import HostConfig
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.errors import ConnectionFailed, MastovaultError
from backends.mastodon.discovery import discover
from backends.mastodon.installation import Installation
from backends.mastodon.kinds import require_supported
from backends.operations.line import ATTEMPTS, Answers, Ask, pause


class Link:
    """A connection and what discovery found over it. Passwords are asked for once and kept for a reconnection."""

    def __init__(self, name: str, host: HostConfig) -> None:
        self._name, self._host = name, host
        self._answers = Answers()
        self._lock = threading.Lock()
        self._held: tuple[Connection, Installation] | None = None
        self._refused: MastovaultError | None = None

    def get(
        self, log: Callable[[str], None], wait: Callable[[float], None], ask: Ask | None
    ) -> tuple[Connection, Installation]:
        """The live connection; connects when there is none, and tries again when that may help.

        A host that refused one job is not asked again for the next: all get the same answer.

        Args:
            log: told of every attempt that failed.
            wait: waits some seconds, or raises `Cancelled`.
            ask: asks the operator for a secret, for as long as this connection lives.

        Raises:
            ConnectionFailed, LoginRefused, HostKeyUnknown, HostKeyChanged: as `open_connection`.
            DiscoveryFailed: there is no Mastodon that this release can back up.
        """
        with self._lock:
            if self._refused is not None:
                raise self._refused.with_traceback(None)
            attempt = 1
            while self._held is None:
                try:
                    self._held = self._connect(ask)
                except MastovaultError as error:
                    wait(0)  # a job that was cancelled gave no answers: the others shall ask for themselves
                    if not isinstance(error, ConnectionFailed) or not error.retryable or attempt == ATTEMPTS:
                        self._refused = error
                        raise
                    log(f"{error.sentence}; trying again ({attempt + 1} of {ATTEMPTS})")
                    wait(pause(attempt))
                    attempt += 1
            return self._held

    def lose(self, connection: Connection) -> None:
        """Drop a connection that failed, so that the next `get` makes a new one."""
        with self._lock:
            if self._held and self._held[0] is connection:
                self._held = None
        connection.close()

    def close(self) -> None:
        """Close what is open."""
        if self._held:
            self._held[0].close()

    def _connect(self, ask: Ask | None) -> tuple[Connection, Installation]:
        connection = open_connection(self._name, self._host, ask=self._answers.remembering(ask) if ask else None)
        try:
            installation = discover(connection, self._name, self._host)
            require_supported(installation)
        except BaseException:
            connection.close()
            raise
        return connection, installation
