"""A running command, the same over SSH and here: start marker, streams, end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from backends.connection.base import Process
from backends.connection.checked import CheckedStream
from backends.connection.stream import Stream
from backends.connection.wrapper import Preamble, Wrapped
from backends.errors import Cancelled, ConnectionFailed
from backends.untrusted import clean

READ_SIZE = 1024 * 1024
START_TIMEOUT = 30.0
"""Seconds until the wrapper must have spoken; sudo may ask a slow directory."""
GRACE = 3.0
"""Seconds between TERM and KILL."""
_log = logging.getLogger(__name__)


class NoStart(Exception):
    """The wrapper never spoke: what ran instead said `stdout` and `stderr` and ended with `status`, or hangs."""

    def __init__(self, stdout: str, stderr: str, status: int | None) -> None:
        super().__init__(stderr or stdout)
        self.stdout = stdout
        self.stderr = stderr
        self.status = status


class RunningProcess(Process):
    """A command behind its wrapper."""

    def __init__(self, stream: Stream, host: str, end_group: Callable[[int, int], None]) -> None:
        """Take over a started stream.

        Args:
            stream: the raw command.
            host: its host's name, for messages.
            end_group: ends a process group by its id and the id of the wrapper's process, with TERM and then KILL.
        """
        self._stream = stream
        self._host = host
        self._end_group = end_group
        self._rest = b""
        self._pid: int | None = None
        self._group: int | None = None
        self._terminated = False
        self._ending = threading.Lock()

    def begin(self, wrapped: Wrapped, password: bytes, timeout: float, *, end_input: bool = False) -> None:
        """Wait for the wrapper to speak, then hand over what it waits for.

        Args:
            wrapped: what was started.
            password: a line for sudo or su, sent at once.
            timeout: seconds to wait.
            end_input: nothing but the password is to be read.

        Raises:
            NoStart: something else ran.
            ConnectionFailed: the connection was lost.
        """
        preamble = Preamble(wrapped.marker.encode())
        deadline = time.monotonic() + timeout
        try:
            if password:
                self._stream.send(password)
            if end_input:
                self._stream.end_input()
            while True:
                data = self._stream.recv(READ_SIZE, max(0.01, deadline - time.monotonic()))
                if not data:
                    raise self._no_start(preamble)
                rest = preamble.feed(data)
                if rest is not None:
                    break
            if wrapped.stdin:
                self._stream.send(wrapped.stdin)
        except (TimeoutError, OverflowError):
            self._stream.abandon()
            raise NoStart(_shown(preamble.pending), self._stream.tail.before(), None) from None
        except BrokenPipeError:
            raise self._no_start(preamble) from None
        self._pid, self._group = preamble.pid, preamble.group
        if wrapped.trailer:
            self._stream = CheckedStream(self._stream, wrapped.trailer.encode(), rest, self._host)
        else:
            self._rest = rest
        if preamble.noise:
            _log.info("%s: the login shell said before the command: %s", self._host, clean(preamble.noise, 300))

    def _no_start(self, preamble: Preamble) -> NoStart:
        try:
            status: int | None = self._stream.status(GRACE)
        except TimeoutError:
            status = None
        self._stream.abandon()
        return NoStart(_shown(preamble.pending), self._stream.tail.before(), status)

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes of stdout, all of it when negative; b"" at its end.

        Raises:
            ConnectionFailed: the connection was lost.
            Cancelled: the process was terminated here.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(READ_SIZE), b""))
        return self._read(size, None)

    def read_within(self, size: int, timeout: float) -> bytes:
        """Read as `read` does. Raises `TimeoutError` when nothing came in `timeout` seconds."""
        return self._read(size, max(0.0, timeout))

    def stderr_kept(self) -> bytes:
        """The beginning of stderr, raw, as much as was to be kept."""
        return self._stream.tail.kept()

    def _read(self, size: int, timeout: float | None) -> bytes:
        if self._rest and size:
            taken, self._rest = self._rest[:size], self._rest[size:]
            return taken
        try:
            data = self._stream.recv(size, timeout)
        except ConnectionFailed:
            if self._terminated:
                raise Cancelled from None
            raise
        if not data and size and self._terminated:
            raise Cancelled
        return data

    def write(self, data: bytes) -> None:
        """Write to stdin, blocking until it is taken.

        Raises:
            BrokenPipeError: the command takes no more input; `wait` says why.
            ConnectionFailed: the connection was lost.
            Cancelled: the process was terminated here.
        """
        try:
            self._stream.send(data)
        except (BrokenPipeError, ConnectionFailed):
            if self._terminated:
                raise Cancelled from None
            raise

    def close_stdin(self) -> None:
        """Tell the command that its input has ended."""
        self._stream.end_input()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status; -1 when it was ended by a signal or terminated here."""
        try:
            return self._stream.status(timeout)
        except ConnectionFailed:
            if self._terminated:
                return -1
            raise

    def stderr_tail(self) -> str:
        """The last 20 lines of stderr so far, cleaned."""
        return self._stream.tail.text()

    def terminate(self) -> None:
        """End the command and all it started, and close the streams; returns when that is done. Idempotent."""
        with self._ending:
            if self._terminated:
                return
            ended = self._stream.ended()
            self._terminated = not ended
            try:
                if not ended and self._pid is not None:
                    self._end_group(self._group or 0, self._pid)
            finally:
                self._stream.abandon()


def _shown(noise: bytes) -> str:
    return clean(noise, 1000, lines=True).strip()
