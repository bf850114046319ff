from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.theme import plain
from tui.widgets import say
from tui.widgets.text import fit, safe, spread, width, wrapped

ANY = st.text(max_size=80)


@given(st.lists(st.tuples(ANY, st.just("")), max_size=4), st.integers(0, 60), st.booleans())
def test_a_fitted_line_has_exactly_its_cells(line: list[tuple[str, str]], cells: int, right: bool) -> None:
    if cells > 0:
        assert width(fit(line, cells, right=right)) == cells


@given(ANY, ANY, st.integers(20, 120))
def test_two_ends_fill_a_line(left: str, right: str, cells: int) -> None:
    made = spread([(safe(left), "")], [(safe(right)[:10], "")], cells)
    assert width(made) == cells


@given(ANY, st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_nothing(text: str, cells: int) -> None:
    lines = wrapped(text, cells)
    assert all(width([(line, "")]) <= cells for line in lines)
    assert "".join(lines).replace(" ", "") == safe(text).replace(" ", "")


@given(ANY)
def test_what_is_shown_holds_no_control_character(text: str) -> None:
    shown = safe(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066\u200b" for c in shown)


def test_plain_signs_keep_their_width() -> None:
    signs = "▲•·✓✗–…›↓◆▌█░⏎─│╭╯�"
    assert plain(signs).isascii()
    assert len(plain(signs)) == len(signs)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "change"), (86400, "24h"), (604800, "7d"), (5400, "90m"), (3600, "1h"), (172800, "2d")]
)
def test_goals_read_as_they_are_configured(seconds: float | None, text: str) -> None:
    assert say.goal(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "–"), (0, "00:00"), (190, "03:10"), (3723, "1:02:03")])
def test_durations_read_as_a_stopwatch(seconds: float | None, text: str) -> None:
    assert say.clock(seconds) == text


def test_a_bar_is_never_longer_than_its_room() -> None:
    for done, total in ((0, 10), (5, 10), (11, 10), (-3, 10), (3, 0)):
        full, rest = say.bar(done, total, 8)
        assert len(full[0] + rest[0]) == 8


def test_a_spark_shows_failures_between_sizes() -> None:
    assert "".join(text for text, _ in say.spark([1, 8, None, 0], 10)) == "▁█✗▁"
