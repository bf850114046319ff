"""After a restore: undo, forget, continue, roll back; and the checks that come before one: verify and drill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Button

from backends.model import Asset, JobState
from backends.operations.restores import RestoreRecord
from tests.ui import given
from tests.ui import given_restore as restoring
from tests.ui.driving import press, running, screen_text, write
from tests.ui.test_wizard import told, until
from tui import after, jobs
from tui.after import AfterDialog
from tui.app import MastovaultApp
from tui.screens.dialog import Confirm, Typed
from tui.screens.fleet import FleetScreen
from tui.screens.jobs import JobsScreen
from tui.widgets.live_steps import headline, live_steps
from tui.widgets.log_pane import LogPane

DONE = ("done", "undo", "forget")
INTERRUPTED = ("interrupted", "resume", "rollback")


def record(*what: str, **extra: Any) -> RestoreRecord:
    return restoring.record("social.ex", *what, **extra)


async def test_u_says_what_an_undo_loses_and_asks_for_the_name() -> None:
    source = restoring.source(record(*DONE))
    async with running(source) as (app, pilot):
        await press(pilot, "u")
        assert isinstance(app.screen, AfterDialog)
        assert isinstance(app.focused, Button)
        assert app.focused.id == "no"
        await press(pilot, "right", "enter")
        window = app.screen
        assert isinstance(window, Typed)
        await until(pilot, lambda: "212 posts" in screen_text(app), "what is lost")
        assert app.focused is window.query_one("#no")
        await write(pilot, "social.ex/databas")
        await press(pilot, "enter", "tab", "tab")
        assert window.query_one("#yes", Button).disabled
        assert source.kinds() == []
        await write(pilot, "e")
        await press(pilot, "enter", "enter")
        wish = source.done[-1][1]
        assert (wish.kind, wish.host, wish.assets) == ("undo", "social.ex", (Asset.DATABASE,))
        assert wish.options == {"restore": restoring.RESTORE, "what": "undo"}
        assert isinstance(app.screen, JobsScreen)


async def test_an_undo_whose_loss_is_not_known_says_so() -> None:
    source = restoring.source(record(*DONE), lost_error="social.ex cannot be reached")
    async with running(source) as (app, pilot):
        await press(pilot, "u", "right", "enter")
        await until(pilot, lambda: "is not known" in screen_text(app), "the words")


async def test_forgetting_asks_for_the_name_too() -> None:
    source = restoring.source(record(*DONE))
    async with running(source) as (app, pilot):
        await press(pilot, "u", "right", "right", "enter")
        assert "removed from the host for good" in screen_text(app)
        await write(pilot, "social.ex/database")
        await press(pilot, "enter", "enter")
        assert source.done[-1][1].options["what"] == "forget"


@pytest.mark.parametrize("keys", [("escape",), ("enter",)])
async def test_leaving_the_windows_decides_nothing(keys: tuple[str, ...]) -> None:
    source = restoring.source(record(*DONE))
    async with running(source) as (app, pilot):
        await press(pilot, "u", *keys)
        assert isinstance(app.screen, FleetScreen)
        await press(pilot, "u", "right", "enter", *keys)
        assert isinstance(app.screen, FleetScreen)
        assert source.kinds() == []


@pytest.mark.parametrize(("moves", "what"), [(("right",), "resume"), (("right", "right"), "rollback")])
async def test_an_interrupted_restore_is_continued_or_rolled_back(moves: tuple[str, ...], what: str) -> None:
    source = restoring.source(record(*INTERRUPTED))
    async with running(source) as (app, pilot):
        assert "was interrupted: u continues it" in screen_text(app)
        await press(pilot, "u", *moves, "enter")
        wish = source.done[-1][1]
        assert (wish.kind, wish.options["what"]) == ("undo", what)
        assert isinstance(app.screen, JobsScreen)


async def test_an_interrupted_restore_is_found_from_any_row() -> None:
    source = restoring.source(record(*INTERRUPTED))
    async with running(source) as (app, pilot):
        await press(pilot, "j", "u")
        assert isinstance(app.screen, AfterDialog)


async def test_a_restore_after_which_mastodon_did_not_come_up_waits_for_a_decision() -> None:
    async with running(restoring.source(record("attention", "resume", "undo"))) as (app, _pilot):
        assert "Mastodon did not come up" in screen_text(app)


async def test_nothing_to_undo_is_said() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "u")
        assert "No restore of social.ex/database" in told(app)


async def test_a_restore_at_work_cannot_be_undone() -> None:
    source = restoring.source(record("running"), views=(restoring.RUNNING,))
    async with running(source) as (app, pilot):
        await press(pilot, "2", "u")
        assert "at work" in told(app)


@pytest.mark.parametrize("keys", [("2",), ("enter",), ("3",)])
async def test_u_works_on_the_job_the_asset_and_the_host(keys: tuple[str, ...]) -> None:
    source = restoring.source(record(*DONE), views=(restoring.DONE,))
    async with running(source) as (app, pilot):
        await press(pilot, *keys, "u")
        assert isinstance(app.screen, AfterDialog)


def test_the_restore_that_waits_for_a_decision_is_meant_first() -> None:
    done, cut = record(*DONE, id="b"), record(*INTERRUPTED, id="a")
    assert after.record_of([done, cut], "social.ex", Asset.DATABASE) is cut
    assert after.record_of([done, cut], "social.ex", None, "b") is done
    assert after.record_of([done], "social.ex", Asset.MEDIA) is None
    assert after.record_of([done], "toot.lan", None) is None


async def _steps(app: MastovaultApp, pilot: Pilot[Any]) -> str:
    await press(pilot, "2")
    await until(pilot, lambda: "SWAP databases" in screen_text(app), "the steps")
    return screen_text(app)


async def test_the_steps_of_a_restore_are_shown_while_it_runs() -> None:
    async with running(restoring.source(views=(restoring.RUNNING,))) as (app, pilot):
        lines = (await _steps(app, pilot)).splitlines()
        found = {
            name: next(line for line in lines if name in line and "waits" in line) for name in ("compare", "start")
        }
        assert all(line.startswith(" ·") for line in found.values())
        assert next(line for line in lines if "fetch the dump" in line).startswith(" ✓")
        assert any(line.startswith(" ▶  2 restore beside") and "41%" in line for line in lines)


async def test_the_steps_of_an_undo_are_those_of_its_restore() -> None:
    job = given.job("social.ex", Asset.DATABASE, JobState.RUNNING, step="ending sessions")
    undo = given.run(
        "c121", [job], begun=given.before(seconds=9), kind="undo", restore=restoring.RESTORE,
        steps=(("services.health", "undone"), ("services.start", "undone")),
    )  # fmt: skip
    async with running(restoring.source(views=(undo, restoring.DONE))) as (app, pilot):
        lines = (await _steps(app, pilot)).splitlines()
        assert next(line for line in lines if " 6 start" in line).startswith(" ↑")
        assert next(line for line in lines if " 5 SWAP" in line).startswith(" ▶")
        assert next(line for line in lines if " 2 restore beside" in line).startswith(" ✓")


async def test_a_restore_that_was_killed_shows_where_it_was_cut_off() -> None:
    lost = restoring.restore_run(
        JobState.RUNNING, (("database.fetch", "done"), ("database.load", "begun")), alive=False, lost=True
    )
    async with running(restoring.source(record(*INTERRUPTED), views=(lost,))) as (app, pilot):
        text = await _steps(app, pilot)
        assert "cut off" in text
        assert "LOST ✗" in text


async def test_what_a_restore_found_is_its_outcome() -> None:
    entry = jobs.entries([restoring.DONE])[0]
    assert jobs.outcome(entry).startswith("restored; Mastodon was down for 5.6 s")


@pytest.mark.parametrize(("key", "kind"), [("v", "verify"), ("d", "drill")])
async def test_a_check_asks_lightly_and_starts(key: str, kind: str) -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, key)
        assert isinstance(app.screen, Confirm)
        assert "social.ex/database" in screen_text(app)
        await press(pilot, "escape")
        assert source.kinds() == []
        await press(pilot, key, "enter")
        wish = source.done[-1][1]
        assert (wish.kind, wish.host) == (kind, "social.ex")
        assert wish.options["snapshots"]["database"].startswith("social.ex/database/")
        assert "has begun" in told(app)
        await until(pilot, lambda: app.entries, "the job")
        await press(pilot, key)
        assert "at work" in told(app)


async def test_marked_rows_are_checked_by_host() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        await press(pilot, "space", "space", "space", "space", "v", "enter")
        wishes = [call[1] for call in source.done]
        assert [(wish.host, set(wish.assets)) for wish in wishes] == [
            ("social.ex", {Asset.DATABASE, Asset.MEDIA}),
            ("toot.lan", {Asset.DATABASE}),
        ]
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        assert screen.marks == set()


async def test_what_was_never_backed_up_cannot_be_checked() -> None:
    async with running(restoring.source()) as (app, pilot):
        await press(pilot, "j", "v")
        assert "no copy of it yet" in told(app)


async def test_a_copy_of_the_history_is_checked() -> None:
    source = restoring.source()
    async with running(source) as (_app, pilot):
        await press(pilot, "enter", "j", "j", "j", "d", "enter")
        past = given.history("social.ex", Asset.DATABASE).snapshots
        assert source.done[-1][1].options["snapshots"] == {"database": past[1].id}


async def test_a_backup_waits_for_a_restore_of_the_same_asset() -> None:
    source = restoring.source(views=(restoring.RUNNING,))
    async with running(source) as (app, pilot):
        await press(pilot, "b")
        assert source.done == []
        assert "right now" in told(app)


async def test_cancelling_a_restore_stops_the_whole_of_it() -> None:
    source = restoring.source(views=(restoring.RUNNING,))
    async with running(source) as (app, pilot):
        await press(pilot, "2", "X")
        assert "taken back" in screen_text(app)
        await press(pilot, "right", "enter")
        assert source.done == [("cancel", restoring.RUNNING.id, None)]


async def test_d_on_a_copy_that_nobody_signed_asks_for_its_word() -> None:
    source = restoring.source()
    source.seen = replace(source.seen, config=given.config(signers={"ops": "b3BzLWtleQ=="}))
    async with running(source) as (app, pilot):
        await press(pilot, "d")
        window = app.screen
        assert isinstance(window, Typed)
        assert "social.ex/database: NOT SIGNED" in screen_text(app)
        assert app.focused is window.query_one("#no")
        assert window.query_one("#yes", Button).disabled
        await press(pilot, "escape", "d", "enter")
        assert source.kinds() == []
        await press(pilot, "d")
        await write(pilot, "social.ex/unsigned")
        await press(pilot, "enter", "enter")
        assert source.kinds() == ["drill"]
        assert source.done[-1][1].options["accept"] == ["unsigned"]
        await press(pilot, "v")
        assert isinstance(app.screen, Confirm), "a verification loads nothing"


async def test_drills_of_several_hosts_ask_for_each_word() -> None:
    source = restoring.source()
    source.seen = replace(source.seen, config=given.config(signers={"ops": "b3BzLWtleQ=="}))
    async with running(source) as (app, pilot):
        assert isinstance(app.screen, FleetScreen)
        hosts = list(dict.fromkeys(row.host for row in app.screen.table.items if row.first.newest is not None))[:2]
        for host in hosts:
            app.screen.table.move_to(f"{host}/database")
            await press(pilot, "space")
        await press(pilot, "d")
        for host in hosts:
            assert isinstance(app.screen, Typed)
            assert source.kinds() == []
            await write(pilot, f"{host}/unsigned")
            await press(pilot, "enter", "enter")
        assert source.kinds() == ["drill", "drill"]
        assert {call[1].host for call in source.done if call[0] == "start"} == set(hosts)


async def test_secrets_are_drilled_with_the_database_that_they_open() -> None:
    source = restoring.source()
    async with running(source) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        screen.table.move_to("social.ex/secrets")
        await press(pilot, "d", "enter")
        assert source.done[-1][1].assets == (Asset.DATABASE, Asset.SECRETS)
        await press(pilot, "v", "enter")
        assert source.done[-1][1].assets == (Asset.SECRETS,)


async def test_the_log_of_a_restore_is_that_of_all_its_jobs() -> None:
    async with running(restoring.source(views=(restoring.RUNNING,))) as (app, pilot):
        await press(pilot, "2")
        assert app.screen.query_one(LogPane).subject == (restoring.RUNNING.id, None)
        await press(pilot, "enter")
        assert "restore social.ex/database" in screen_text(app)
        await press(pilot, "X")
        assert isinstance(app.screen, Confirm)


async def test_a_name_that_is_pasted_or_typed_in_a_burst_arrives_in_order() -> None:
    source = restoring.source(record(*DONE))
    async with running(source) as (app, pilot):
        for typed in (events.Paste("social.ex/database"), None):
            await press(pilot, "u", "right", "enter")
            if typed is not None:
                assert app._driver is not None
                app._driver.send_message(typed)
            else:
                await write(pilot, "social.ex/database")
            await until(pilot, lambda: "✓ matches" in screen_text(app), "the name")
            await press(pilot, "escape")
        assert source.kinds() == []


def test_how_far_a_restore_is() -> None:
    plan = restoring.plan(restoring.WISH)
    assert headline(plan, restoring.RUNNING) == "step 2 of 7"
    assert headline(plan, restoring.DONE) == ""
    back = replace(restoring.RUNNING, kind="undo", steps=(("services.health", "undone"),))
    assert headline(plan, back, dict(restoring.DONE_STEPS)) == "6 steps to take back"


async def test_many_steps_are_shown_around_the_one_that_runs() -> None:
    plan = restoring.plan(restoring.WISH)
    many = replace(plan, steps=tuple(replace(step, id=f"{step.id}{n}") for n in range(4) for step in plan.steps))
    ids = [step.id for step in many.steps]
    for place in (0, 14, 27):
        run = replace(restoring.RUNNING, steps=(*((step, "done") for step in ids[:place]), (ids[place], "begun")))
        lines = ["".join(text for text, _ in line) for line in live_steps(many, run, 70, 7)]
        assert len(lines) == 7
        assert any("▶" in line for line in lines)
        assert all(len(line) <= 70 for line in lines)
