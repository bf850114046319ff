from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backends.config.paths import Paths
from backends.errors import VaultError
from tests.ui import given
from tests.ui.driving import press, running, screen_text, settled
from tui.app import MastovaultApp
from tui.faults import FaultLog
from tui.feed import Trouble
from tui.screens.fleet import FleetScreen
from tui.screens.why import FaultDialog


class Broken(given.GivenSource):
    """A source that raises where the app does not expect it."""

    def history(self, host: str, asset: object) -> object:  # type: ignore[override]
        raise ZeroDivisionError("hunter2")


async def until_fault(app: MastovaultApp, pilot: object) -> None:
    for _step in range(100):
        await asyncio.sleep(0.01)
        if isinstance(app.screen, FaultDialog):
            return


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "config.toml", tmp_path / "state", tmp_path / "cache")


def app_with(paths: Paths, source: given.GivenSource) -> MastovaultApp:
    return MastovaultApp(paths, source=source, clock=lambda: given.NOW, refreshes=False)


async def test_the_app_stays_up_and_names_the_file(paths: Paths) -> None:
    app = app_with(paths, Broken())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("enter")
        await until_fault(app, pilot)
        text = screen_text(app)
        assert "ZeroDivisionError" in text
        assert "Traceback" not in text
        assert "hunter2" not in text
        assert "ZeroDivisionError" in app.faults.path.read_text()
        assert app.faults.path.stat().st_mode & 0o077 == 0
        await pilot.press("y")
        await pilot.pause()
        assert app.clipboard == str(app.faults.path)
        await pilot.press("escape")
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, FleetScreen)


async def test_a_handler_that_raises_does_not_stop_its_screen(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_with(paths, given.GivenSource())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        with monkeypatch.context() as patch:
            patch.setattr(FleetScreen, "do_mark", lambda self: 1 / 0)
            await pilot.press("space")
            await until_fault(app, pilot)
        assert isinstance(app.screen, FaultDialog)
        await pilot.press("escape")
        await pilot.pause()
        await press(pilot, "j", "space")
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        assert len(screen.marks) == 1


async def test_what_the_engine_foresaw_is_a_banner_until_it_is_gone() -> None:
    async with running() as (app, pilot):
        app._deliver(Trouble(error=VaultError("the cache is damaged", "Delete it.")))
        while not app.trouble:
            await pilot.pause()
        await settled(pilot)
        assert "▲ the cache is damaged" in screen_text(app)
        assert isinstance(app.source, given.GivenSource)
        app.source.seen = given.seen(made=given.fleet(given.STATUSES[1:]))
        app.feed.reread()
        while app.trouble:
            await pilot.pause()
        assert "the cache is damaged" not in screen_text(app)


def test_the_same_fault_is_told_once(tmp_path: Path) -> None:
    log = FaultLog(tmp_path / "state" / "app-error.log")

    def fault() -> bool:
        try:
            raise ValueError("x")
        except ValueError as error:
            return log.record(error)

    assert [fault() for _ in range(3)] == [True, False, False]
    assert not log.flooded
    assert [fault() for _ in range(20)] == [False] * 20
    assert log.flooded
    assert log.path.read_text().count("Traceback") == 1
