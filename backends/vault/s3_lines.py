"""Many connections to one server in one thread, each with one request at a time.

One thread, for Python lets only one of them compute: sixteen spend more time handing over to each other than asking.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field

from backends.vault.s3_answer import Answer, Unusual

LINES = 32
_PIECE = 64 * 1024
_PATIENCE = 64
"""Failures in a row after which nothing more is asked for in this way."""
_LOOK_SECONDS = 1.0
_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError)


@dataclass(eq=False, slots=True)
class _Line:
    """A connection, and what was asked for over it."""

    socket: socket.socket
    number: int = -1
    """Of the request; -1 when there is none."""
    answer: Answer = field(default_factory=lambda: Answer(0))
    since: float = 0.0
    """When something was last heard, in seconds of the monotonic clock."""


class Lines:
    """Asks for objects by number, and says of each what came of it; used by one thread only."""

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        request: Callable[[str], bytes],
        run: Executor,
        most: int,
        seconds: float,
        done: Callable[[int, bytes | None], None],
    ) -> None:
        """Nothing is connected yet.

        Args:
            connect: makes a connection.
            request: makes the request for a key when its turn has come, for signatures grow old.
            run: where connections are made, which takes its time.
            most: bytes of each content that are of interest.
            seconds: of silence after which an answer is given up.
            done: told of each number: its content, or None when it is to be asked for in another way.
        """
        self._connect, self._request, self._run = connect, request, run
        self._most, self._patience, self._done = most, seconds, done
        self._asked: deque[tuple[int, str]] = deque()
        self._all: set[_Line] = set()
        self._idle: list[_Line] = []
        self._coming: list[Future[socket.socket]] = []
        self._allowed, self._failed, self._looked = LINES, 0, 0.0
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        for end in (self._bell, self._ringer):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def ask(self, number: int, key: str) -> None:
        """Have an object asked for at a later turn."""
        if self._allowed > 0:
            self._asked.append((number, key))
        else:
            self._done(number, None)

    def ring(self, *_: object) -> None:
        """End the wait of a turn; may be called by any thread."""
        with suppress(OSError):  # full: it rings already; closed: nobody waits
            self._ringer.send(b"\0")

    def turn(self, seconds: float, others: int = 0) -> None:
        """Send and hear what there is, after a wait for something to happen of at most so long.

        `others` are requests that are made in another way at the same time.
        """
        self._hand_out(others)
        for event, _ in self._selector.select(seconds):
            if event.data is None:
                with suppress(OSError):
                    self._bell.recv(_PIECE)
            else:
                self._hear(event.data)
        self._welcome()
        self._hand_out(others)
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            for line in [each for each in self._all if each.number >= 0 and now - each.since > self._patience]:
                self._fail(line)

    def close(self) -> None:
        """Let go of all connections, also of those that are still being made."""
        for coming in self._coming:
            coming.add_done_callback(_hang_up)
        for line in self._all:
            line.socket.close()
        self._selector.close()
        self._bell.close()
        self._ringer.close()

    def _hand_out(self, others: int) -> None:
        """Give what is asked for to who is free, and have as many more connections made as that needs."""
        room = max(1, self._allowed - others) - (len(self._all) - len(self._idle))
        while self._asked and self._idle and room > 0:
            room -= 1
            self._send(self._idle.pop(), *self._asked.popleft())
        lacking = min(len(self._asked), room) - len(self._idle) - len(self._coming)
        for _ in range(min(lacking, self._allowed - len(self._all) - len(self._coming))):
            coming = self._run.submit(self._connect)
            self._coming.append(coming)
            coming.add_done_callback(self.ring)

    def _welcome(self) -> None:
        """Take over the connections that have been made."""
        for coming in [each for each in self._coming if each.done()]:
            self._coming.remove(coming)
            try:
                made = coming.result()
                made.setblocking(False)
            except Exception:  # noqa: BLE001 - the ordinary way says what is wrong
                self._allowed -= 1
                if not self._all and not self._coming:
                    self._give_up()
                continue
            line = _Line(made)
            self._all.add(line)
            self._idle.append(line)
            self._selector.register(made, selectors.EVENT_READ, line)

    def _send(self, line: _Line, number: int, key: str) -> None:
        line.number, line.answer, line.since = number, Answer(self._most), time.monotonic()
        try:
            data = self._request(key)
            if line.socket.send(data) == len(data):
                return
        except Exception:  # noqa: BLE001, S110 - the ordinary way says what is wrong
            pass
        self._fail(line)

    def _hear(self, line: _Line) -> None:
        """Take what has arrived; whoever speaks unasked is not listened to."""
        content: bytes | None = None
        try:
            while content is None:
                piece = line.socket.recv(_PIECE)
                if not piece or line.number < 0:
                    raise Unusual
                content = line.answer.take(piece)
        except _NOTHING_YET:
            line.since = time.monotonic()
            return
        except (OSError, Unusual):
            self._fail(line)
            return
        self._failed = 0
        number, line.number = line.number, -1
        if line.answer.last:
            self._drop(line)
        else:
            self._idle.append(line)
        self._done(number, content)

    def _fail(self, line: _Line) -> None:
        """What is left of an answer must not be taken for the next one."""
        number = line.number
        self._drop(line)
        if number < 0:
            return
        self._done(number, None)
        self._failed += 1
        if self._failed >= _PATIENCE:
            self._give_up()

    def _give_up(self) -> None:
        self._allowed = 0
        while self._asked:
            self._done(self._asked.popleft()[0], None)

    def _drop(self, line: _Line) -> None:
        self._selector.unregister(line.socket)
        self._all.discard(line)
        if line in self._idle:
            self._idle.remove(line)
        with suppress(OSError):
            line.socket.close()


def _hang_up(coming: Future[socket.socket]) -> None:
    with suppress(Exception):
        coming.result().close()
