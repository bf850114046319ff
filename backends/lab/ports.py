"""Free ports on loopback, from below the range that outgoing connections take theirs from."""

from __future__ import annotations

import contextlib
import random
import socket

_dice = random.SystemRandom()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing uses now."""
    while True:
        port = _dice.randrange(15000, 32000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def hold_port(port: int) -> socket.socket:
    """Keep a port from being taken while nothing listens on it: a connection to it is refused."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held
