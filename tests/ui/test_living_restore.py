"""The worst day from the app, on a real host: posts are dropped, restored in place, and the undo takes them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from backends.lab.lab import Lab
from backends.model import Asset, JobState
from backends.operations.restores import restores
from tests.restore_world import Restores
from tests.runs_world import World
from tests.ui.driving import screen_text, write
from tests.ui.test_living_fleet import until
from tui.after import AfterDialog
from tui.app import MastovaultApp
from tui.screens.dialog import Typed
from tui.screens.fleet import FleetScreen
from tui.screens.jobs import JobsScreen
from tui.widgets.typed import TypedName
from tui.wizard.draft import Where
from tui.wizard.screen import RestoreWizard


@pytest.fixture
def social(living_lab: Lab, tmp_path: Path) -> Restores:
    made = Restores(World(living_lab, tmp_path))
    made.back_up()
    return made


async def _restore(app: MastovaultApp, pilot: Pilot[Any], ended: Callable[[str], bool]) -> None:
    fleet = app.screen
    assert isinstance(fleet, FleetScreen)
    await until(pilot, lambda: fleet.table.move_to("social/database"), "the row")
    await pilot.press("r")
    wizard = app.screen
    assert isinstance(wizard, RestoreWizard)
    await until(pilot, lambda: bool(wizard.points), "the restore points")
    await pilot.press("enter", "G", "enter")
    assert wizard.draft.where is Where.IN_PLACE
    await until(pilot, lambda: wizard.look is not None and wizard.look.over, "the plan")
    assert wizard.plan is not None, wizard.look
    assert wizard.plan.blocked == ()
    await pilot.press("enter")
    await until(pilot, lambda: bool(wizard.query(TypedName)), "the field")
    await write(pilot, "social/database")
    await pilot.press("enter", "enter")
    await until(pilot, lambda: ended("restore"), "the end of the restore")


async def test_dropped_posts_come_back_from_the_app_and_can_be_dropped_again(social: Restores) -> None:
    good = social.counts()
    social.sql("DROP TABLE statuses CASCADE")
    damaged = social.counts()
    app = MastovaultApp(social.world.paths)
    app.stays_up = False

    def ended(kind: str) -> bool:
        mine = [entry for entry in app.entries if entry.run.kind == kind]
        return bool(mine) and not mine[0].active

    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: app.seen is not None and bool(app.seen.fleet.assets), "the fleet")
        await _restore(app, pilot, ended)
        assert app.entries[0].job.state is JobState.DONE, app.entries[0].result
        assert social.counts() == good
        assert isinstance(app.screen, JobsScreen)
        await until(pilot, lambda: "start Sidekiq" in screen_text(app), "the steps")
        await until(pilot, lambda: app.seen is not None and bool(app.seen.restores), "the restore's record")

        await pilot.press("u")
        await until(pilot, lambda: isinstance(app.screen, AfterDialog), "what can be done")
        await pilot.press("right", "enter")
        await until(pilot, lambda: isinstance(app.screen, Typed), "the name")
        await until(pilot, lambda: "Nothing was written since" in screen_text(app), "what is lost")
        await write(pilot, "social/database")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: ended("undo"), "the end of the undo")
        assert app.entries[0].job.state is JobState.DONE, app.entries[0].result
        assert social.counts() == damaged
    again = social.request(Asset.DATABASE)
    assert {result.state for result in social.restore(again)} == {JobState.DONE}
    for record in restores(social.world.paths):
        social.go_on(replace(again, id=record.id), "forget")
    assert social.databases() == []
    assert social.counts() == good
