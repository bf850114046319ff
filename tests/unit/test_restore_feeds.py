"""The progress of `tootctl feeds build`, as it is written where there is no terminal and where there is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from backends.progress import QuietJob
from backends.restore.base import Work
from backends.restore.feeds import _Progress

BAR = "=" * 68


class Counted(QuietJob):
    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        self.total, self.done = total, 0

    def advance(self, amount: int) -> None:
        assert amount > 0
        self.done += amount


def progress() -> tuple[_Progress, Counted]:
    job = Counted()
    return _Progress(cast(Work, cast(Any, SimpleNamespace(job=job)))), job


@given(st.lists(st.integers(1, 70), max_size=20))
@example([10])
@example([1] * 30)
def test_a_bar_that_only_grows_is_followed_however_it_is_cut(sizes: list[int]) -> None:
    taking, job = progress()
    text = f"Progress: |{BAR}|\nRegenerated feeds for 24 accounts \n"
    for size in sizes:
        taking.take(text[:size])
        text = text[size:]
    taking.take(text)
    assert (job.done, job.total) == (68, 68)


def test_it_is_told_on_the_way() -> None:
    taking, job = progress()
    taking.take("Progress: |=====")
    assert (job.done, job.total) == (5, 68)
    taking.take("===")
    assert job.done == 8


@given(st.text("=|/ \r\n0123456789Progress:", max_size=200))
def test_no_output_is_too_odd(text: str) -> None:
    taking, job = progress()
    taking.take(text)
    taking.take("Progress: |==|=" + text)
    assert job.total is None or job.done <= job.total


def test_counts_on_a_terminal_still_count() -> None:
    taking, job = progress()
    taking.take("0/24 |     | ETA: 00:00:00\r12/24 |==   | ETA: 00:00:01\r")
    assert (job.done, job.total) == (12, 24)
