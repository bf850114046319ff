from __future__ import annotations

from dataclasses import replace

import pytest
from textual.widgets import Button, Input

from backends.model import Asset, JobState, Secret
from tests.ui import given
from tests.ui.driving import press, running, screen_text, settled
from tui import actions
from tui.screens.asset import AssetScreen
from tui.screens.dialog import Ask, Confirm
from tui.screens.fleet import FleetScreen
from tui.screens.help import HelpScreen
from tui.screens.hosts import HostsScreen
from tui.screens.jobs import JobsScreen
from tui.screens.log import LogScreen
from tui.screens.settings import SettingsScreen
from tui.screens.storage import StorageScreen
from tui.screens.why import WhyDialog
from tui.widgets.log_pane import LogPane


async def test_moving_keys_move_the_cursor() -> None:
    async with running() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        for keys, expected in (("j", 1), ("down j", 3), ("k up", 1), ("G", 12), ("g", 0), ("end", 12)):
            await press(pilot, *keys.split())
            assert screen.table.position == expected
        await press(pilot, "home", "pagedown")
        assert screen.table.position > 5


async def test_digits_change_the_area_and_escape_returns() -> None:
    async with running() as (app, pilot):
        for key, kind in (("2", JobsScreen), ("3", HostsScreen), ("4", StorageScreen), ("5", SettingsScreen)):
            await press(pilot, key)
            assert isinstance(app.screen, kind)
        await press(pilot, "escape")
        assert isinstance(app.screen, FleetScreen)


async def test_enter_opens_an_asset_and_q_goes_back() -> None:
    async with running() as (app, pilot):
        await press(pilot, "enter")
        assert isinstance(app.screen, AssetScreen)
        assert (app.screen.host, app.screen.asset) == ("social.ex", Asset.DATABASE)
        await press(pilot, "q")
        assert isinstance(app.screen, FleetScreen)


async def test_enter_unfolds_a_host_that_is_away() -> None:
    async with running() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        screen.table.move_to("fedi.club/*")
        await press(pilot, "enter")
        assert screen.table.current is not None
        assert screen.table.current.key == "fedi.club/database"
        await press(pilot, "enter")
        assert isinstance(app.screen, AssetScreen)


@pytest.mark.parametrize("key", ["question_mark", "f1", "h"])
async def test_help_opens_and_closes_with_the_same_key(key: str) -> None:
    async with running() as (app, pilot):
        await press(pilot, key)
        assert isinstance(app.screen, HelpScreen)
        await press(pilot, key)
        assert isinstance(app.screen, FleetScreen)


async def test_every_key_of_a_screen_is_in_its_help() -> None:
    async with running(size=(120, 40)) as (app, pilot):
        await press(pilot, "question_mark")
        text = screen_text(app)
        for entry in actions.of("fleet"):
            if entry.keys:
                assert entry.help.split(":")[0][:20] in text, entry.id


async def test_b_starts_one_backup_at_once() -> None:
    source = given.GivenSource()
    async with running(source) as (_app, pilot):
        await press(pilot, "b")
        assert source.done == [("back_up", {"social.ex": (Asset.DATABASE,)})]


async def test_b_on_a_running_asset_says_so() -> None:
    source = given.GivenSource()
    async with running(source) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        screen.table.move_to("toot.lan/database")
        await press(pilot, "b")
        assert source.done == []
        assert "right now" in [note.message for note in app._notifications][-1]


async def test_an_error_at_the_start_is_told() -> None:
    source = given.GivenSource(error="no vault is configured")
    async with running(source) as (app, pilot):
        await press(pilot, "b")
        assert [note.message for note in app._notifications] == ["social.ex: no vault is configured"]


async def test_marked_rows_are_backed_up_after_asking_with_the_safe_button_first() -> None:
    source = given.GivenSource(views=())
    async with running(source) as (app, pilot):
        await press(pilot, "space", "space", "j", "ctrl+@", "b")
        assert isinstance(app.screen, Confirm)
        assert isinstance(app.focused, Button)
        assert app.focused.id == "no"
        await press(pilot, "enter")
        assert source.done == []
        await press(pilot, "b", "tab", "enter")
        assert source.done == [
            (
                "back_up",
                {
                    "social.ex": (Asset.DATABASE, Asset.MEDIA),
                    "mstdn.art": (Asset.SECRETS,),
                    "toot.lan": (Asset.DATABASE,),
                },
            )
        ]
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        assert screen.marks == set()


