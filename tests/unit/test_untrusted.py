"""Nothing that could steer a terminal passes the gate."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from backends.untrusted import clean


@given(st.text() | st.binary(max_size=400), st.integers(1, 200), st.booleans())
def test_only_showable_characters_come_out(text: str | bytes, limit: int, lines: bool) -> None:
    shown = clean(text, limit, lines=lines)
    assert len(shown) <= limit
    for character in shown:
        if character == "\n":
            assert lines
        else:
            assert unicodedata.category(character) not in {"Cc", "Cf", "Cs"}


def test_escape_sequences_and_bidi_marks_lose_their_power() -> None:
    assert clean("\x1b]0;owned\x07a\u202eb\x9bc") == "�]0;owned�a�b�c"


def test_long_text_is_cut_with_a_mark() -> None:
    assert clean("x" * 10, 4) == "xxx…"
    assert clean("abcd", 4) == "abcd"


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=100))
def test_plain_text_is_left_alone(text: str) -> None:
    assert clean(text) == text
