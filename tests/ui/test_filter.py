from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ui.driving import press, running
from tui.filter import Term, matches, parse
from tui.widgets.filter_input import FilterInput

ROW = {"host": "social.ex", "asset": "database", "risk": "CRIT", "state": "last 2 runs FAILED"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", True),
        ("social", True),
        ("SOCIAL data", True),
        ("social media", False),
        ("!media", True),
        ("!social", False),
        ("host:social", True),
        ("host:database", False),
        ("asset:data risk:crit", True),
        ("risk:high", False),
        ("!risk:high", True),
        ("state:failed", True),
        ("host:", True),
        ("!", True),
        ("[/x]", False),
        ("nosuchfield:x", False),
    ],
)
def test_a_row_passes_when_every_term_holds(text: str, found: bool) -> None:
    assert matches(parse(text), ROW) is found


def test_terms_are_read_with_field_and_negation() -> None:
    assert parse("!host:x y") == (Term("x", "host", True), Term("y"))


@given(st.text())
def test_any_text_is_a_filter(text: str) -> None:
    assert matches(parse(text), ROW) in {True, False}


@given(st.text(min_size=1).filter(lambda text: text.split() == [text] and not text.startswith("!")))
def test_a_negated_word_selects_the_rest(word: str) -> None:
    assert matches(parse(word), ROW) != matches(parse("!" + word), ROW) or not parse(word)


async def test_a_closed_filter_never_takes_keys() -> None:
    async with running() as (app, pilot):
        field = app.screen.query_one(FilterInput)
        for _ in range(2):
            app.screen.set_focus(field)
            await press(pilot, "j", "z")
            assert field.value == ""
            assert not field.has_focus
            await press(pilot, "slash", "f")
            assert (field.value, field.has_focus) == ("f", True)
            await press(pilot, "escape")
