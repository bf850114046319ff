"""The contract of every way to reach a host."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from backends.errors import CommandFailed
from backends.model import Secret
from backends.untrusted import clean

MAX_OUTPUT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """One command for a host: an argument list (never a shell string), as whom, and with which secrets.

    Attributes:
        argv: the program and its arguments; quoted for the remote shell by the connection. Use `("sh", "-c", ...)`
            where a pipeline is needed.
        as_user: run it as this user; None means as the login user. The connection uses `become` only when they differ.
        secret_env: variables handed over stdin, never in an argv (`PGPASSWORD`). Values hold no line break.
        env: ordinary variables (`LC_ALL`).
    """

    argv: tuple[str, ...]
    as_user: str | None = None
    secret_env: Mapping[str, Secret] | None = None
    env: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended: its exit status and what it wrote (stdout at most `MAX_OUTPUT`)."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text; raw: pass it through `clean()` before it is shown."""
        return self.stdout.decode("utf-8", "replace")


class Process(ABC):
    """A running command whose streams are followed. Reads block; `terminate` ends them from another thread."""

    @abstractmethod
    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes of stdout, as soon as some are there; b"" at its end.

        Raises `ConnectionFailed` when the connection is lost, `Cancelled` after `terminate`.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write to the command's stdin, blocking until it is taken.

        Raises `BrokenPipeError` when the command takes no more, and what `read` raises.
        """

    @abstractmethod
    def close_stdin(self) -> None:
        """Tell the command that its input has ended."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status; -1 when it was ended by a signal.

        Raises:
            ConnectionFailed: the connection was lost before a status arrived.
            TimeoutError: `timeout` seconds passed.
        """

    @abstractmethod
    def stderr_tail(self) -> str:
        """The last 20 lines of stderr so far, cleaned. A password prompt of sudo or su is not in it."""

    @abstractmethod
    def terminate(self) -> None:
        """End the command and all it started on the host (TERM, then KILL), and close the streams. Idempotent."""

    def close(self) -> None:
        """Give up what the process still holds; a running one is ended."""
        self.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Connection(ABC):
    """One host, reachable. Every method may be called from several threads at once."""

    host: str
    login_user: str

    @abstractmethod
    def start(self, command: Command, *, on_stderr: Callable[[bytes], None] | None = None) -> Process:
        """Start a command whose output is streamed.

        Args:
            command: what to run.
            on_stderr: called with stderr as it arrives, raw pieces of any length, from a thread of the connection; for
                followers of progress. All of it was delivered before `Process.wait` returns; `stderr_tail()` works
                all the same. It must be quick and not raise. A password prompt of sudo or su is not in it.

        Raises:
            ConnectionFailed: the connection is gone.
            BecomeRefused: the right to run it as `as_user` was not granted.
        """

    @abstractmethod
    def run(self, command: Command, *, stdin: bytes = b"", timeout: float = 60.0, limit: int = MAX_OUTPUT) -> Completed:
        """Run a command to its end; a status other than 0 is no error here.

        Raises:
            ConnectionFailed, BecomeRefused: as `start`.
            CommandFailed: it took longer than `timeout` seconds, or wrote more than `limit` bytes.
        """

    @abstractmethod
    def open_tcp(self, host: str, port: int) -> socket.socket:
        """A real socket whose other end is `host:port` as the host sees it.

        Raises `ConnectionFailed` when the far end refuses.
        """

    @abstractmethod
    def open_unix(self, path: str) -> socket.socket:
        """A real socket whose other end is a unix socket on the host. Raises `ConnectionFailed`."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection and all that runs over it. Idempotent."""

    def check(self, command: Command, *, timeout: float = 60.0, what: str = "") -> Completed:
        """Run a command that must end with status 0.

        Raises:
            CommandFailed: with `what` (or the program's name) and the end of its stderr.
        """
        completed = self.run(command, timeout=timeout)
        if completed.status != 0:
            said = clean(completed.stderr, lines=True).strip()
            last = said.splitlines()[-1] if said else "it said nothing"
            raise CommandFailed(
                f"{what or command.argv[0]} failed on {self.host} with status {completed.status}: {last}",
                status=completed.status,
                stderr=said,
            )
        return completed

    def has(self, program: str, *, as_user: str | None = None) -> bool:
        """Whether a program is on the host's PATH."""
        found = self.run(Command(("sh", "-c", 'command -v "$1" >/dev/null', "sh", program), as_user=as_user))
        return found.status == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def sh(script: str, *arguments: str) -> tuple[str, ...]:
    """The argv of a POSIX shell script with arguments as `$1`, `$2`...; values never become part of the script."""
    return ("sh", "-c", script, "sh", *arguments)


def lines_of(completed: Completed) -> Sequence[str]:
    """Stdout as a list of lines, raw."""
    return completed.text.splitlines()
