"""The lab's SSH servers: one for each host, on loopback, running real commands in that host's own tree."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pwd
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from backends.embedded.ports import free_port, hold_port

WINDOW = 32 << 20
_CHUNK = 1 << 18
_SLOW_CHUNK = 1 << 14
_PIPE = 1 << 20
_BACKLOG = 4 << 20
_T = TypeVar("_T")
# asyncssh's own word on every connection and channel is of no use to anybody who runs the demo.
logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


def login_name() -> str:
    """The user that runs the lab: it is the login user of every host."""
    return pwd.getpwuid(os.getuid()).pw_name


@dataclass(slots=True)
class SshHost:
    """One host's server: its keys, its port, and where and with what its commands run."""

    name: str
    home: Path
    environment: Mapping[str, str]
    host_key: Path
    authorized_keys: Path
    port: int = field(default_factory=free_port)
    banner: bytes = b""
    """Written before the output of every command, as a chatty shell profile does."""
    rate: float | None = None
    """Bytes a second that a command's input and its output are slowed down to; None for as fast as it goes."""
    door: socket.socket | None = None
    """Where it listens; None as soon as it is to take nobody in any more."""
    listener: asyncssh.SSHAcceptor | None = None
    held: socket.socket | None = None
    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)
    commands: set[asyncio.Task[None]] = field(default_factory=set)
    """What runs at this moment, each with its channel."""

    def make_key(self) -> None:
        """Make a new host key."""
        key = asyncssh.generate_private_key("ssh-ed25519", comment=self.name)
        self.host_key.touch(mode=0o600)
        key.write_private_key(str(self.host_key))
        key.write_public_key(f"{self.host_key}.pub")

    def hold(self) -> None:
        """Keep the port while nothing listens on it, so that nothing else takes it."""
        if self.held is None:
            self.held = hold_port(self.port)

    def let_go(self) -> None:
        """Give the port back that `hold` keeps."""
        if self.held is not None:
            self.held.close()
            self.held = None

    @property
    def known_hosts_line(self) -> str:
        """What a client's known_hosts needs to accept this server."""
        kind, key = Path(f"{self.host_key}.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"


class _Gate(asyncssh.SSHServer):
    """Who may log in and what may be forwarded."""

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._host.connections.add(conn)
        if self._host.door is None:  # taken by the system before the host stopped, by us only now
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection:
            self._host.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        self._known = username == login_name()
        self._allow_another_request()
        return True

    def public_key_auth_supported(self) -> bool:
        self._allow_another_request()
        return self._known

    def _allow_another_request(self) -> None:
        """Take a second request for the authentication service as OpenSSH does: paramiko sends one for each try."""
        if self._connection:
            self._connection._next_service = b"ssh-userauth"

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return dest_host in {"127.0.0.1", "localhost", "::1"}

    def unix_connection_requested(self, dest_path: str) -> bool:
        return True


class SshServers:
    """All servers of a lab on one event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lab-ssh", daemon=True)
        self._thread.start()

    def start(self, host: SshHost) -> None:
        """Let a host listen."""
        self._call(self._start(host))

    def stop(self, host: SshHost) -> None:
        """Cut a host's connections, end what runs on it and refuse new ones; its port stays its own. Idempotent."""
        self._call(self._stop(host))
        host.hold()

    def cut(self, host: SshHost) -> None:
        """Break a host's connections of this moment without a word; new ones are taken."""
        self._call(self._cut(host))

    def close(self) -> None:
        """End the thread; hosts must have been stopped. Idempotent."""
        if self._thread.is_alive():
            self._call(self._finish())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _finish(self) -> None:
        """Let go of clients that came at the last moment: of their tasks, then of their sockets."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await _turns()

    async def _start(self, host: SshHost) -> None:
        if host.listener is not None:
            return
        host.let_go()
        host.door = socket.create_server(("127.0.0.1", host.port), backlog=100)
        host.listener = await asyncssh.listen(
            sock=host.door,
            server_factory=lambda: _Gate(host),
            server_host_keys=[str(host.host_key)],
            authorized_client_keys=str(host.authorized_keys),
            process_factory=_factory(host),
            encoding=None,
            line_editor=False,
            allow_pty=False,
            window=WINDOW,
            max_pktsize=_CHUNK,
            compression_algs=None,
            gss_host=None,
            agent_forwarding=False,
        )

    async def _stop(self, host: SshHost) -> None:
        door, host.door = host.door, None
        listener, host.listener = host.listener, None
        if listener is not None and door is not None:
            # Whom the loop takes in while it closes would hang for good: github.com/python/cpython/issues/109564.
            self._loop.remove_reader(door)
            await _turns()
            listener.close()
            await listener.wait_closed()
        await self._cut(host)
        if host.commands:
            await asyncio.wait(host.commands)

    async def _cut(self, host: SshHost) -> None:
        for connection in list(host.connections):
            connection.abort()
            await connection.wait_closed()


async def _turns() -> None:
    """Let the loop end what it has begun: a transport is made, told to its protocol and closed in three turns."""
    for _ in range(3):
        await asyncio.sleep(0)


def _factory(host: SshHost) -> Callable[[asyncssh.SSHServerProcess[bytes]], Coroutine[Any, Any, None]]:
    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = asyncio.create_task(_serve(host, process))
        host.commands.add(command)
        command.add_done_callback(host.commands.discard)
        await command

    return serve


async def _serve(host: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
    channel = process.channel
    connection = channel.get_connection()
    if connection is None:  # it was lost before its command could begin
        return
    channel.set_write_buffer_limits(high=_BACKLOG)
    argv = ["/bin/sh", "-c", process.command] if process.command else ["/bin/sh"]
    stdout, stdout_end = await _pipe()
    stderr, stderr_end = await _pipe()
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout_end,
            stderr=stderr_end,
            cwd=host.home,
            env=dict(host.environment),
            start_new_session=True,
        )
    finally:
        os.close(stdout_end)
        os.close(stderr_end)
    if host.banner:
        process.stdout.write(host.banner)
    outputs = [
        asyncio.create_task(_carry(stdout, process.stdout, host)),
        asyncio.create_task(_carry(stderr, process.stderr, host)),
    ]
    feed = asyncio.create_task(_feed(process, child, lambda: host.rate))
    # A channel whose client vanished stays open for as long as its input is not read: the connection tells sooner.
    gone = asyncio.create_task(_either(channel.wait_closed, connection.wait_closed))
    ended = asyncio.gather(child.wait(), *outputs, return_exceptions=True)
    try:
        both: set[asyncio.Future[Any]] = {gone, ended}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            _report(process, child.returncode or 0)
    finally:
        feed.cancel()
        gone.cancel()
        if not ended.done():
            await _end_group(child)
            for task in outputs:
                task.cancel()
            await asyncio.gather(ended, return_exceptions=True)


async def _either(*waits: Callable[[], Coroutine[Any, Any, None]]) -> None:
    tasks = [asyncio.create_task(wait()) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _report(process: asyncssh.SSHServerProcess[bytes], status: int) -> None:
    with contextlib.suppress(OSError, BrokenPipeError):
        if status >= 0:
            process.exit(status)
        else:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))


async def _feed(
    process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process, rate: Callable[[], float | None]
) -> None:
    """Carry the client's input to the command, and its signals to the command's process group."""
    stdin = child.stdin
    if stdin is None:
        return
    while True:
        try:
            data = await process.stdin.read(_SLOW_CHUNK if rate() else _CHUNK)
        except asyncssh.SignalReceived as received:
            with contextlib.suppress(AttributeError, ProcessLookupError):
                os.killpg(child.pid, getattr(signal, f"SIG{received.signal}"))
            continue
        except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
            continue
        except OSError:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if not data:
                stdin.close()
                return
            stdin.write(data)
            await stdin.drain()
        if slow := rate():
            await asyncio.sleep(len(data) / slow)


async def _carry(source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes], host: SshHost) -> None:
    while data := await source.read(_SLOW_CHUNK if host.rate else _CHUNK):
        sink.write(data)
        await sink.drain()
        if host.rate:
            await asyncio.sleep(len(data) / host.rate)


async def _end_group(child: asyncio.subprocess.Process) -> None:
    """End all that a command started: asked first, killed after half a second."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        os.killpg(child.pid, signal.SIGCONT)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), 0.5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """A pipe of a megabyte where the system allows it: fewer turns of the loop for the same bytes."""
    read, write = os.pipe()
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, _PIPE)
    reader = asyncio.StreamReader(limit=_PIPE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    return reader, write
