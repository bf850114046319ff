"""This machine, for an administrator who runs the app on the server itself; behaves as a connection over SSH does."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import IO, cast

from backends.config.schema import HostConfig
from backends.connection.login import Ask
from backends.connection.machine import Machine
from backends.connection.process import GRACE
from backends.connection.tail import StderrTail
from backends.errors import ConnectionFailed
from backends.untrusted import clean

_PIECE = 64 * 1024
_CONNECT_TIMEOUT = 10.0


class LocalStream:
    """A command as a child of ours, in a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes], tail: StderrTail) -> None:
        """Take over a started child and follow its stderr."""
        self.tail = tail
        self._process = process
        self._stdin = cast(IO[bytes], process.stdin)
        self._stdout = cast(IO[bytes], process.stdout)
        self._stderr = cast(IO[bytes], process.stderr)
        self._input_lock = threading.Lock()
        self._output_lock = threading.Lock()
        # Wakes a blocked read when the streams are let go of.
        self._wake_read, self._wake_write = os.pipe()
        self._abandoned = False
        self._follower = threading.Thread(target=self._follow, name="stderr", daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        with self._stderr, contextlib.suppress(OSError, ValueError):
            while data := os.read(self._stderr.fileno(), _PIECE):
                self.tail.feed(data)
        # A zombie would look like a process that goes on.
        self._process.wait()

    def recv(self, size: int, timeout: float | None) -> bytes:
        """Read stdout."""
        with self._output_lock:
            if self._abandoned:
                return b""
            poll = select.poll()
            poll.register(self._stdout, select.POLLIN)
            poll.register(self._wake_read, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise TimeoutError
            return b"" if self._abandoned else os.read(self._stdout.fileno(), size)

    def send(self, data: bytes) -> None:
        """Write all of `data` to stdin."""
        with self._input_lock:
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._stdin.fileno(), view) :]
            except (OSError, ValueError):
                raise BrokenPipeError from None

    def end_input(self) -> None:
        """Close stdin."""
        with self._input_lock, contextlib.suppress(OSError):
            self._stdin.close()

    def status(self, timeout: float | None) -> int:
        """Wait for the exit status; the rest of stderr is there afterwards."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        self._follower.join(GRACE)
        return status if status >= 0 else -1

    def ended(self) -> bool:
        """Whether the child is gone."""
        return self._process.poll() is not None

    def interrupt(self) -> None:
        """End what is left of the child's session, as far as we may."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """Let go of the streams."""
        if self._abandoned:
            return
        self._abandoned = True
        os.write(self._wake_write, b"x")
        with self._output_lock:
            for end in (self._wake_read, self._wake_write):
                os.close(end)
            self._stdout.close()
        # A write that is blocked holds the lock until its reader is gone.
        if self._input_lock.acquire(timeout=0.1):
            with contextlib.suppress(OSError):
                self._stdin.close()
            self._input_lock.release()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.interrupt()
        self.end_input()


class LocalConnection(Machine):
    """This machine."""

    def __init__(self, name: str, host: HostConfig, ask: Ask | None) -> None:
        """Nothing to open: commands run as the user that the app runs as."""
        super().__init__(name, getpass.getuser(), host, ask)
        self._closed = False

    def _stream(self, argv: tuple[str, ...], tail: StderrTail, *, bulk: bool, urgent: bool = False) -> LocalStream:
        if self._closed:
            raise ConnectionFailed(f"the connection to {self.host} was closed")
        process = subprocess.Popen(
            [os.fsencode(word) for word in argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=Path("~").expanduser(),
            start_new_session=True,
        )
        return LocalStream(process, tail)

    def open_tcp(self, host: str, port: int) -> socket.socket:
        """A socket to `host:port`."""
        try:
            opened = socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT)
        except OSError as error:
            raise self._refused(f"{host}:{port}", error) from None
        opened.settimeout(None)
        return opened

    def open_unix(self, path: str) -> socket.socket:
        """A socket to a unix socket."""
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.connect(path)
        except OSError as error:
            opened.close()
            raise self._refused(path, error) from None
        return opened

    def close(self) -> None:
        """Start nothing further."""
        self._closed = True

    def _refused(self, what: str, error: OSError) -> ConnectionFailed:
        what = clean(what, 200)
        return ConnectionFailed(
            f"{self.host} opens no connection to {what}: {error.strerror or error}",
            f"check that something listens on {what}",
        )
