"""The restore wizard: every page, forward and back, and everything that keeps it from the last button."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button

from backends.model import Asset, JobResult, JobState, Secret
from tests.ui import given
from tests.ui import given_restore as restoring
from tests.ui.driving import press, running, screen_text, settled, write
from tui.app import MastovaultApp
from tui.screens.asset import AssetScreen
from tui.screens.dialog import Ask
from tui.screens.fleet import FleetScreen
from tui.screens.jobs import JobsScreen
from tui.source import History
from tui.widgets.typed import missing
from tui.wizard.draft import Where, directory_problem
from tui.wizard.screen import RestoreWizard

IN_PLACE = ("r", "enter", "G", "enter")
"""From the first row of the fleet (social.ex/database) to the plan of a restore in place."""


def wizard(app: MastovaultApp) -> RestoreWizard:
    assert isinstance(app.screen, RestoreWizard)
    return app.screen


async def until(pilot: Pilot[Any], wanted: Callable[[], object], what: str) -> None:
    for _step in range(400):
        if wanted():
            await settled(pilot)
            return
        await pilot.pause(0.01)
    raise AssertionError(f"{what} did not happen")


async def planned(app: MastovaultApp, pilot: Pilot[Any]) -> None:
    """Wait until there is a plan, or the reason why there is none."""
    screen = wizard(app)
    await until(pilot, lambda: screen.look is not None and screen.look.over, "the plan")


def told(app: MastovaultApp) -> str:
    return [note.message for note in app._notifications][-1]


async def test_r_on_a_row_chooses_its_asset_and_the_newest_copy_of_it() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "r")
        draft = wizard(app).draft
        assert set(draft.copies) == {Asset.DATABASE}
        assert draft.point is not None
        assert draft.point.run == restoring.points("social.ex")[0].run
        assert "database" in screen_text(app)


async def test_r_on_a_host_chooses_all_of_it() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "3", "r")
        assert set(wizard(app).draft.copies) == set(Asset)


async def test_r_on_a_row_of_the_history_chooses_that_copy() -> None:
    source = restoring.source()
    third = restoring.points("social.ex")[2]
    copy = third.own[Asset.DATABASE]
    source.past = lambda host, asset: History(host=host, asset=asset, snapshots=(copy,))
    async with running(source) as (app, pilot):
        await press(pilot, "enter", "r")
        assert wizard(app).draft.copies[Asset.DATABASE].id == copy.id


@pytest.mark.parametrize(
    ("page", "key"),
    # On the last page letters belong to the name that must be typed.
    [(page, key) for page in range(1, 5) for key in ("escape", "q", "ctrl+c") if (page, key) != (4, "q")],
)
async def test_leaving_from_any_page_changes_nothing(page: int, key: str) -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE[: {1: 1, 2: 2, 3: 4, 4: 4}[page]])
        if page > 2:
            await planned(app, pilot)
        if page == 4:
            await press(pilot, "4")
        assert wizard(app).page == page
        await press(pilot, key)
        assert isinstance(app.screen, FleetScreen)
        assert told(app) == "Nothing has been changed."
        assert set(source.kinds()) <= {"plan"}


async def test_pages_go_forward_and_back_and_keep_what_was_chosen() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        await press(pilot, "4", "backspace")
        assert wizard(app).page == 3
        await press(pilot, "2")
        assert wizard(app).draft.where is Where.IN_PLACE
        await press(pilot, "backspace", "backspace")
        assert wizard(app).page == 1
        await press(pilot, "3")
        assert wizard(app).page == 3
        assert app.source.kinds() == ["plan"]  # type: ignore[attr-defined]


async def test_another_choice_is_looked_at_anew() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        await press(pilot, "1", "j", "3")
        await planned(app, pilot)
        first, second = (call[1].options["request"] for call in source.done if call[0] == "start")
        assert first["id"] == second["id"]
        assert first["snapshots"] != second["snapshots"]


async def test_assets_are_chosen_one_by_one_or_all() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "r", "tab", "j", "space")
        draft = wizard(app).draft
        assert set(draft.copies) == {Asset.DATABASE, Asset.SECRETS}
        await press(pilot, "w")
        assert set(draft.copies) == set(Asset)
        await press(pilot, "w")
        assert set(draft.copies) == {Asset.SECRETS}
        await press(pilot, "space", "enter")
        assert wizard(app).page == 1
        assert "at least one asset" in told(app)


async def test_a_wish_survives_points_that_lack_it() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "3", "r", "j", "j", "k")
        assert set(wizard(app).draft.copies) == set(Asset)


async def test_the_sandbox_is_preselected_and_enter_is_enough_for_it() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, "r", "enter")
        assert wizard(app).draft.where is Where.SANDBOX
        await press(pilot, "enter", "enter")
        assert wizard(app).page == 4
        assert isinstance(app.focused, Button)
        assert app.focused.id == "keep"
        await press(pilot, "tab", "enter")
        assert isinstance(app.screen, JobsScreen)
        wish = source.done[-1][1]
        assert (wish.kind, wish.host, wish.assets) == ("drill", "social.ex", (Asset.DATABASE,))
        assert list(wish.options["snapshots"]) == ["database"]
        assert wish.options["on"] is None


async def test_files_go_into_the_directory_that_is_typed() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, "r", "enter", "j", "enter")
        assert wizard(app).page == 2
        await press(pilot, "ctrl+u", "enter")
        assert "Say into which directory" in told(app)
        await write(pilot, "/srv/out")
        await press(pilot, "enter")
        await planned(app, pilot)
        assert source.done[-1][1].options["directory"] == "/srv/out"
        await press(pilot, "enter", "tab", "enter")
        wish = source.done[-1][1]
        assert (wish.kind, wish.options["directory"]) == ("extract", "/srv/out")
        assert isinstance(app.screen, JobsScreen)


async def test_another_host_must_be_chosen_from_the_list() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, "r", "enter", "j", "j", "enter")
        assert wizard(app).page == 2
        assert "toot.lan" in screen_text(app)
        await press(pilot, "3")
        assert "Choose the other host" in told(app)
        await press(pilot, "j", "enter")
        await planned(app, pilot)
        wish = source.done[-1][1]
        assert (wish.host, wish.options["request"]["host"]) == ("toot.lan", "toot.lan")
        await press(pilot, "4")
        await write(pilot, "toot.lan/database")
        await press(pilot, "enter", "enter")
        assert source.done[-1][1].options["request"]["confirm"] == "toot.lan/database"


async def test_options_are_offered_where_they_apply() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, "3", "r", "enter")
        assert "Redis empty" not in screen_text(app)
        await press(pilot, "G", "space", "j", "space", "j", "space", "tab")
        await write(pilot, "accounts/avatars")
        await press(pilot, "enter")
        await planned(app, pilot)
        request = source.done[-1][1].options["request"]
        assert request["redis"] == "empty"
        assert "redis" not in request["snapshots"]
        assert (request["subtree"], request["exact"]) == ("accounts/avatars", True)
        assert Asset.REDIS in source.done[-1][1].assets


async def test_in_place_needs_the_name_typed_exactly() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        await press(pilot, "enter")
        go = app.screen.query_one("#go", Button)
        assert go.disabled
        assert "18 letters missing" in screen_text(app)
        await write(pilot, "social.ex/databas")
        assert "1 letter missing" in screen_text(app)
        await press(pilot, "enter", "enter", "enter")
        assert source.kinds() == ["plan"]
        await press(pilot, "x")
        assert "does not match" in screen_text(app)
        await press(pilot, "backspace", "e")
        assert not go.disabled
        await press(pilot, "enter")
        assert source.kinds() == ["plan"]
        await press(pilot, "enter")
        assert source.kinds() == ["plan", "restore"]
        request = source.done[-1][1].options["request"]
        assert request["confirm"] == "social.ex/database"
        assert request["accept"] == []
        screen = app.screen
        assert isinstance(screen, JobsScreen)
        await until(pilot, lambda: screen.table.current is not None, "the job")
        assert screen.table.current is not None
        assert screen.table.current.run.kind == "restore"
        await until(pilot, lambda: "restore beside" in screen_text(app), "the steps")


async def test_the_safe_button_leaves() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        await press(pilot, "4", "enter")
        assert isinstance(app.screen, FleetScreen)
        assert told(app) == "Nothing has been changed."
        assert source.kinds() == ["plan"]


async def test_a_finding_that_blocks_closes_the_last_page() -> None:
    source = restoring.source(findings=(*restoring.FINDINGS, restoring.NO_ROOM))
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        text = screen_text(app)
        assert "STOP ✗" in text
        assert "Free 65G there" in text
        assert "page 4 is closed" in text
        for key in ("enter", "4"):
            await press(pilot, key)
            assert wizard(app).page == 3
            assert "STOP" in told(app)


async def test_a_finding_can_be_overridden_by_its_own_word() -> None:
    source = restoring.source(findings=(*restoring.FINDINGS, restoring.OTHER_DOMAIN))
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        await press(pilot, "enter")
        assert "Type social.ex/domain" in screen_text(app)
        await write(pilot, "social.ex/domain")
        assert app.screen.query_one("#go", Button).disabled
        await press(pilot, "enter")
        await write(pilot, "social.ex/database")
        await press(pilot, "enter", "enter")
        request = source.done[-1][1].options["request"]
        assert (request["accept"], request["confirm"]) == (["domain"], "social.ex/database")


async def test_a_look_that_fails_says_why_and_can_be_repeated() -> None:
    failed = JobResult(
        host="social.ex",
        asset=Asset.DATABASE,
        state=JobState.FAILED,
        error="social.ex port 22: connection refused",
        next_step="Check that sshd runs there.",
    )
    source = restoring.source(look_fails=failed)
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        assert "connection refused" in screen_text(app)
        assert "Check that sshd runs there." in screen_text(app)
        await press(pilot, "4")
        assert "There is no plan" in told(app)
        source.look_fails = None
        await press(pilot, "R")
        await planned(app, pilot)
        assert "SWAP databases" in "\n".join(
            step.name for step in (wizard(app).plan or restoring.plan(restoring.WISH)).steps
        )


async def test_a_look_that_asks_is_answered_in_the_usual_window() -> None:
    source = restoring.source(asks="passphrase of identity.age")
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await until(pilot, lambda: isinstance(app.screen, Ask), "the question")
        await write(pilot, "hunter2")
        await press(pilot, "enter")
        assert ("answer", source.views[0].id, "q1", Secret("hunter2")) in source.done
        assert isinstance(app.screen, RestoreWizard)


async def test_leaving_while_it_looks_stops_the_look() -> None:
    source = restoring.source(look_hangs=True)
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await until(pilot, lambda: wizard(app).look_run is not None, "the look")
        assert "nothing is changed anywhere" in screen_text(app)
        await press(pilot, "escape")
        assert ("cancel", source.views[0].id, None) in source.done


async def test_a_look_is_no_job() -> None:
    source = restoring.source(look_hangs=True)
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await until(pilot, lambda: wizard(app).look_run is not None, "the look")
        assert app.entries == ()
        await press(pilot, "escape", "2")
        assert "No job has run" in screen_text(app)


async def test_commands_are_shown_and_copied() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        assert "pg_restore -j4" not in screen_text(app)
        await press(pilot, "c")
        assert "pg_restore -j4" in screen_text(app)
        await press(pilot, "y")
        assert "systemctl stop mastodon-web" in app.clipboard
        await press(pilot, "c")
        assert "pg_restore -j4" not in screen_text(app)


async def test_commands_stand_beside_the_plan_where_there_is_room() -> None:
    async with running(restoring.source(), size=(120, 40)) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        text = screen_text(app)
        assert "pg_restore -j4" in text
        assert "SWAP databases" in text


async def test_read_only_ends_with_the_plan() -> None:
    source = restoring.source()
    async with running(source, read_only=True) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        assert "The wizard ends here" in screen_text(app)
        await press(pilot, "enter", "4")
        assert wizard(app).page == 3
        assert "read-only" in told(app)
        assert source.kinds() == ["plan"]


@pytest.mark.parametrize("key", ["v", "d", "u"])
async def test_read_only_takes_the_rest_away(key: str) -> None:
    source = restoring.source(restoring.record("social.ex", "done", "undo", "forget"))
    async with running(source, read_only=True) as (app, pilot):
        await press(pilot, key)
        assert isinstance(app.screen, FleetScreen)
        assert "read-only" in told(app)
        assert source.kinds() == []


async def test_a_run_that_cannot_start_says_why_and_the_wizard_stays() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        source.refuses = "no run can be started: no space left on device"
        await press(pilot, "4")
        await write(pilot, "social.ex/database")
        await press(pilot, "enter", "enter")
        assert "no run can be started" in told(app)
        assert wizard(app).page == 4


async def test_a_look_that_cannot_start_says_why() -> None:
    source = restoring.source(refuses="no run can be started: no space left on device")
    async with running(source) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        assert "no space left on device" in screen_text(app)


async def test_without_any_copy_there_is_nothing_to_choose() -> None:
    async with running(restoring.source(has_points=False)) as (app, pilot):
        await press(pilot, "r", "enter")
        assert "No good copy of social.ex" in screen_text(app)
        assert wizard(app).page == 1


async def test_the_wizard_survives_a_small_terminal() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        await press(pilot, "4")
        await write(pilot, "social.ex/")
        await pilot.resize_terminal(60, 18)
        await settled(pilot)
        assert "Needs 80x24" in screen_text(app)
        await pilot.resize_terminal(80, 24)
        await settled(pilot)
        assert "8 letters missing" in screen_text(app)


async def test_a_picture_that_is_held_still_goes_on_for_the_plan() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "p", *IN_PLACE)
        await planned(app, pilot)
        assert not app.paused


async def test_the_wizard_opens_from_the_asset_and_returns_to_it() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "enter", "r", "escape")
        assert isinstance(app.screen, AssetScreen)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("", "3 letters missing"),
        ("ab", "1 letter missing"),
        ("abc", ""),
        ("abd", "does not match"),
        ("abcd", "does not match"),
    ],
)
def test_what_is_missing(typed: str, wanted: str) -> None:
    assert missing("abc", typed) == wanted


@pytest.mark.parametrize(
    ("text", "good"),
    [("/srv/out", True), ("~/out", True), ("", False), ("  ", False), ("out", False), ("~nobody9/x", False)],
)
def test_a_directory_is_named_in_full(text: str, good: bool) -> None:
    assert (directory_problem(text) == "") is good


async def test_a_drill_of_a_copy_that_nobody_signed_needs_its_word() -> None:
    source = restoring.source()
    source.seen = replace(source.seen, config=given.config(signers={"ops": "b3BzLWtleQ=="}))
    async with running(source) as (app, pilot):
        await press(pilot, "r")
        assert "NOT SIGNED" in screen_text(app)
        await press(pilot, "enter", "enter", "enter")
        go = app.screen.query_one("#go", Button)
        assert "NOT SIGNED" in screen_text(app)
        assert go.disabled
        await write(pilot, "social.ex/unsigned")
        await press(pilot, "enter", "enter")
        assert source.kinds() == ["drill"]
        assert source.done[-1][1].options["accept"] == ["unsigned"]
