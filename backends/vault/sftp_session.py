"""One SFTP session: requests by many threads at once over one channel, each answered by its number.

paramiko's own client is for one thread, keeps no extension of the server and forgets the status code; its channel and
transport stay. The protocol is draft-ietf-secsh-filexfer-02 (version 3) with OpenSSH's extensions (its PROTOCOL file).
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from paramiko.ssh_exception import SSHException

from backends.connection.transport import Channel
from backends.untrusted import clean
from backends.vault.sftp_packets import Fields, Kind, Malformed, Status

_PIECE = 32 * 1024
_LARGEST = 1024 * 1024
"""Bytes of a packet; what we ask for makes none above 256 KiB."""
_SLOW = 600.0
"""Seconds; a server that syncs a large file to a slow disk says nothing meanwhile."""
_OVERHEAD = 64
"""Bytes that paramiko keeps free in a packet; it cuts what is longer, after copying it."""
_HEAD = struct.Struct(">IBI")


class Lost(Exception):
    """The session is over: the connection broke, nothing was answered in time, or what came is no SFTP.

    Attributes:
        silent: nothing came in time; asking again would only take as long once more.
    """

    def __init__(self, said: str, *, silent: bool = False) -> None:
        super().__init__(said)
        self.silent = silent


class Reply:
    """One answer that is awaited; by one thread only."""

    __slots__ = ("_done", "body", "kind", "lost")

    def __init__(self) -> None:
        self._done = threading.Lock()
        self._done.acquire()
        self.kind = 0
        self.body = b""
        self.lost: Lost | None = None

    def settle(self, kind: int, body: bytes) -> None:
        """The answer is there."""
        self.kind, self.body = kind, body
        self._done.release()

    def fail(self, lost: Lost) -> None:
        """There will be none."""
        self.lost = lost
        self._done.release()

    def wait(self, seconds: float) -> bool:
        """Whether it came in time."""
        return self._done.acquire(timeout=seconds)


class Session:
    """The SFTP subsystem on one channel."""

    def __init__(self, channel: Channel, patience: float) -> None:
        """Start the subsystem and agree on the version.

        Args:
            channel: a new session channel; it is closed with this.
            patience: seconds to wait for an answer.

        Raises:
            Lost: there is no SFTP behind it.
        """
        self._channel = channel
        self._patience = patience
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: dict[int, Reply] = {}
        self._number = 0
        self._slow = 0
        self._over: Lost | None = None
        self._store, self._at = b"", 0
        self.uses = 0
        """How many work with it; counted by whoever hands it out."""
        self._silence = patience
        self.extensions = self._begin()
        self._silence = threading.TIMEOUT_MAX  # nobody may have asked anything
        threading.Thread(target=self._receive, name="sftp", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._over is None

    @property
    def fell_silent(self) -> bool:
        """Whether it ended because nothing was answered in time."""
        return self._over is not None and self._over.silent

    def send(self, kind: Kind, fields: bytes, data: bytes | memoryview = b"") -> Reply:
        """Send a request and return its answer-to-be; `data` follows the fields as it is.

        Raises:
            Lost: the session is over.
        """
        reply, begun = Reply(), time.monotonic()
        while not self._sending.acquire(timeout=self._patience):
            self._go_on_waiting(begun, "took nothing")
        try:
            with self._lock:
                if self._over is not None:
                    raise self._over
                self._number = (self._number + 1) & 0xFFFFFFFF
                self._waiting[self._number] = reply
            self._push(_HEAD.pack(5 + len(fields) + len(data), kind, self._number) + fields, data)
        finally:
            self._sending.release()
        return reply

    def wait(self, reply: Reply, *, slow: bool = False) -> tuple[int, Fields]:
        """The answer to a request. With `slow` the server may take minutes, and others wait as long as that.

        Raises:
            Status: the server says that it failed.
            Lost: the session is over.
        """
        if slow:
            with self._lock:
                self._slow += 1
        try:
            self._await(reply)
        finally:
            if slow:
                with self._lock:
                    self._slow -= 1
        if reply.lost is not None:
            raise reply.lost
        fields = Fields(reply.body, 5)
        try:
            if reply.kind == Kind.STATUS:
                code = fields.number()
                if code:
                    raise Status(code, clean(fields.string_or_empty(), 200))
        except Malformed:
            raise self.garbage() from None
        return reply.kind, fields

    def garbage(self) -> Lost:
        """End the session, for what came cannot be understood."""
        return self.end(Lost("it answered with something that is no SFTP"))

    def end(self, lost: Lost) -> Lost:
        """Close it; whoever waits for an answer gets this instead. Returns what ended it first."""
        with self._lock:
            if self._over is None:
                self._over = lost
            over, waiting = self._over, list(self._waiting.values())
            self._waiting.clear()
        for reply in waiting:
            reply.fail(over)
        with suppress(OSError, EOFError, SSHException):
            self._channel.close()
        return over

    def _begin(self) -> Mapping[bytes, bytes]:
        self._channel.settimeout(self._patience)
        # paramiko waits for the answer to this without end.
        alarm = threading.Timer(self._patience, self._channel.close)
        alarm.daemon = True
        alarm.start()
        try:
            self._channel.invoke_subsystem("sftp")
            self._push(struct.pack(">IBI", 5, Kind.INIT, 3), b"")
            body = self._packet()
            fields = Fields(body, 1)
            if body[0] != Kind.VERSION or fields.number() < 3:
                raise Malformed
            found = {}
            while not fields.at_end:
                name = fields.string()
                found[name] = fields.string()
            return found
        except (Malformed, ValueError):
            raise self.garbage() from None
        except (SSHException, EOFError, OSError) as error:
            said = clean(self._channel.tail.text(), 200).strip() or clean(str(error), 100)
            raise self.end(Lost("it offers no SFTP" + (f" ({said})" if said else ""))) from None
        finally:
            alarm.cancel()

    def _push(self, head: bytes, data: bytes | memoryview) -> None:
        """Send all of a request; what is sent in part ends the session."""
        begun = time.monotonic()
        try:
            for piece in _pieces(head, memoryview(data), self._channel.out_max_packet_size - _OVERHEAD):
                while piece:
                    try:
                        sent = self._channel.send(piece)
                    except TimeoutError:
                        self._go_on_waiting(begun, "took nothing")
                        continue
                    if not sent:
                        raise EOFError
                    piece = piece[sent:]
        except (EOFError, OSError, SSHException):
            raise self.end(Lost("it closed the connection")) from None

    def _await(self, reply: Reply) -> None:
        begun = time.monotonic()
        while not reply.wait(self._patience):
            self._go_on_waiting(begun, "did not answer")

    def _go_on_waiting(self, begun: float, what: str) -> None:
        """A server that syncs a large file may be silent; any other has had its time. Raises `Lost`."""
        if not self._slow or time.monotonic() - begun > _SLOW:
            raise self.end(Lost(f"it {what} for {self._patience:g} seconds", silent=True))

    def _receive(self) -> None:
        """The session's thread: every packet to whoever waits for it."""
        lost = Lost("it closed the connection")
        try:
            while True:
                body = self._packet()
                with self._lock:
                    reply = self._waiting.pop(int.from_bytes(body[1:5], "big"), None)
                if reply is None:
                    raise Malformed
                reply.settle(body[0], body)
        except Malformed:
            lost = Lost("it answered with something that is no SFTP")
        except (EOFError, OSError, SSHException):
            pass
        self.end(lost)

    def _packet(self) -> bytes:
        """One packet without its length: type, number, content."""
        size = int.from_bytes(self._exactly(4), "big")
        if not 5 <= size <= _LARGEST:
            raise Malformed
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        have = len(self._store) - self._at
        if have >= size:
            self._at += size
            return self._store[self._at - size : self._at]
        pieces = [self._store[self._at :]]
        while have < size:
            # A little more than asked for: the next packet's length is most often in it.
            data = self._channel.recv(max(size - have, _PIECE), self._silence)
            if not data:
                raise EOFError
            pieces.append(data)
            have += len(data)
        whole = b"".join(pieces)
        self._store, self._at = whole, size
        return whole[:size]


def _pieces(head: bytes, data: memoryview, most: int) -> Iterator[bytes]:
    room = max(0, most - len(head))
    yield head + bytes(data[:room])
    for at in range(room, len(data), most):
        yield bytes(data[at : at + most])
