"""From an address to a connection that is logged in: name, way (ProxyJump, ProxyCommand), host key, login."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from dataclasses import dataclass, replace

from paramiko.ssh_exception import IncompatiblePeer, SSHException

from backends.config.schema import HostConfig
from backends.connection.address import Address
from backends.connection.host_keys import HostKeys
from backends.connection.login import Ask, Login
from backends.connection.packets import SocketLike
from backends.connection.ssh_config import SshConfig, SshTarget
from backends.connection.transport import ChannelRefused, Transport, tune
from backends.errors import ConfigurationError, ConnectionFailed
from backends.untrusted import clean

_JUMPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds to wait for each step."""

    connect: float = 10.0
    banner: float = 15.0
    handshake: float = 20.0
    auth: float = 30.0
    channel: float = 20.0
    keepalive: int = 15


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection that is logged in, with what it stands on."""

    transport: Transport
    user: str
    stack: contextlib.ExitStack

    def close(self) -> None:
        """Close it and what it stands on."""
        self.stack.close()


class Way:
    """Goes the way to one host."""

    def __init__(self, name: str, host: HostConfig, config: SshConfig, ask: Ask | None, timeouts: Timeouts) -> None:
        self._name = name
        self._host = host
        self._config = config
        self._ask = ask
        self._timeouts = timeouts

    def go(self, address: Address) -> Reached:
        """Connect and log in.

        Raises:
            ConnectionFailed, LoginRefused, HostKeyUnknown, HostKeyChanged, ConfigurationError.
        """
        with contextlib.ExitStack() as stack:
            target = self._config.target(address, self._host)
            transport = self._transport(stack, self._name, target, self._host, 0)
            return Reached(transport, target.user, stack.pop_all())

    def _transport(
        self, stack: contextlib.ExitStack, name: str, target: SshTarget, host: HostConfig | None, depth: int
    ) -> Transport:
        if depth > _JUMPS:
            raise ConfigurationError(f"the way to {self._name} goes in circles", "correct ProxyJump in ~/.ssh/config")
        sock = self._socket(stack, name, target, depth)
        keys = HostKeys.of(name, target)
        transport = Transport(sock, keys.algorithms())
        stack.callback(_shut, transport)
        self._handshake(name, target, transport)
        shown = transport.get_remote_server_key()
        keys.check(shown.get_name(), shown.asbytes())
        Login(name, transport, target, host, self._ask).run()
        transport.set_keepalive(self._timeouts.keepalive)
        return transport

    def _handshake(self, name: str, target: SshTarget, transport: Transport) -> None:
        transport.banner_timeout = self._timeouts.banner
        transport.handshake_timeout = self._timeouts.handshake
        transport.auth_timeout = self._timeouts.auth
        try:
            transport.start_client(timeout=self._timeouts.banner + self._timeouts.handshake)
        except IncompatiblePeer as error:
            raise ConnectionFailed(
                f"{name} offers no method that is safe today: {clean(str(error), 200)}",
                "update the server's OpenSSH, or its list of algorithms",
            ) from None
        except (SSHException, EOFError, OSError) as error:
            raise ConnectionFailed(
                f"{name} does not speak SSH on {clean(target.host, 200)}:{target.port}"
                f" ({clean(str(error), 200) or 'it closed the connection'})",
                "check address and port; sshd may also refuse because too many connections come (MaxStartups)",
            ) from None
        if not transport.initial_kex_done:
            raise ConnectionFailed(f"{name} did not finish the SSH handshake in time", "look at the load of the host")

    def _socket(self, stack: contextlib.ExitStack, name: str, target: SshTarget, depth: int) -> SocketLike:
        if target.jumps:
            return self._through(stack, name, target, depth)
        if target.proxy_command:
            return _proxy(stack, name, target.proxy_command)
        return self._direct(stack, name, target)

    def _direct(self, stack: contextlib.ExitStack, name: str, target: SshTarget) -> socket.socket:
        shown = f"{clean(target.host, 200)}:{target.port}"
        try:
            sock = socket.create_connection((target.host, target.port), timeout=self._timeouts.connect)
        except socket.gaierror as error:
            raise ConnectionFailed(
                f"{name} cannot be found: {shown} ({error.strerror})", "check the address and the name server"
            ) from None
        except TimeoutError:
            raise ConnectionFailed(
                f"{name} does not answer on {shown} within {self._timeouts.connect:g} seconds",
                "check that the host is up and that a firewall lets us through",
            ) from None
        except (OSError, UnicodeError) as error:
            raise ConnectionFailed(
                f"{name} cannot be reached on {shown}: {getattr(error, 'strerror', None) or error}",
                "check that the host is up, and the port of its sshd",
            ) from None
        stack.callback(sock.close)
        tune(sock)
        return sock

    def _through(self, stack: contextlib.ExitStack, name: str, target: SshTarget, depth: int) -> SocketLike:
        *before, last = target.jumps
        via = f"{name} (by way of {clean(last.host, 100)})"
        jump = self._config.target(last)
        if self._host.known_hosts is not None:
            jump = replace(jump, known_hosts=(self._host.known_hosts.expanduser(),))
        if before:
            jump = replace(jump, jumps=tuple(before), proxy_command=None)
        transport = self._transport(stack, via, jump, None, depth + 1)
        try:
            return transport.open(
                "direct-tcpip",
                target.host,
                target.port,
                "127.0.0.1",
                0,
                window=transport.default_window_size,
                timeout=self._timeouts.connect,
            )
        except (ChannelRefused, TimeoutError, EOFError, OSError) as error:
            why = clean(str(error), 200) or "no answer"
            raise ConnectionFailed(
                f"{via} cannot be reached on {clean(target.host, 200)}:{target.port}: {why}",
                "check the address as seen from there, and AllowTcpForwarding there",
            ) from None


def _proxy(stack: contextlib.ExitStack, name: str, command: str) -> socket.socket:
    """A ProxyCommand as a real socket: the command gets the other end as stdin and stdout, as with OpenSSH."""
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    with theirs:
        try:
            # The user's own ssh configuration says what to run, and that a shell runs it.
            process = subprocess.Popen(
                ("/bin/sh", "-c", f"exec {command}"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ConnectionFailed(
                f"the ProxyCommand of {name} cannot be run: {error.strerror}", "correct ~/.ssh/config"
            ) from None
    stack.callback(_end_proxy, process)
    return ours


def _end_proxy(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _shut(transport: Transport) -> None:
    """Close a transport and wait for its thread; paramiko's handshake timer would hold up the end of the program."""
    transport.packetizer.complete_handshake()
    transport.close()
    if transport is not threading.current_thread() and transport.is_alive():
        transport.join(2)
