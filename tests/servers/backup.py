"""What an asset's backup needs around it in a test: a local host, a job that remembers, a writer in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.snapshot import Source
from backends.config.schema import HostConfig
from backends.connection.base import Command, Completed, Connection, Process
from backends.connection.open import open_connection
from backends.errors import BecomeRefused, Cancelled
from backends.progress import QuietJob

UNPRIVILEGED = "nobody"


def local_host() -> Connection:
    """This machine as a host, over the real local connection."""
    return open_connection("social", HostConfig(address="local"))


class AsNobody(Connection):
    """A host where whoever logs in may read little, although the tests run as root: every command runs as nobody."""

    host = "social"
    login_user = UNPRIVILEGED

    def __init__(self, inner: Connection) -> None:
        self._inner = inner

    def start(self, command: Command, *, on_stderr: Callable[[bytes], None] | None = None) -> Process:
        return self._inner.start(self._lowered(command), on_stderr=on_stderr)

    def run(self, command: Command, *, stdin: bytes = b"", timeout: float = 60.0, limit: int = 1 << 23) -> Completed:
        return self._inner.run(self._lowered(command), stdin=stdin, timeout=timeout, limit=limit)

    def open_tcp(self, host: str, port: int) -> Any:
        return self._inner.open_tcp(host, port)

    def open_unix(self, path: str) -> Any:
        return self._inner.open_unix(path)

    def close(self) -> None:
        self._inner.close()

    def _lowered(self, command: Command) -> Command:
        if command.as_user not in {None, UNPRIVILEGED}:
            raise BecomeRefused("nobody becomes nobody else")
        if os.geteuid() != 0:
            return command
        lower = ("setpriv", f"--reuid={UNPRIVILEGED}", "--regid=nogroup", "--clear-groups", "--")
        return replace(command, argv=(*lower, *command.argv), as_user=None)


class MemoryWriter:
    """Keeps what is written as plain bytes, in place of the vaults."""

    id = "social/asset/20261122T140211Z-0001"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.compressed: dict[str, bool] = {}

    def write(
        self, name: str, source: Source, *, compress: bool, already: tuple[Literal["zstd"], ...] = ()
    ) -> ObjectEntry:
        data = b"".join(iter(lambda: source.read(100_000), b""))
        assert name not in self.objects
        self.objects[name] = data
        self.compressed[name] = compress
        digest = hashlib.sha256(data).hexdigest()
        return ObjectEntry(name=name, bytes=len(data), sha256=digest, codecs=["age"], plain_bytes=len(data))

    def write_shared(self, key: str, source: Source, *, compress: bool) -> ObjectEntry:
        return self.write(key, source, compress=compress)

    def refer(self, entries: Sequence[ObjectEntry]) -> None:
        raise AssertionError("nothing to refer to")

    def commit(self, facts: Mapping[str, Any], *, warnings: Sequence[str] = ()) -> Manifest:
        raise AssertionError("the caller of an asset commits")

    def discard(self) -> None:
        self.objects.clear()


class WatchedJob(QuietJob):
    """Remembers what it was told, and lets a test interfere at each step and each advance."""

    def __init__(self, at: Callable[[str, int], None] = lambda step, done: None) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[tuple[str, int | None]] = []
        self.done = 0
        self._at = at
        self._callbacks: list[Callable[[], None]] = []
        self._cancelled = False

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        self.steps.append((name, total))
        self.done = 0
        self._at(name, 0)

    def advance(self, amount: int) -> None:
        self.done += amount
        self._at(self.steps[-1][0], self.done)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def check_cancelled(self) -> None:
        if self._cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """As the operator would."""
        self._cancelled = True
        for callback in list(self._callbacks):
            callback()
