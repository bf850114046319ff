"""paramiko's transport and channel, made fast and exact where a backup needs it.

What is changed, and why (paramiko 5.1; the parts used are private to it, so pyproject pins the major version):
- bytes that arrive are kept as the packets they came in; paramiko's own buffer moves all of it on every read;
- the socket is read in large pieces, instead of twice for every packet (packets.py);
- stderr is consumed where it arrives, so a command that says much there never fills the window;
- an end by signal, an orderly close and a lost connection are told apart;
- a channel that the server closes in the middle of a key exchange does not hang the connection;
- the reason for a refused channel belongs to that channel, not to whichever thread asks first;
- unix sockets can be forwarded (`direct-streamlocal@openssh.com`, OpenSSH's PROTOCOL file, section 2.4).
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_OPEN,
    cMSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_WINDOW_ADJUST,
)
from paramiko.message import Message

from backends.connection.packets import BufferedSocket, FastPacketizer, SocketLike
from backends.connection.tail import StderrTail

# paramiko logs errors with their traces; every one of them reaches the user as a sentence anyway.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

WINDOW = 16 * 1024 * 1024
"""Bytes under way at most, and so what is kept in memory when the vaults are slower than the host. 100 ms of latency
at 160 MiB/s."""
NEAR_WINDOW = 2 * 1024 * 1024
"""The same for a host that answers at once: more would only fill memory."""
_FASTEST = 160 * 1024 * 1024
"""Bytes a second for which the window must suffice, where it may be that large."""
SMALL_WINDOW = 2 * 1024 * 1024
MAX_PACKET = 256 * 1024
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


class ChannelRefused(Exception):
    """The server did not open a channel; `code` is RFC 4254's reason (1 prohibited, 2 connect failed, 4 shortage)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class PacketQueue:
    """Takes the place of paramiko's BufferedPipe: packets in, packets out, nothing moved in between."""

    def __init__(self) -> None:
        self._ready = threading.Condition(threading.Lock())
        self._packets: deque[bytes] = deque()
        self._size = 0
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Add a packet; called by the transport's thread."""
        with self._ready:
            self._packets.append(data)
            self._size += len(data)
            self._ready.notify()

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Take up to `size` bytes, waiting for the first; b"" at the end.

        Raises:
            TimeoutError: nothing came in `timeout` seconds.
        """
        with self._ready:
            if not self._packets and not self._ready.wait_for(lambda: bool(self._packets) or self._closed, timeout):
                raise TimeoutError
            taken: list[bytes] = []
            room = size
            while self._packets and room > 0:
                packet = self._packets.popleft()
                if len(packet) > room:
                    self._packets.appendleft(packet[room:])
                    packet = packet[:room]
                taken.append(packet)
                room -= len(packet)
            self._size -= size - room
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def read_ready(self) -> bool:
        """Whether a read would not block for want of data."""
        return bool(self._packets)

    def empty(self) -> bytes:
        """Take all there is."""
        return self.read(self._size, 0) if self._packets else b""

    def close(self) -> None:
        """Say that nothing more will come."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def set_event(self, event: Any) -> None:
        """Refuse: nothing here selects on a channel."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self._size


class Channel(paramiko.Channel):
    """A channel that knows how it ended and eats its own stderr."""

    in_buffer: PacketQueue  # type: ignore[assignment]
    transport: Transport
    # Private to paramiko and missing in its stubs.
    _set_transport: Callable[[Transport], None]
    _set_window: Callable[[int, int], None]
    _check_add_window: Callable[[int], int]

    def __init__(self, chanid: int) -> None:
        super().__init__(chanid)
        self.in_buffer = PacketQueue()
        self.tail = StderrTail()
        self.refusal: ChannelRefused | None = None
        self.signal: str | None = None
        self.has_status = False
        self.streams_over = threading.Event()
        """Nothing more comes on stdout and stderr."""
        self.ended_by_server = False
        """The server said that the channel is over, as against a connection that was lost."""

    def recv(self, size: int, timeout: float | None = None) -> bytes:
        """Receive up to `size` bytes; b"" at the end. Raises `TimeoutError`."""
        if timeout is None:
            timeout = self.timeout
        data = self.in_buffer.read(size, timeout)
        self._acknowledge(len(data))
        return data

    def send_signal(self, name: str) -> None:
        """Ask the server to signal the command itself (RFC 4254 §6.9); no answer comes."""
        message = Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(self.remote_chanid)
        message.add_string("signal")
        message.add_boolean(False)
        message.add_string(name)
        self.transport._send_user_message(message)

    def _acknowledge(self, size: int) -> None:
        window = self._check_add_window(size)
        if window > 0:
            message = Message()
            message.add_byte(cMSG_CHANNEL_WINDOW_ADJUST)
            message.add_int(self.remote_chanid)
            message.add_int(window)
            with suppress(EOFError, OSError):  # what had come is given out; then the reader hears of the loss
                self.transport._send_user_message(message)

    def _feed_extended(self, m: Message) -> None:
        if m.get_int() != 1:
            return
        data = m.get_binary()
        self.tail.feed(data)
        self._acknowledge(len(data))

    def _handle_request(self, m: Message) -> None:
        kind = m.get_text()
        if kind == "exit-signal":
            m.get_boolean()
            self.signal = m.get_text()
        elif kind == "exit-status":
            self.has_status = True
        m.rewind()
        m.get_int()
        super()._handle_request(m)  # type: ignore[misc]

    def _handle_eof(self, m: Message) -> None:
        super()._handle_eof(m)  # type: ignore[misc]
        self.streams_over.set()

    def _set_closed(self) -> None:
        super()._set_closed()  # type: ignore[misc]
        self.streams_over.set()

    def _handle_close(self, m: Message) -> None:
        self.ended_by_server = True
        super()._handle_close(m)  # type: ignore[misc]


class Transport(paramiko.Transport):
    """One SSH connection."""

    # Private to paramiko and missing in its stubs.
    _next_channel: Callable[[], int]
    _channels: Any
    _send_message: Callable[[Message], None]
    _unlink_channel: Callable[[int], None]
    active: bool

    _preferred_ciphers = CIPHERS
    _preferred_macs = MACS
    _channel_handler_table = {  # noqa: RUF012 (paramiko's own table, with our methods)
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_EXTENDED_DATA: Channel._feed_extended,
        MSG_CHANNEL_REQUEST: Channel._handle_request,
        MSG_CHANNEL_EOF: Channel._handle_eof,
        MSG_CHANNEL_CLOSE: Channel._handle_close,
    }

    def __init__(self, sock: SocketLike, key_types: tuple[str, ...] = ()) -> None:
        """Prepare the connection; `key_types` are the host key algorithms to ask for first."""
        self._postponed: deque[Message] = deque()
        self._round_trip: float | None = None
        super().__init__(
            BufferedSocket(sock),  # type: ignore[arg-type]
            default_window_size=WINDOW,
            default_max_packet_size=MAX_PACKET,
            packetizer_class=FastPacketizer,
        )
        self._preferred_keys = (*key_types, *(kind for kind in KEY_TYPES if kind not in key_types))

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Host key algorithms, without certificates: those are not checked here, so they are not asked for."""
        return tuple(self._preferred_keys)

    @property
    def bulk_window(self) -> int:
        """The window of a channel that carries much, by the quickest answer so far."""
        if self._round_trip is None:
            return WINDOW
        return min(max(int(self._round_trip * _FASTEST), NEAR_WINDOW), WINDOW)

    def open(self, kind: str, *fields: str | int, window: int = SMALL_WINDOW, timeout: float) -> Channel:
        """Open a channel.

        Args:
            kind: the channel type of RFC 4254.
            fields: what that type adds to the request.
            window: bytes under way at most.
            timeout: seconds to wait for the answer.

        Raises:
            ChannelRefused: the server said no.
            EOFError: the connection is gone.
            TimeoutError: no answer.
        """
        with self.lock:
            number = self._next_channel()
            channel = Channel(number)
            self._channels.put(number, channel)
            self.channel_events[number] = answered = threading.Event()
            self.channels_seen[number] = True
            channel._set_transport(self)
            channel._set_window(window, MAX_PACKET)
        message = Message()
        message.add_byte(cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        for field in (number, window, MAX_PACKET, *fields):
            if isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        self._send_user_message(message)
        asked = time.monotonic()
        deadline = asked + timeout
        while not answered.wait(0.1):
            if not self.active:
                raise EOFError
            if time.monotonic() > deadline:
                self._unlink_channel(number)
                raise TimeoutError
        if channel.refusal is not None:
            raise channel.refusal
        if not channel.active:
            raise EOFError
        took = time.monotonic() - asked
        self._round_trip = took if self._round_trip is None else min(self._round_trip, took)
        return channel

    def _send_user_message(self, data: Message) -> None:
        """Send a message of a channel, but not in the middle of a key exchange.

        paramiko waits for the end of it, also in the very thread that carries it out: a channel that the server closes
        meanwhile would hang the connection until it fails.
        """
        if threading.current_thread() is not self:
            super()._send_user_message(data)  # type: ignore[misc]
        elif self.clear_to_send.is_set():
            # Nobody but this thread begins a key exchange.
            self._send_message(data)
        else:
            self._postponed.append(data)

    def _parse_newkeys(self, m: Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        while self._postponed and self.clear_to_send.is_set():
            self._send_message(self._postponed.popleft())

    def _parse_channel_open_failure(self, m: Message) -> None:
        number, code, text = m.get_int(), m.get_int(), m.get_text()
        channel = self._channels.get(number)
        if channel is not None:
            channel.refusal = ChannelRefused(code, text)
        m.rewind()
        super()._parse_channel_open_failure(m)  # type: ignore[misc]


def tune(sock: socket.socket) -> None:
    """Make a TCP socket notice a dead peer within about a minute, and send small packets at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 60_000)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
