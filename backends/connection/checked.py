"""Proof that the output of a command arrived to its last byte, where somebody stands between it and us.

sudo copies a command's output when it logs it (`log_output`), and then loses the end of it now and then, with status 0
(seen with 1.9.13). So behind sudo the wrapper stays, and writes a random trailer after the command's output.
"""

from __future__ import annotations

from backends.connection.stream import Stream
from backends.errors import ConnectionFailed

_STATUS_TIMEOUT = 10.0


class CheckedStream:
    """A stream whose output must end with a trailer, which is taken off."""

    def __init__(self, inner: Stream, trailer: bytes, begun: bytes, host: str) -> None:
        """Take over a stream of which `begun` was read already."""
        self._inner = inner
        self.tail = inner.tail
        self._trailer = trailer
        self._held = b""
        self._begun = begun
        self._host = host
        self._complete = False

    def recv(self, size: int, timeout: float | None) -> bytes:
        """Read stdout without the trailer; what may be its beginning is held back.

        Raises:
            ConnectionFailed: the output ended before the command did, or the connection was lost.
            TimeoutError: nothing came.
        """
        while size > 0 and not self._complete:
            data, self._begun = self._begun or self._inner.recv(size, timeout), b""
            if not data:
                return self._end(size)
            data = self._held + data
            cut = _begin_of(self._trailer, data)
            if cut > size:
                self._begun, self._held = data[size:], b""
                return data[:size]
            self._held = data[cut:]
            self._complete = self._held == self._trailer
            if cut:
                return data[:cut]
        return b""

    def _end(self, size: int) -> bytes:
        """What is held is output after all; an end without a trailer and with status 0 is none."""
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        try:
            status = self._inner.status(_STATUS_TIMEOUT)
        except TimeoutError:
            status = 0
        if status == 0:
            raise ConnectionFailed(
                f"sudo on {self._host} lost the end of a command's output",
                "take log_output out of the sudoers entry of this user; sudo loses output while it logs it",
            )
        return b""

    def send(self, data: bytes) -> None:
        """Write stdin."""
        self._inner.send(data)

    def end_input(self) -> None:
        """Close stdin."""
        self._inner.end_input()

    def status(self, timeout: float | None) -> int:
        """Wait for the exit status."""
        return self._inner.status(timeout)

    def ended(self) -> bool:
        """Whether the status is there already."""
        return self._inner.ended()

    def interrupt(self) -> None:
        """Ask by other means that the command ends."""
        self._inner.interrupt()

    def abandon(self) -> None:
        """Let go of the streams."""
        self._complete = True
        self._inner.abandon()


def _begin_of(trailer: bytes, data: bytes) -> int:
    """Where the end of `data` may be the beginning of the trailer; its length when nothing of it is."""
    begin = max(0, len(data) - len(trailer))
    while (begin := data.find(trailer[:1], begin)) >= 0:
        if trailer.startswith(data[begin:]):
            return begin
        begin += 1
    return len(data)
