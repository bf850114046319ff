"""SFTP servers for vaults: OpenSSH's on loopback, one for the whole run of the tests."""

from __future__ import annotations

import asyncio
import atexit
import getpass
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh
import psutil

from backends.config.schema import SftpVault as SftpConfig
from backends.vault.sftp import SftpVault
from backends.vault.sftp_link import SftpLink
from tests.servers.openssh import OpenSSH

SUBSYSTEM = "Subsystem sftp internal-sftp"


@cache
def shared_server() -> OpenSSH:
    """One sshd with nothing special, started when it is first asked for. Skips where there is none."""
    directory = Path(tempfile.mkdtemp(prefix="mastovault-sftp-"))
    server = OpenSSH(directory, options=SUBSYSTEM)
    server.start()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(server.stop)
    return server


def config_for(server: OpenSSH, path: Path | str, *, user: str | None = None, **settings: Any) -> SftpConfig:
    """The configuration of a vault at a place on a server."""
    settings.setdefault("address", f"{user or getpass.getuser()}@127.0.0.1:{server.port}")
    settings.setdefault("identity_file", server.client_key)
    settings.setdefault("known_hosts", server.known_hosts)
    return SftpConfig(type="sftp", path=str(path), **settings)


def sftp_vault(place: Path) -> SftpVault:
    """A vault in a directory, on the shared server, over one connection for all of them: making one takes a while."""
    vault = SftpVault("v", config_for(shared_server(), place / "vault"))
    vault.link = _shared_link()
    return vault


@cache
def _shared_link() -> SftpLink:
    return SftpLink("v", config_for(shared_server(), "/"), patience=20)


def stop_sessions(server: OpenSSH) -> None:
    """Have what serves the connections of this moment answer no more, without closing them."""
    for process in _sessions(server):
        process.suspend()


def kill_sessions(server: OpenSSH) -> None:
    """Kill what serves the connections of this moment, at least one, and wait until it is gone; sshd itself goes on."""
    doomed = _sessions(server)
    for process in doomed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    while any(_lives(process) for process in doomed):
        time.sleep(0.005)


def _sessions(server: OpenSSH) -> list[psutil.Process]:
    families: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        families.setdefault(process.info["ppid"], []).append(process)
    found = list(families.get(server.pid, ()))
    for process in found:  # grows while it is walked
        found += families.get(process.pid, ())
    assert found
    return found


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that nobody waited for yet does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class SimpleServer:
    """An SFTP server that is not OpenSSH's, in this process; with only the extensions that are named."""

    def __init__(self, directory: Path, *extensions: bytes) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.client_key, self.known_hosts = directory / "client_key", directory / "known_hosts"
        self._extensions = extensions
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simple-sftp", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def config(self, path: Path) -> SftpConfig:
        """A vault there."""
        return SftpConfig(
            type="sftp",
            address=f"{getpass.getuser()}@127.0.0.1:{self.port}",
            path=str(path),
            identity_file=self.client_key,
            known_hosts=self.known_hosts,
        )

    async def _start(self) -> None:
        host, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        client.write_private_key(str(self.client_key))
        self._kept = asyncssh.sftp.SFTPServerHandler._extensions
        asyncssh.sftp.SFTPServerHandler._extensions = [each for each in self._kept if each[0] in self._extensions]
        self._listener = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=_Anybody,
            server_host_keys=[host],
            authorized_client_keys=asyncssh.import_authorized_keys(client.export_public_key().decode()),
            sftp_factory=True,
            gss_host=None,
        )
        self.port = self._listener.get_port()
        kind, key = host.export_public_key().decode().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    async def _stop(self) -> None:
        asyncssh.sftp.SFTPServerHandler._extensions = self._kept
        self._listener.close()
        await self._listener.wait_closed()


class _Anybody(asyncssh.SSHServer):
    """Takes a second request for the authentication service as OpenSSH does: paramiko sends one for each try."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        self._connection._next_service = b"ssh-userauth"
        return True

    def public_key_auth_supported(self) -> bool:
        self._connection._next_service = b"ssh-userauth"
        return True
