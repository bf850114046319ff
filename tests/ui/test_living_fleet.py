"""The app on real hosts: a backup from a key to the row that it changes, live, cancelled, and begun elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from backends.lab.lab import Lab
from backends.model import Asset, JobState, Level
from backends.runs.launch import start_run
from tests.ui.driving import screen_text
from tui.app import MastovaultApp
from tui.screens.fleet import FleetScreen

PATIENCE = 60.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(Path(tmp_path_factory.mktemp("fleet")) / "lab", hosts=2, rows=200) as made:
        yield made


async def until(pilot: Pilot[Any], wanted: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < end, f"{what} did not happen"
        await pilot.pause(0.05)


async def test_a_backup_from_the_key_to_the_row(lab: Lab) -> None:
    app = MastovaultApp(lab.paths)
    app.stays_up = False
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.seen is not None and bool(app.seen.fleet.assets), "the fleet")
        await until(pilot, lambda: app.seen is not None and len(app.seen.fleet.hosts) == 2, "the hosts' answers")
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        name = next(iter(lab.hosts))
        await until(pilot, lambda: screen.table.move_to(f"{name}/database"), "the row")
        await pilot.press("b")
        await until(pilot, lambda: bool(app.entries) and not app.entries[0].active, "the end of the backup")
        assert app.entries[0].job.state is JobState.DONE, app.entries[0].result
        key = f"{name}/database"
        await until(pilot, lambda: any(r.key == key and r.at is not None for r in screen.table.items), "the new age")
        row = next(row for row in screen.table.items if row.key == key)
        assert row.level is not Level.UNKN
        await until(pilot, lambda: f"{name}/database" in screen_text(app), "the job in the strip")
        assert len([note for note in app._notifications if "DONE" in note.message]) == 1


async def test_a_run_begun_elsewhere_shows_and_can_be_cancelled(lab: Lab) -> None:
    name = list(lab.hosts)[1]
    lab.hosts[name].ssh.rate = 20_000.0
    app = MastovaultApp(lab.paths, refreshes=False)
    app.stays_up = False
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.runs_known, "the runs")
        run = start_run(lab.paths, kind="backup", host=name, assets=[Asset.MEDIA])
        await until(pilot, lambda: any(entry.run.id == run and entry.active for entry in app.entries), "the run")
        await pilot.press("2")
        entry = next(entry for entry in app.entries if entry.run.id == run)
        await until(pilot, lambda: any(one.key == entry.key and one.job.done for one in app.entries), "progress")
        await pilot.press("X", "right", "enter")

        def state() -> JobState:
            return next(one.job.state for one in app.entries if one.key == entry.key)

        await until(pilot, lambda: state().ended, "the end of the job")
        assert state() is JobState.CANCELLED
