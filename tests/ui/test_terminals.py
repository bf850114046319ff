"""Terminals with few colours, none, no Unicode, or too little room."""

from __future__ import annotations

import pytest
from textual.filter import NoColor

from tests.ui import given
from tests.ui.driving import press, running, screen_text, settled
from tui.theme import few_colours


def test_a_terminal_with_many_colours_has_the_full_theme() -> None:
    assert not few_colours()
    assert given.app().theme == "mastovault"


@pytest.mark.parametrize("term", ["xterm", "linux", "screen"])
def test_sixteen_colours_use_the_terminals_own(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLORTERM")
    app = given.app()
    assert app.theme == "mastovault-ansi"
    assert app.native_ansi_color


def test_a_light_terminal_has_the_light_theme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFGBG", "0;15")
    assert given.app().theme == "mastovault-light"


async def test_without_colour_everything_is_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with running() as (app, _pilot):
        assert any(isinstance(one, NoColor) for one in app.get_line_filters())
        for strip in app.screen._compositor.render_strips():
            for segment in strip.apply_filter(NoColor(), app.screen.background_colors[1]):
                assert segment.style is None or segment.style.color is None or segment.style.color.is_default
        text = screen_text(app)
        for word in ("CRIT ▲▲", "HIGH ▲", "UNKN ?", "MED •", "OK ✓", "LOW ·"):
            assert word in text


async def test_ascii_draws_ascii_only() -> None:
    async with running(size=(120, 40), ascii_glyphs=True) as (app, pilot):
        for key in ("g", "enter", "escape", "2", "question_mark", "escape", "1", "i", "escape", "3", "4", "5"):
            await press(pilot, key)
            drawn = "".join(
                segment.text
                for strip in app.screen._compositor.render_strips()
                for segment in strip.apply_filter(app._plain_signs, app.screen.background_colors[1])
            )
            assert drawn.isascii(), key
            assert "CRIT !!" in drawn


async def test_a_small_terminal_says_what_is_needed_and_recovers() -> None:
    async with running(size=(72, 20)) as (app, pilot):
        assert "Needs 80x24, have 72x20" in screen_text(app)
        assert "CRIT" not in screen_text(app)
        await pilot.resize_terminal(80, 24)
        await settled(pilot)
        assert "CRIT ▲▲" in screen_text(app)
        await pilot.resize_terminal(60, 30)
        await settled(pilot)
        assert "Needs 80x24, have 60x30" in screen_text(app)


async def test_growing_wider_adds_the_reasons() -> None:
    async with running() as (app, pilot):
        assert "+40" not in screen_text(app)
        await pilot.resize_terminal(120, 40)
        await settled(pilot)
        assert "+40" in screen_text(app)
