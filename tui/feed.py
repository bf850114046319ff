"""Keeps the screens fed from threads of its own: they read, compare and hand immutable values to the app.

The threads are daemons and no Textual workers: leaving the app never waits for a slow disk, and nothing here competes
with the event loop's own pool.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from backends.errors import MastovaultError
from backends.runs.view import RunView
from tui.source import Seen, Source

T = TypeVar("T")

BUSY_SECONDS = 0.25
IDLE_SECONDS = 1.0
INTERVALS = (15, 30, 60, 120, 300, 600)
_REREAD_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A look at hosts and vaults that is going on: how many of how many hosts have answered."""

    answered: int
    hosts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNews:
    """A newly read fleet."""

    seen: Seen
    asking: Asking | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsNews:
    """Newly read runs."""

    runs: tuple[RunView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """The engine could not be read; the screens keep what they have."""

    error: Exception


News = FleetNews | RunsNews | Trouble


class Feed:
    """Three threads over one source: the fleet, the runs, and what the operator asks for."""

    def __init__(self, source: Source, deliver: Callable[[News], None], *, refreshes: bool = True) -> None:
        self._source = source
        self._deliver = deliver
        self._refreshes = refreshes
        self._stop = threading.Event()
        self._wake_fleet = threading.Event()
        self._wake_runs = threading.Event()
        self._want_refresh = threading.Event()
        self._wanted_hosts: Sequence[str] | None = None
        self._requests: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.interval = 60
        self.paused = False

    def start(self) -> None:
        """Begin to read."""
        for name, target in (("fleet", self._follow_fleet), ("runs", self._follow_runs), ("desk", self._serve)):
            threading.Thread(target=target, name=f"mastovault-{name}", daemon=True).start()

    def stop(self) -> None:
        """End the threads at their next step; does not wait for them."""
        self._stop.set()
        self._wake_fleet.set()
        self._wake_runs.set()
        self._requests.put(None)

    def reread(self) -> None:
        """Read the fleet again soon, without asking the hosts."""
        self._wake_fleet.set()

    def hurry(self) -> None:
        """Look at the runs at once."""
        self._wake_runs.set()

    def refresh(self, hosts: Sequence[str] | None = None) -> None:
        """Ask hosts and vaults now."""
        self._wanted_hosts = hosts
        self._want_refresh.set()
        self._wake_fleet.set()

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something that may block on the thread for it, and return what it returned."""
        future: Future[T] = Future()
        self._requests.put((future, lambda: work(*arguments)))
        return await asyncio.wrap_future(future)

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """The same for what may take long (asking a host): on a thread of its own, so that nothing waits behind it."""
        future: Future[T] = Future()
        thread = threading.Thread(target=_settle, args=(future, lambda: work(*arguments)), daemon=True)
        thread.start()
        return await asyncio.wrap_future(future)

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            _settle(*request)

    def _follow_runs(self) -> None:
        last: tuple[RunView, ...] | None = None
        while not self._stop.is_set():
            try:
                runs = self._source.runs()
            except Exception as error:  # noqa: BLE001 - a damaged run folder must not end the app
                self._deliver(Trouble(error=error))
                runs = last or ()
            if runs != last and not self.paused:
                if last is not None and _ended(last, runs):
                    self._wake_fleet.set()
                last = runs
                self._deliver(RunsNews(runs=runs))
            busy = any(run.active for run in runs)
            self._wake_runs.wait(BUSY_SECONDS if busy else IDLE_SECONDS)
            self._wake_runs.clear()

    def _follow_fleet(self) -> None:
        due = time.monotonic() if self._refreshes else float("inf")
        asks: Callable[[], bool] | None = None
        since: Seen | None = None
        last: FleetNews | None = None
        while not self._stop.is_set():
            seen = self._read()
            if seen is not None and asks is None and (time.monotonic() >= due or self._want_refresh.is_set()):
                asks = self._begin(seen)
                since = seen
                due = time.monotonic() + self.interval
            still = asks is not None and asks()
            if asks is not None and not still:
                asks = None
                due = min(due, time.monotonic() + self.interval) if self._refreshes else due
                seen = self._read() or seen
            if seen is not None and not self.paused:
                news = FleetNews(seen=seen, asking=_answered(since, seen) if still else None)
                if news != last:
                    last = news
                    self._deliver(news)
            pause = 1.0 if still else max(0.05, min(_REREAD_SECONDS, due - time.monotonic()))
            self._wake_fleet.wait(pause)
            self._wake_fleet.clear()

    def _read(self) -> Seen | None:
        try:
            return self._source.fleet()
        except Exception as error:  # noqa: BLE001 - the screens keep what they have and say so
            self._deliver(Trouble(error=error))
            return None

    def _begin(self, seen: Seen) -> Callable[[], bool] | None:
        self._want_refresh.clear()
        hosts, self._wanted_hosts = self._wanted_hosts, None
        if not seen.config.hosts and not seen.config.vaults:
            return None
        try:
            return self._source.refresh(hosts)
        except (MastovaultError, OSError) as error:
            self._deliver(Trouble(error=error))
            return None


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        future.set_exception(error)


def _ended(before: Sequence[RunView], now: Sequence[RunView]) -> bool:
    """Whether any job or run ended between two looks: then the fleet has news."""
    ended = {(run.id, job.id) for run in before for job in run.jobs if job.state.ended}
    gone = {run.id for run in before if not run.active}
    return any(
        (not run.active and run.id not in gone) or any(j.state.ended and (run.id, j.id) not in ended for j in run.jobs)
        for run in now
    )


def _answered(before: Seen | None, now: Seen) -> Asking:
    asked = {host.host: host.asked_at for host in before.fleet.hosts} if before is not None else {}
    new = sum(host.asked_at != asked.get(host.host) for host in now.fleet.hosts)
    return Asking(answered=new, hosts=len(now.config.hosts))
