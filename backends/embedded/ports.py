"""Free ports on loopback, from below the range that outgoing connections take theirs from."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

_dice = random.SystemRandom()
_given: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing uses now; no port is given twice by one process."""
    with _lock:
        while True:
            port = _dice.randrange(12000, 32000)
            if port in _given:
                continue
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port


def hold_port(port: int) -> socket.socket:
    """Keep a port from being taken while nothing listens on it: a connection to it is refused."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held
