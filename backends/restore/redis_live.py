"""A Redis server while it is asked and told things: loaded, how many keys, its append-only file, its saving."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.exceptions import ResponseError

from backends.assets.redis_client import open_redis
from backends.assets.redis_save import save
from backends.errors import AssetFailed
from backends.mastodon.installation import RedisPlace
from backends.progress import Job
from backends.restore.base import Target
from backends.restore.redis_place import Server
from backends.restore.redis_service import Service

_T = TypeVar("_T")
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5
_SLOWEST_LOAD = 10 * 1024 * 1024
"""Bytes a second: what is slower has hung."""
_LEAST_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a server holds, over all its databases."""

    keys: int
    expires: int
    """Keys with a time to live."""
    expired_at_load: int = 0
    """Keys of the snapshot whose time had passed, as far as the server says."""
    pid: int | None = None
    aof: bool = False


def counts_of(info: Mapping[str, Any]) -> Counts:
    """Counts from the answer to INFO; never raises."""
    spaces = [value for name, value in info.items() if name.startswith("db") and isinstance(value, dict)]
    return Counts(
        keys=sum(_number(space, "keys") for space in spaces),
        expires=sum(_number(space, "expires") for space in spaces),
        expired_at_load=_number(info, "rdb_last_load_keys_expired"),
        pid=_number(info, "process_id") or None,
        aof=bool(_number(info, "aof_enabled")),
    )


def missing(counts: Counts, keys: int, expires: int | None) -> str:
    """What is wrong with what was loaded, as half a sentence; empty when it is what it should be.

    Args:
        counts: what the server holds now.
        keys: how many keys the snapshot holds; those that have a time to live may be gone.
        expires: how many of them have one; None when that is not known (then a tenth may be gone, for the number
            was taken from a live server shortly before the snapshot).
    """
    allowed = expires if expires is not None else keys // 10 + counts.expired_at_load
    if counts.keys + allowed >= keys:
        return ""
    return f"it holds {counts.keys} keys instead of {keys}"


class Live:
    """One server of the target, asked over the address that Mastodon uses."""

    def __init__(self, target: Target, server: Server, job: Job) -> None:
        self._target, self._server, self._job = target, server, job
        self._place = place_of(target, server.role)
        self._service = Service(target, server)
        self._patience = _LEAST_SECONDS + max(server.bytes, server.old_bytes) / _SLOWEST_LOAD

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A client; see `open_redis`."""
        with open_redis(self._target.connection, self._place) as client:
            yield client

    def now(self) -> Counts | None:
        """What it holds, or None when it does not answer."""
        try:
            with self.client() as client:
                info: Any = client.info()
        except AssetFailed:
            return None
        return None if _number(info, "loading") else counts_of(info)

    def loaded(self) -> Counts:
        """Wait until it has loaded its data. Raises `AssetFailed` when it does not come up, and `Cancelled`."""
        last = [f"{self._server.name} does not answer."]

        def ready() -> Counts | None:
            try:
                with self.client() as client:
                    info: Any = client.info()
            except AssetFailed as error:
                last[0] = error.sentence
                if self._service.state() == "failed":
                    raise self._failed("it did not start with the data it was given") from None
                return None
            last[0] = f"{self._server.name} is still loading its data."
            return None if _number(info, "loading") else counts_of(info)

        found = self._wait(ready)
        if found is None:
            raise AssetFailed(last[0], f"Look at `journalctl -u {self._server.unit}` and the log of Redis.")
        return found

    def saved(self) -> None:
        """Let it write its data file now, where it would not do so by itself when it stops."""
        with self.client() as client:
            points = setting(client, "save")
            quiet = "nosave" in setting(client, "shutdown-on-sigterm")
            if points and not quiet:
                return
            self._job.log("redis-cli BGSAVE")
            save(client, self._job, self._server.name)

    def turn_aof_on(self) -> None:
        """Turn the append-only file on and wait until it holds all data. Raises `AssetFailed`."""
        with self.client() as client:
            client.config_set("appendonly", "yes")

            def rewritten() -> bool | None:
                state: Any = client.info("persistence")
                if _number(state, "aof_rewrite_in_progress") or _number(state, "aof_rewrite_scheduled"):
                    return None
                return state.get("aof_last_bgrewrite_status") == "ok" and bool(_number(state, "aof_enabled"))

            done = self._wait(rewritten)
        if not done:
            raise self._failed("its append-only file could not be written" if done is False else "that took too long")

    def turn_aof_off(self) -> None:
        """Turn the append-only file off, whether it is whole or still being written."""
        with self.client() as client:
            client.config_set("appendonly", "no")

    def _wait(self, ask: Callable[[], _T | None]) -> _T | None:
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while (answer := ask()) is None and time.monotonic() < deadline:
            self._job.check_cancelled()
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return answer

    def _failed(self, why: str) -> AssetFailed:
        unit = self._server.unit
        return AssetFailed(f"{self._server.name}: {why}.", f"Look at `journalctl -u {unit}` and the log of Redis.")


def place_of(target: Target, role: str) -> RedisPlace:
    """The address of a role. Raises `AssetFailed` when the settings name none."""
    for place in target.installation.redis:
        if place.role == role:
            return place
    raise AssetFailed(f"No Redis is known for {target.name}.", "Set `redis_url` in the host's configuration.")


def setting(client: redis.Redis, name: str) -> str:
    """A setting as CONFIG GET tells it; empty when there is none such, or it may not be asked."""
    with suppress(ResponseError):
        answer: Any = client.config_get(name)
        value = answer.get(name, answer.get(name.encode(), ""))
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return ""


def _number(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name, 0)
    return value if isinstance(value, int) else 0