async def test_escape_takes_back_the_filter_then_the_marks() -> None:
    async with running() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        await press(pilot, "space", "slash", *"redis", "enter")
        assert {row.name for row in screen.table.items} == {"redis", "4 assets"}
        await press(pilot, "escape")
        assert (screen.filter_text, screen.marks) == ("", {"social.ex/database"})
        await press(pilot, "escape")
        assert screen.marks == set()


async def test_sorting_keeps_the_cursor_on_its_row() -> None:
    async with running() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        screen.table.move_to("toot.lan/media")
        for key in ("greater_than_sign", "greater_than_sign", "o", "less_than_sign", "less_than_sign", "o"):
            await press(pilot, key)
            assert screen.table.current is not None
            assert screen.table.current.key == "toot.lan/media"
        assert screen.sort == "risk"


async def test_the_cursor_stays_on_its_row_when_the_fleet_changes() -> None:
    source = given.GivenSource()
    async with running(source) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        screen.table.move_to("mstdn.art/media")
        turned = given.fleet(given.STATUSES[::-1])
        source.seen = replace(source.seen, fleet=turned)
        app.feed.reread()
        while app.seen is None or app.seen.fleet is not turned:
            await pilot.pause()
        await settled(pilot)
        assert screen.table.current is not None
        assert screen.table.current.key == "mstdn.art/media"


async def test_why_log_and_copy() -> None:
    async with running() as (app, pilot):
        await press(pilot, "i")
        assert isinstance(app.screen, WhyDialog)
        assert "+25" in screen_text(app)
        await press(pilot, "escape", "l")
        assert isinstance(app.screen, LogScreen)
        assert app.screen.query_one(LogPane).count == len(given.LOG)
        await press(pilot, "escape", "y")
        assert app.clipboard == "social.ex/database"


async def test_cancel_asks_and_then_tells_the_run() -> None:
    source = given.GivenSource()
    async with running(source) as (app, pilot):
        await press(pilot, "2", "j", "X")
        assert isinstance(app.screen, Confirm)
        await press(pilot, "enter")
        assert source.done == []
        await press(pilot, "X", "right", "enter")
        assert source.done == [("cancel", given.RUNNING.id, "database")]


async def test_cancel_of_an_ended_job_is_refused() -> None:
    async with running() as (app, pilot):
        await press(pilot, "2", "G", "X")
        assert isinstance(app.screen, JobsScreen)
        assert app._notifications


async def test_a_question_opens_a_window_and_the_answer_goes_to_the_run() -> None:
    source = given.GivenSource(views=(given.asking(given.RUNNING, "passphrase?"),))
    async with running(source) as (app, pilot):
        assert isinstance(app.screen, Ask)
        await press(pilot, *"hunter2")
        assert "hunter2" not in screen_text(app)
        await press(pilot, "enter")
        assert source.done == [("answer", given.RUNNING.id, "q1", Secret("hunter2"))]


async def test_a_question_left_for_later_is_asked_again_on_demand() -> None:
    source = given.GivenSource(views=(given.asking(given.RUNNING, "passphrase?"),))
    async with running(source) as (app, pilot):
        await press(pilot, "escape")
        assert isinstance(app.screen, FleetScreen)
        await press(pilot, "2", "enter")
        assert isinstance(app.screen, Ask)
        assert app.screen.query_one(Input).password


async def test_a_question_answered_elsewhere_closes_its_window() -> None:
    source = given.GivenSource(views=(given.asking(given.RUNNING, "passphrase?"),))
    async with running(source) as (app, pilot):
        source.views = (given.RUNNING,)
        app.feed.hurry()
        while isinstance(app.screen, Ask):
            await pilot.pause()
        assert isinstance(app.screen, FleetScreen)


async def test_log_switches_are_shown() -> None:
    async with running() as (app, pilot):
        await press(pilot, "2", "s", "w", "t")
        text = screen_text(app)
        assert "follow off" in text
        assert "wrap ON" in text
        assert "time off" in text


async def test_read_only_refuses_what_changes_something() -> None:
    source = given.GivenSource()
    async with running(source, read_only=True) as (app, pilot):
        assert "READ-ONLY" in screen_text(app)
        await press(pilot, "b", "2", "j", "X")
        assert source.done == []
        assert len(app._notifications) == 2


