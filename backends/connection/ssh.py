"""A host over SSH: one connection, many channels."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from paramiko.ssh_exception import SSHException

from backends.config.schema import HostConfig
from backends.connection.login import Ask
from backends.connection.machine import Machine
from backends.connection.process import NoStart
from backends.connection.reach import Reached, Timeouts
from backends.connection.tail import StderrTail
from backends.connection.transport import SMALL_WINDOW, Channel, ChannelRefused, Transport
from backends.connection.tunnel import socket_over
from backends.connection.wrapper import command_line
from backends.errors import ConnectionFailed
from backends.untrusted import clean

SESSIONS = 9
"""Commands at once on one connection: sshd's MaxSessions is 10, and ending one of them needs a place too."""
_REFUSED_FOR = 30.0
"""Seconds to go on asking for a channel; another one may end."""
_PLACE_TIMEOUT = 120.0
_LAST_WORDS = 2.0
"""Seconds; a process left behind may hold the streams open for ever."""
_PROHIBITED = 1
_ORIGIN = ("127.0.0.1", 0)


class SshStream:
    """A command on a channel."""

    def __init__(self, channel: Channel, lost: ConnectionFailed, done: contextlib.ExitStack) -> None:
        """Take over a channel on which a command was started; `done` is unwound when it is over."""
        self._channel = channel
        self._lost = lost
        self._done = done
        self._input_ended = False
        self.tail = channel.tail

    def recv(self, size: int, timeout: float | None) -> bytes:
        """Read stdout."""
        data = self._channel.recv(size, timeout)
        if not data and size and not (self._channel.eof_received or self._channel.ended_by_server):
            raise self._lost
        return data

    def send(self, data: bytes) -> None:
        """Write all of `data` to stdin."""
        view = memoryview(data)
        while view:
            try:
                # paramiko cuts what is longer than a packet after copying it.
                sent = self._channel.send(bytes(view[: self._channel.out_max_packet_size]))
            except (EOFError, OSError):
                sent = 0
            if not sent:
                if self._channel.ended_by_server or self._input_ended:
                    raise BrokenPipeError
                raise self._lost
            view = view[sent:]

    def end_input(self) -> None:
        """Close stdin."""
        self._input_ended = True
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def status(self, timeout: float | None) -> int:
        """Wait for the exit status."""
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError
        if self._channel.has_status:
            # sshd says the status as soon as the command is gone, what it wrote last may come after it.
            self._channel.streams_over.wait(_LAST_WORDS)
            self._done.close()
            return int(self._channel.exit_status)
        if self._channel.ended_by_server:
            self._done.close()
            return -1
        raise self._lost

    def ended(self) -> bool:
        """Whether the status is there already, or the channel is over."""
        return bool(self._channel.status_event.is_set())

    def interrupt(self) -> None:
        """Let the server end it: RFC 4254's signal request, which needs no further channel."""
        for name in ("TERM", "KILL"):
            with contextlib.suppress(OSError, EOFError):
                self._channel.send_signal(name)
            if self._channel.status_event.wait(1.0):
                return

    def abandon(self) -> None:
        """Close the channel."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
        self._done.close()


class SshConnection(Machine):
    """One host over SSH."""

    def __init__(
        self,
        name: str,
        reached: Reached,
        host: HostConfig,
        ask: Ask | None,
        timeouts: Timeouts,
        again: Callable[[], Reached],
    ) -> None:
        """Take over a connection that is logged in; `again` makes another one."""
        super().__init__(name, reached.user, host, ask)
        self._reached = reached
        self._transport = reached.transport
        self._timeouts = timeouts
        self._places = threading.BoundedSemaphore(SESSIONS)
        self._again = again
        self._spare: Reached | None = None
        self._spare_lock = threading.Lock()

    def open_tcp(self, host: str, port: int) -> socket.socket:
        """A socket to `host:port` as the host sees it."""
        return self._tunnel(f"{host}:{port}", "direct-tcpip", host, port, *_ORIGIN)

    def open_unix(self, path: str) -> socket.socket:
        """A socket to a unix socket on the host."""
        return self._tunnel(path, "direct-streamlocal@openssh.com", path, "", 0)

    def close(self) -> None:
        """Close the connection and those it goes through."""
        self._reached.close()
        with self._spare_lock:
            if self._spare is not None:
                self._spare.close()

    def _stream(self, argv: tuple[str, ...], tail: StderrTail, *, bulk: bool, urgent: bool = False) -> SshStream:
        with contextlib.ExitStack() as stack:
            if not urgent:
                stack.enter_context(self._place())
            channel = self._urgent() if urgent else self._session(bulk)
            channel.tail = tail
            try:
                # File names need not be UTF-8.
                channel.exec_command(command_line(argv).encode("utf-8", "surrogateescape"))
            except (EOFError, OSError, SSHException) as error:
                channel.close()
                if self._transport.is_active():
                    raise NoStart("", "the server refuses to run commands", None) from None
                raise self._lost(error) from None
            return SshStream(channel, self._lost(), stack.pop_all())

    def _session(self, bulk: bool) -> Channel:
        return self._open(self._transport, "session", window=self._transport.bulk_window if bulk else SMALL_WINDOW)

    def _urgent(self) -> Channel:
        """A session at once, on a second connection when the server gives no more on the first."""
        try:
            return self._transport.open("session", timeout=self._timeouts.channel)
        except ChannelRefused:
            with self._spare_lock:
                if self._spare is None:
                    self._spare = self._again()
            return self._open(self._spare.transport, "session", window=SMALL_WINDOW)
        except (EOFError, OSError) as error:
            raise self._lost(error) from None

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        deadline = time.monotonic() + _PLACE_TIMEOUT
        while not self._places.acquire(timeout=1.0):
            if not self._transport.is_active():
                raise self._lost()
            if time.monotonic() > deadline:
                raise ConnectionFailed(
                    f"{SESSIONS} commands run on {self.host} at once, and none of them ends", "run fewer jobs at once"
                )
        try:
            yield
        finally:
            self._places.release()

    def _open(self, transport: Transport, kind: str, *, window: int) -> Channel:
        deadline = time.monotonic() + _REFUSED_FOR
        pause = 0.05
        while True:
            try:
                return transport.open(kind, window=window, timeout=self._timeouts.channel)
            except ChannelRefused as refused:
                if time.monotonic() > deadline:
                    raise ConnectionFailed(
                        f"{self.host} opens no further channel: {clean(refused.text, 200) or refused.code}",
                        "raise MaxSessions in the host's sshd_config, or run fewer jobs at once",
                    ) from None
            except TimeoutError:
                raise ConnectionFailed(
                    f"{self.host} did not answer for {self._timeouts.channel:g} seconds", "look at the load of the host"
                ) from None
            except (EOFError, OSError) as error:
                raise self._lost(error) from None
            time.sleep(pause)
            pause = min(2 * pause, 0.4)

    def _tunnel(self, what: str, kind: str, *fields: str | int) -> socket.socket:
        what = clean(what, 200)
        try:
            channel = self._transport.open(kind, *fields, timeout=self._timeouts.channel)
        except ChannelRefused as refused:
            # For unix sockets sshd tells one reason from the other not at all.
            forbidden = refused.code == _PROHIBITED
            unix = kind != "direct-tcpip"
            raise ConnectionFailed(
                f"{self.host} opens no connection to {what}: {clean(refused.text, 200) or refused.code}",
                "allow it in the host's sshd_config (AllowTcpForwarding, AllowStreamLocalForwarding)"
                if forbidden
                else f"check on the host that something listens on {what}"
                + (
                    f", that {self.login_user} may use it, and AllowStreamLocalForwarding in sshd_config"
                    if unix
                    else ""
                ),
            ) from None
        except TimeoutError:
            raise ConnectionFailed(f"{self.host} did not connect to {what} in time", "is a firewall between?") from None
        except (EOFError, OSError) as error:
            raise self._lost(error) from None
        return socket_over(channel)

    def _lost(self, error: BaseException | None = None) -> ConnectionFailed:
        said = clean(str(error), 200) if error is not None else ""
        return ConnectionFailed(
            f"the connection to {self.host} was lost" + (f": {said}" if said else ""),
            "try again; when it happens often, look at the network and at the server's own log of sshd",
        )
