"""What a carrier of commands (SSH, this machine) must bring; everything else is the same for all."""

from __future__ import annotations

from typing import Protocol

from backends.connection.tail import StderrTail


class Stream(Protocol):
    """The three streams and the status of a raw command; what `ssh` and `local` bring."""

    tail: StderrTail

    def recv(self, size: int, timeout: float | None) -> bytes:
        """Read stdout; b"" at its true end. Raises `ConnectionFailed` when it was lost, `TimeoutError`."""

    def send(self, data: bytes) -> None:
        """Write stdin. Raises `BrokenPipeError` when the command takes no more, `ConnectionFailed`."""

    def end_input(self) -> None:
        """Close stdin."""

    def status(self, timeout: float | None) -> int:
        """Wait for the exit status, -1 after a signal. Raises `ConnectionFailed`, `TimeoutError`."""

    def ended(self) -> bool:
        """Whether the status is there already."""

    def interrupt(self) -> None:
        """Ask by other means than a second command that the command ends."""

    def abandon(self) -> None:
        """Let go of the streams; blocked reads and writes return."""