async def test_pause_holds_the_picture() -> None:
    source = given.GivenSource()
    async with running(source) as (app, pilot):
        await press(pilot, "p")
        assert "PAUSED" in screen_text(app)
        source.views = ()
        app.feed.hurry()
        await settled(pilot)
        assert app.entries
        await press(pilot, "p")
        while app.entries:
            await pilot.pause()
        assert "PAUSED" not in screen_text(app)


async def test_plus_and_minus_change_how_often_hosts_are_asked() -> None:
    async with running() as (app, pilot):
        await press(pilot, "plus")
        assert app.feed.interval == 120
        await press(pilot, "minus", "minus")
        assert app.feed.interval == 30
        assert "every 30s" in screen_text(app)


async def test_refresh_asks_and_says_how_many_have_answered() -> None:
    source = given.GivenSource(refreshing=True)
    async with running(source) as (app, pilot):
        await press(pilot, "R")
        while app.asking is None:
            await pilot.pause()
        await settled(pilot)
        assert source.done == [("refresh", None)]
        assert "asking 0 of 4 hosts…" in screen_text(app)


@pytest.mark.parametrize("key", ["colon", "ctrl+p"])
async def test_the_palette_opens_an_asset_by_name(key: str) -> None:
    async with running() as (app, pilot):
        await pilot.press(key)
        await pilot.pause()
        await pilot.press(*"toot.lan/redis")
        for _step in range(100):
            await pilot.pause()
            if app.screen.query("CommandList").first().display:
                break
        await pilot.pause(0.2)
        await pilot.press("enter")
        for _step in range(100):
            await pilot.pause()
            if isinstance(app.screen, AssetScreen):
                break
        assert isinstance(app.screen, AssetScreen)
        assert (app.screen.host, app.screen.asset) == ("toot.lan", Asset.REDIS)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_leaving_says_what_goes_on(key: str) -> None:
    async with running() as (app, pilot):
        await pilot.press(key)
        await pilot.pause()
    assert app.return_value == (
        "2 runs (mstdn.art, toot.lan) go on without this window. `mastovault` shows them again, "
        f"`mastovault cancel {given.RUNNING.id}` stops the first."
    )


async def test_leaving_with_nothing_running_says_nothing() -> None:
    async with running(given.GivenSource(views=())) as (app, pilot):
        await pilot.press("q")
        await pilot.pause()
    assert app.return_value is None


async def test_a_job_that_ends_has_one_toast() -> None:
    source = given.GivenSource()
    async with running(source) as (app, pilot):
        job = replace(given.RUNNING.jobs[0], state=JobState.FAILED)
        source.views = (replace(given.RUNNING, jobs=(job,), alive=False, ended_at=given.NOW), *given.RUNS[1:])
        app.feed.hurry()
        while any(entry.active and entry.job.host == "toot.lan" for entry in app.entries):
            await pilot.pause()
        app.feed.hurry()
        await settled(pilot)
        assert [note.message for note in app._notifications] == ["backup toot.lan/database: FAILED ✗"]


async def test_a_run_begun_elsewhere_appears() -> None:
    source = given.GivenSource(views=())
    async with running(source) as (app, pilot):
        assert "Nothing is running" in screen_text(app)
        source.views = (given.RUNNING,)
        app.feed.hurry()
        while not app.entries:
            await pilot.pause()
        await settled(pilot)
        assert "toot.lan/database" in screen_text(app).split("jobs")[1]


async def test_a_host_opens_its_rows_in_the_fleet() -> None:
    async with running() as (app, pilot):
        await press(pilot, "3", "j", "enter")
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        assert {row.host for row in screen.table.items} == {"mstdn.art"}


async def test_a_click_moves_the_cursor_and_a_second_opens() -> None:
    async with running() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        await pilot.click("#fleet", offset=(20, 4))
        await settled(pilot)
        assert screen.table.position == 3
        await pilot.click("#fleet", offset=(20, 4), times=2)
        await settled(pilot)
        assert isinstance(app.screen, AssetScreen)


async def test_a_click_on_a_header_sorts() -> None:
    async with running() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        await pilot.click("#fleet", offset=(12, 0))
        await settled(pilot)
        assert screen.sort == "host"
