"""Into another network namespace from this one: a socket there, and a relay from a port here to a port there."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_CLONE_NEWNET = 0x40000000
_CHUNK = 1 << 16


def connect(leader: int, port: int) -> socket.socket:
    """A connection to 127.0.0.1:`port` as a process of `leader`'s network namespace would make it. Raises `OSError`."""
    made: list[socket.socket | OSError] = []
    # A namespace belongs to a thread; this one's ends with it, the socket stays where it was made.
    thread = threading.Thread(target=lambda: made.append(_connect_there(leader, port)))
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _connect_there(leader: int, port: int) -> socket.socket | OSError:
    try:
        with Path(f"/proc/{leader}/ns/net").open("rb") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _CLONE_NEWNET):
                return OSError(ctypes.get_errno(), "cannot enter the network namespace")
        return socket.create_connection(("127.0.0.1", port), timeout=10)
    except OSError as error:
        return error


class Relay:
    """Listens on 127.0.0.1:`port` here and carries every connection to a port of `leader`'s namespace."""

    def __init__(self, leader: int, target_port: int) -> None:
        self._leader, self._target_port = leader, target_port
        self._server = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = int(self._server.getsockname()[1])
        self._open = threading.Event()
        self._open.set()
        self._lines: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="debian-relay", daemon=True).start()

    def cut(self) -> None:
        """Break the connections of this moment; new ones are taken."""
        with self._lock:
            lines, self._lines = self._lines, set()
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Carry nothing until `go_on`, as a line that hangs; nothing is lost."""
        self._open.clear()

    def go_on(self) -> None:
        """Carry again."""
        self._open.set()

    def stop(self) -> None:
        """Break every connection and listen no more."""
        self.go_on()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        for near in self._accepted():
            try:
                far = connect(self._leader, self._target_port)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._lines |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _accepted(self) -> Iterator[socket.socket]:
        with contextlib.suppress(OSError):
            while True:
                yield self._server.accept()[0]

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(_CHUNK):
                self._open.wait()
                other.sendall(data)
        for line in (one, other):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._lines -= {one, other}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
