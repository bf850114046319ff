"""`mastovault demo` in a terminal: the app opens on the fleet, and all ends with it, runs that it started too."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path

import psutil

from backends.embedded.keeper import marked
from backends.lab.directory import mark_of

PATIENCE = 90.0


class Terminal:
    """A pseudo-terminal with the demo in it, and what it has shown so far."""

    def __init__(self) -> None:
        self.shown = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
            os.execve(sys.executable, [sys.executable, "-m", "tui", "demo", "--hosts", "1"], environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))

    def wait_for(self, text: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown[-2000:]
            assert self._read(), self.shown[-2000:]

    def press(self, key: bytes) -> None:
        os.write(self.fd, key)

    def wait_for_end(self) -> int:
        while self._read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        ready, _, _ = select.select([self.fd], [], [], PATIENCE)
        try:
            data = os.read(self.fd, 1 << 16) if ready else b""
        except OSError:
            data = b""
        self.shown += data
        return bool(data)


def test_the_demo_opens_the_app_and_ends_with_it() -> None:
    terminal = Terminal()
    terminal.wait_for(b"\x1b[?1049h")
    family = psutil.Process(terminal.pid).children(recursive=True)
    directory = Path(_argument(family, re.compile(r"(/\S+/mastovault-demo-[^/\s]+)/")))
    mark = mark_of(directory)
    terminal.wait_for(b"social")
    terminal.press(b"b")
    terminal.wait_for(b"backup")
    terminal.press(b"q")
    assert terminal.wait_for_end() == 0, terminal.shown[-2000:]
    assert b"Traceback" not in terminal.shown
    assert not psutil.wait_procs(family, timeout=15)[1]
    assert not marked(mark)
    assert not directory.exists()


def _argument(family: list[psutil.Process], wanted: re.Pattern[str]) -> str:
    """What the command line of any process says that matches."""
    for process in family:
        found = wanted.search(" ".join(process.cmdline()))
        if found:
            return found[1]
    raise AssertionError("no process of the fleet names its directory")
