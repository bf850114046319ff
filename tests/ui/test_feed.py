from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from backends.model import JobState
from backends.runs.view import RunView
from tests.ui import given
from tui.feed import Asking, Feed, FleetNews, News, RunsNews, Trouble

WAIT = 10.0


class Watched:
    """A feed whose news can be waited for."""

    def __init__(self, source: given.GivenSource, *, refreshes: bool = False) -> None:
        self.news: queue.Queue[News] = queue.Queue()
        self.feed = Feed(source, self.news.put, refreshes=refreshes)
        self.feed.start()

    def until(self, wanted: Callable[[News], bool]) -> News:
        while True:
            news = self.news.get(timeout=WAIT)
            if wanted(news):
                return news


@pytest.fixture
def source() -> given.GivenSource:
    return given.GivenSource()


@pytest.fixture
def watched(source: given.GivenSource) -> Iterator[Watched]:
    made = Watched(source)
    yield made
    made.feed.stop()


def test_it_brings_fleet_and_runs_at_once(watched: Watched) -> None:
    found = {type(watched.news.get(timeout=WAIT)) for _ in range(2)}
    assert found == {FleetNews, RunsNews}


def test_the_same_news_is_brought_once(watched: Watched) -> None:
    watched.until(lambda news: isinstance(news, RunsNews))
    for _ in range(5):
        watched.feed.hurry()
        watched.feed.reread()
    watched.feed.stop()
    time.sleep(0.2)
    left = [watched.news.get() for _ in range(watched.news.qsize())]
    assert not [news for news in left if isinstance(news, RunsNews)]


def test_a_job_that_ends_has_the_fleet_read_again(watched: Watched, source: given.GivenSource) -> None:
    watched.until(lambda news: isinstance(news, FleetNews))
    job = replace(given.RUNNING.jobs[0], state=JobState.DONE)
    source.seen = given.seen(source.seen.config, given.fleet(given.STATUSES[1:]))
    source.views = (replace(given.RUNNING, jobs=(job,)), *given.RUNS[1:])
    watched.feed.hurry()
    news = watched.until(lambda news: isinstance(news, FleetNews))
    assert isinstance(news, FleetNews)
    assert len(news.seen.fleet.assets) == len(given.STATUSES) - 1


def test_hosts_are_asked_at_the_start_and_never_twice_at_once(source: given.GivenSource) -> None:
    source.refreshing = True
    watched = Watched(source, refreshes=True)
    try:
        watched.until(lambda news: isinstance(news, FleetNews) and news.asking == Asking(answered=0, hosts=4))
        hosts = [replace(host, asked_at=given.NOW) for host in given.HOSTS[:3]] + [given.HOSTS[3]]
        source.seen = given.seen(source.seen.config, given.fleet(hosts=hosts))
        watched.feed.refresh()
        watched.until(lambda news: isinstance(news, FleetNews) and news.asking == Asking(answered=3, hosts=4))
        assert source.done == [("refresh", None)]
        source.refreshing = False
        watched.feed.reread()
        watched.until(lambda news: isinstance(news, FleetNews) and news.asking is None)
    finally:
        watched.feed.stop()


def test_a_source_that_fails_is_told_and_read_again() -> None:
    class Failing(given.GivenSource):
        failures = 2

        def runs(self) -> tuple[RunView, ...]:
            if self.failures:
                self.failures -= 1
                raise OSError(5, "Input/output error")
            return super().runs()

    watched = Watched(Failing())
    try:
        watched.until(lambda news: isinstance(news, Trouble))
        watched.feed.hurry()
        watched.until(lambda news: isinstance(news, RunsNews))
    finally:
        watched.feed.stop()


async def test_a_call_returns_what_it_returned_or_raises_what_it_raised(watched: Watched) -> None:
    def double(number: int) -> int:
        assert threading.current_thread().name == "mastovault-desk"
        return number * 2

    assert await watched.feed.call(double, 21) == 42
    with pytest.raises(ZeroDivisionError):
        await watched.feed.call(lambda: 1 // 0)


def test_stopping_ends_the_threads(source: given.GivenSource) -> None:
    before = set(threading.enumerate())
    watched = Watched(source)
    watched.until(lambda news: isinstance(news, RunsNews))
    mine: Sequence[threading.Thread] = [one for one in threading.enumerate() if one not in before]
    assert len(mine) == 3
    assert all(one.daemon for one in mine)
    watched.feed.stop()
    for one in mine:
        one.join(WAIT)
        assert not one.is_alive()
