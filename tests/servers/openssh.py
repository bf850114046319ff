"""A real OpenSSH server on loopback, with its own keys and configuration in a directory of the test's."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from backends.config.schema import HostConfig
from backends.embedded.ports import free_port
from tests.servers.need import need

_START_TIMEOUT = 10.0
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {host_key}
PidFile {directory}/sshd.pid
{authorization}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PrintMotd no
LogLevel VERBOSE
AcceptEnv LC_*
"""


class OpenSSH:
    """One sshd; use it as a context manager.

    Attributes:
        port: where it listens on 127.0.0.1.
        client_key: a private key that it accepts (for the user who runs the tests, or any other by `authorize`).
        known_hosts: a file in which its host key stands.
    """

    def __init__(self, directory: Path, *, options: str = "", host_key_type: str = "ed25519") -> None:
        """Prepare keys and configuration; `options` are further lines of sshd_config, which win over ours."""
        (self._sshd, self._keygen) = need("sshd", "ssh-keygen")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.host_key = self.make_key("host_key", kind=host_key_type)
        self.client_key = self.make_key("client_key")
        self.authorized_keys = directory / "authorized_keys"
        self.authorized_keys.write_bytes(self.client_key.with_suffix(".pub").read_bytes())
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text(self.known_hosts_line())
        self.log = directory / "sshd.log"
        self._config = directory / "sshd_config"
        authorization = f"AuthorizedKeysFile {self.authorized_keys}"
        if os.geteuid() == 0:
            # Other users than root log in too, and may not look into root's directories.
            authorization = f"AuthorizedKeysCommand /bin/cat {self.authorized_keys}\nAuthorizedKeysCommandUser root"
        ours = _CONFIG.format(port=self.port, host_key=self.host_key, directory=directory, authorization=authorization)
        self._config.write_text(f"{options}\n{ours}")
        self._process: subprocess.Popen[bytes] | None = None

    def make_key(self, name: str, *, kind: str = "ed25519", passphrase: str = "") -> Path:
        """A new key pair in the server's directory."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        size = ["-b", "2048"] if kind == "rsa" else []
        argv = [self._keygen, "-q", "-t", kind, *size, "-N", passphrase, "-C", name, "-f", str(path)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        return path

    def authorize(self, key: Path) -> None:
        """Accept one more key."""
        with self.authorized_keys.open("ab") as stream:
            stream.write(key.with_name(key.name + ".pub").read_bytes())

    def known_hosts_line(self, name: str | None = None) -> str:
        """The line of known_hosts for this server, under its address or another name."""
        public = self.host_key.with_name(self.host_key.name + ".pub").read_text().split()
        return f"{name or f'[127.0.0.1]:{self.port}'} {public[0]} {public[1]}\n"

    def host_config(self, *, user: str | None = None, **settings: Any) -> HostConfig:
        """The configuration that reaches this server."""
        settings.setdefault("address", f"{user or getpass.getuser()}@127.0.0.1:{self.port}")
        settings.setdefault("identity_file", self.client_key)
        settings.setdefault("known_hosts", self.known_hosts)
        return HostConfig(**settings)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        if os.geteuid() == 0:
            # Where sshd separates its privileges; the package makes it only when the service starts.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        argv = [self._sshd, "-D", "-f", str(self._config), "-E", str(self.log)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start: {self.log.read_text() if self.log.exists() else ''}")
            time.sleep(0.02)
        return self

    @property
    def pid(self) -> int:
        """The process that listens."""
        if self._process is None:
            raise RuntimeError("sshd does not run")
        return self._process.pid

    def stop(self) -> None:
        """Stop it; connections that are open go on, as with a real server."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def cut(self) -> None:
        """Kill its side of every connection, as a router would: without a word to the commands."""
        # A connection is two processes, and without root's rights neither ends with the other.
        for monitor in _children(self.pid):
            for process in (monitor, *(child for child in _children(monitor) if _name(child) == "sshd")):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def _children(parent: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(parent).children()]
    except psutil.NoSuchProcess:
        return []


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""
