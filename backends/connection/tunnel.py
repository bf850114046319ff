"""A channel as a real socket: a socket pair with one thread for each direction."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from backends.connection.transport import Channel

_PIECE = 256 * 1024


def socket_over(channel: Channel) -> socket.socket:
    """A connected socket whose bytes go through the channel; closing it closes the channel."""
    ours, theirs = socket.socketpair()
    for name, pump in (("in", _pump_in), ("out", _pump_out)):
        threading.Thread(target=pump, args=(channel, ours), name=f"tunnel-{name}", daemon=True).start()
    return theirs


def _pump_in(channel: Channel, ours: socket.socket) -> None:
    """From the host to the socket, until the host ends it or nobody reads it any more."""
    with contextlib.suppress(OSError):
        while data := channel.recv(_PIECE):
            ours.sendall(data)
    with contextlib.suppress(OSError):
        # A half-closed connection goes on in the other direction; one that is over ends in both.
        ours.shutdown(socket.SHUT_RDWR if channel.closed else socket.SHUT_WR)


def _pump_out(channel: Channel, ours: socket.socket) -> None:
    """From the socket to the host, until the socket is closed."""
    # A transport that is gone says so with an EOFError (paramiko/packet.py, write_all).
    with contextlib.suppress(OSError, EOFError):
        while data := ours.recv(_PIECE):
            channel.sendall(data)
        channel.shutdown_write()
        # Only the writing half may be closed so far; answers still go through until the rest is.
        over = select.poll()
        over.register(ours, 0)
        over.poll()
    with contextlib.suppress(OSError, EOFError):
        channel.close()
    ours.close()
