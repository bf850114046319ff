"""Servers as child processes that end with this one, however it ends."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.embedded import keeper
from backends.errors import MastovaultError


class ServerFailed(MastovaultError):
    """A throwaway server could not be started."""


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged system account to run PostgreSQL as."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Whom to become for a server that refuses root: `postgres`, else `nobody`; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerFailed(
        "PostgreSQL refuses to run as root, and this machine has neither a postgres nor a nobody account",
        "Start the lab as an ordinary user.",
    )


class Processes:
    """Starts servers and tells the keeper, a process of its own, which to end when the lab is killed."""

    def __init__(self, mark: str, hold: Sequence[int] = ()) -> None:
        """`hold` are file descriptors (the directory's lock) that the keeper keeps open until it is done."""
        self.mark = mark
        self._lock = threading.Lock()
        self._running: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tuple(hold),
            cwd="/",
        )
        self._tell({"mark": mark})

    def start(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> subprocess.Popen[bytes]:
        """Start a server in a session of its own; what it says goes to `log`."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**(env or {}), "PATH": os.environ.get("PATH", os.defpath), keeper.VARIABLE: self.mark},
                cwd=cwd or "/",
                start_new_session=True,
                **identity(account),
            )
        start = keeper.started(process.pid)
        with self._lock:
            self._running[process.pid] = (process, stop_signal)
        if start is not None:
            self._tell({"add": process.pid, "start": start, "signal": int(stop_signal)})
        return process

    def stop(self, process: subprocess.Popen[bytes], patience: float = 5.0, *, asked: bool = False) -> None:
        """Stop one server, the hard way after `patience` seconds; `asked` has been signalled already. Idempotent."""
        with self._lock:
            known = self._running.pop(process.pid, None)
        if known is None:
            return
        if process.poll() is None:
            if not asked:
                process.send_signal(known[1])
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._tell({"remove": process.pid})

    def delete_at_end(self, directory: Path) -> None:
        """Have a directory removed when the lab is over, also when it is killed."""
        self._tell({"delete": str(directory)})

    def close(self) -> None:
        """Stop all servers and everything that carries the mark, and delete what is to be deleted. Idempotent."""
        with self._lock:
            left = list(self._running.values())
        # All at once, then each is waited for.
        for process, number in left:
            process.send_signal(number)
        for process, _ in left:
            self.stop(process, asked=True)
        if self._keeper.stdin and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
        self._keeper.wait()

    def _tell(self, message: dict[str, Any]) -> None:
        with self._lock:
            pipe = self._keeper.stdin
            if pipe and not pipe.closed:
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()


def identity(account: Account | None) -> dict[str, Any]:
    """The arguments of Popen that make a child run as an account."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}
