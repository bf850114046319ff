"""Make Redis write a snapshot, and know that it did."""

from __future__ import annotations

import threading
import time
from typing import Any

import redis
from redis.exceptions import NoPermissionError, ResponseError

from backends.errors import AssetFailed
from backends.progress import Job
from backends.untrusted import clean

_FIRST_POLL = 0.05
_LONGEST_POLL = 1.0
_BASE_SECONDS = 120.0
_SLOWEST_DISK = 5 * 1024 * 1024
"""Bytes a second; a save that is slower than this has hung."""
_START_SECONDS = 15.0
"""How long a scheduled save may take to begin, once nothing else runs (redis-server's cron waits up to 5 s)."""


def server_time(client: redis.Redis) -> int:
    """The server's clock, in seconds since 1970."""
    moment: Any = client.time()
    return int(moment[0])


def save(client: redis.Redis, job: Job, name: str) -> int:
    """Run BGSAVE to its end; a save that runs already is waited for first.

    Args:
        client: connected to the server.
        job: cancelled while waiting, this raises `Cancelled`; Redis ends its save by itself.
        name: the server, for errors.

    Returns:
        The server's clock right before the save began: the snapshot is not older.

    Raises:
        AssetFailed: the save failed or took too long.
    """
    waiter = _Waiter(client, job, name)
    waiter.until_idle()
    started = server_time(client)
    waiter.until_saved(started, begun=_begin(client, waiter, name))
    return started


def _begin(client: redis.Redis, waiter: _Waiter, name: str) -> bool:
    """Ask for a save; whether it runs already (else it is scheduled behind a rewrite of the AOF)."""
    command: Any = client.execute_command
    for _ in range(3):
        try:
            answer = command("BGSAVE", "SCHEDULE")
            return "scheduled" not in str(answer).lower()
        except NoPermissionError:
            raise
        except ResponseError as error:
            if "in progress" not in str(error).lower():
                raise _failed(name, clean(str(error), 200)) from None
            waiter.until_idle()  # somebody else was faster
    raise _failed(name, "another save runs all the time")


class _Waiter:
    """Polls INFO persistence with growing pauses, until a deadline scaled by the data's size."""

    def __init__(self, client: redis.Redis, job: Job, name: str) -> None:
        self._client = client
        self._job = job
        self._name = name
        self._deadline = time.monotonic() + _BASE_SECONDS + _used_memory(client) / _SLOWEST_DISK

    def until_idle(self) -> None:
        """Wait while a save runs."""
        for state in self._states():
            if not state.get("rdb_bgsave_in_progress"):
                return

    def until_saved(self, started: int, *, begun: bool) -> None:
        """Wait for a save that ended well at `started` or later; `begun` tells that it runs already."""
        idle_since = time.monotonic()
        for state in self._states():
            if state.get("rdb_bgsave_in_progress") or state.get("aof_rewrite_in_progress"):
                begun = begun or bool(state.get("rdb_bgsave_in_progress"))
                idle_since = time.monotonic()
                continue
            fine = state.get("rdb_last_bgsave_status") == "ok"
            if fine and int(state.get("rdb_last_save_time") or 0) >= started:
                return
            if begun and not fine:
                raise _failed(self._name, "BGSAVE ended with an error")
            if time.monotonic() - idle_since > _START_SECONDS:
                raise _failed(self._name, "BGSAVE did not begin")

    def _states(self) -> Any:
        woken = threading.Event()
        forget = self._job.on_cancel(woken.set)
        pause = _FIRST_POLL
        try:
            while True:
                self._job.check_cancelled()
                yield self._client.info("persistence")
                if time.monotonic() > self._deadline:
                    raise _failed(self._name, "BGSAVE takes too long")
                woken.wait(pause)
                pause = min(pause * 1.5, _LONGEST_POLL)
        finally:
            forget()


def _used_memory(client: redis.Redis) -> int:
    memory: Any = client.info("memory")
    return int(memory.get("used_memory") or 0)


def _failed(name: str, why: str) -> AssetFailed:
    return AssetFailed(
        f"{name} could not save its data: {why}; its disk may be full or its directory not writable.",
        "Look at the log of redis-server; while saving fails Redis refuses writes (MISCONF) and Mastodon stops.",
    )
