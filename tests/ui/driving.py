"""Driving the app in a test: wait for what was asked for instead of sleeping."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widget import Widget

from tests.ui import given
from tui.app import MastovaultApp

_STEPS = 300
_CHARACTERS = {"space": " ", "slash": "/", "colon": ":", "plus": "+", "minus": "-", "question_mark": "?"}


def app_of(pilot: Pilot[Any]) -> MastovaultApp:
    assert isinstance(pilot.app, MastovaultApp)
    return pilot.app


async def settled(pilot: Pilot[Any]) -> None:
    """Wait until everything that was asked for has arrived and is drawn."""
    app = app_of(pilot)
    calm = 0
    for _step in range(_STEPS):
        await pilot.pause(0.01)
        busy = any(not worker.is_finished for worker in app.workers)
        known = app.seen is not None and app.runs_known and app.area is not None
        calm = calm + 1 if known and not busy and app.area is not None and not app.area.waiting else 0
        if calm == 3:
            return
    raise AssertionError("the app did not settle")


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Press keys one by one, each with its consequences."""
    for key in keys:
        name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
        character = key if len(key) == 1 else _CHARACTERS.get(name)
        assert pilot.app._driver is not None
        # The pilot's own press also waits for an idle processor, which a busy machine hardly ever has.
        pilot.app._driver.send_message(events.Key(name, character))
        await settled(pilot)


async def write(pilot: Pilot[Any], text: str) -> None:
    """Type a text; its consequences are awaited at its end only."""
    for character in text:
        assert pilot.app._driver is not None
        name = character if character.isalnum() else _character_to_key(character)
        pilot.app._driver.send_message(events.Key(name, character))
    await settled(pilot)


@asynccontextmanager
async def running(
    source: given.GivenSource | None = None, size: tuple[int, int] = (80, 24), **extra: Any
) -> AsyncIterator[tuple[MastovaultApp, Pilot[Any]]]:
    """The app on fixed values, settled."""
    app = given.app(source, **extra)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settled(pilot)
        yield app, pilot


def text_of(widget: Widget) -> str:
    """What a widget shows, as plain lines."""
    lines = ["".join(segment.text for segment in widget.render_line(y)).rstrip() for y in range(widget.size.height)]
    return "\n".join(lines)


def screen_text(app: MastovaultApp) -> str:
    """The whole screen as plain lines."""
    height = app.size.height
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in lines[:height])
