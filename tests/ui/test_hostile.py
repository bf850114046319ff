"""Text that attacks a terminal or a markup parser, in every place where a screen shows text from outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from backends.catalog.usage import AssetUsage
from backends.errors import HostKeyUnknown
from backends.model import (
    Asset,
    AssetObservation,
    Attempt,
    HostState,
    JobResult,
    JobState,
    Level,
)
from backends.operations.fleet import VaultStatus
from backends.operations.storage import StorageState
from backends.restore.plan import Copy, Finding, Phase, Space, StepInfo
from backends.runs.view import LogLine
from backends.vault.base import VaultLook
from tests.ui import given, given_restore, given_storage
from tests.ui.driving import press, running, screen_text, settled, write
from tests.ui.test_wizard import IN_PLACE, planned, until
from tui.app import MastovaultApp
from tui.feed import Trouble
from tui.screens.vault_check import TrustKey
from tui.source import History
from tui.vaults import Plan, VaultDetail, row_of

HOSTILE = (
    "[/x][@click=app.quit]go[/] [red]r[fe80::1%eth0]\x1b]0;own\x07\x1b[31m\x9b1m\u202eevil\u2066\u200b\r\nnext\x00$E"
)
FORBIDDEN = frozenset("\x1b\x07\x9b\u202e\u2066\u200b\r\x00")


def source() -> given.GivenSource:
    """Hostile text in every field that can come from a host, a vault or a run."""
    rows = [
        given.status("social.ex", Asset.DATABASE, Level.CRIT, 90, HOSTILE, (90, HOSTILE, HOSTILE), age=3, size=10),
        *(
            given.status("fedi.club", asset, Level.UNKN, 30, HOSTILE, (30, HOSTILE, HOSTILE), age=9, stale=True)
            for asset in Asset
        ),
    ]
    hosts = [
        given.host(
            "social.ex",
            version=HOSTILE,
            kind=HOSTILE,
            message=HOSTILE,
            next_step=HOSTILE,
            assets=(AssetObservation(asset=Asset.DATABASE, present=True, detail=HOSTILE, warnings=(HOSTILE,)),),
        ),
        given.host("fedi.club", HostState.FAILED, message=HOSTILE, next_step=HOSTILE),
    ]
    vaults = [VaultStatus(name="local", where=HOSTILE, offsite=True, read_at=None, error=HOSTILE)]
    result = JobResult(
        host="social.ex",
        asset=Asset.REDIS,
        state=JobState.FAILED,
        error=HOSTILE,
        next_step=HOSTILE,
        warnings=(HOSTILE,),
        vaults=(HOSTILE,),
    )
    done = replace(result, state=JobState.DONE, error=None, in_part=True, snapshot=HOSTILE, bytes=5)
    runs = (
        given.run("r1", [given.job("social.ex", Asset.MEDIA, JobState.RUNNING, step=HOSTILE, unit=HOSTILE, done=5)],
                  begun=given.before(minutes=1), kind=HOSTILE),
        given.run("r2", [given.job("social.ex", Asset.REDIS, JobState.FAILED)], begun=given.before(minutes=9),
                  ended=given.before(minutes=1), results=[result]),
        given.run("r3", [given.job("social.ex", Asset.REDIS, JobState.DONE)], begun=given.before(minutes=9),
                  ended=given.before(minutes=1), results=[done]),
    )  # fmt: skip
    return given.GivenSource(
        seen=given.seen(given.config(("social.ex", "fedi.club")), given.fleet(rows, hosts, vaults)),
        views=runs,
        lines=tuple(LogLine(at=given.NOW, job="database", text=HOSTILE) for _ in range(40)),
        past=past,
    )


def past(host: str, asset: Asset) -> History:
    """A past full of it."""
    return History(
        host=host,
        asset=asset,
        snapshots=tuple(
            given.snapshot(host, asset, given.before(days=day), 100 + day, vaults=(HOSTILE,)) for day in range(3)
        ),
        attempts=(
            Attempt(
                host=host,
                asset=asset,
                run=given.before(minutes=9).strftime("%Y%m%dT%H%M%SZ") + "-r2",
                at=given.NOW,
                seconds=1,
                state=JobState.FAILED,
                error=HOSTILE,
            ),
        ),
    )


def hostile_restores(**extra: Any) -> given_restore.RestoreSource:
    """Hostile text in every field of a plan, of the restores that are known, and of a run that looks."""
    found = [
        Finding(level="block", text=HOSTILE, way_out=HOSTILE, asset=Asset.DATABASE, accept="word"),
        *(Finding(level=level, text=HOSTILE, way_out=HOSTILE) for level in ("note", "ok")),
    ]
    steps = tuple(
        StepInfo(
            id=f"database.{number}", asset=Asset.DATABASE, phase=phase, name=HOSTILE, what=HOSTILE, commands=(HOSTILE,)
        )
        for number, phase in enumerate(Phase)
    )
    copy = Copy(
        asset=Asset.DATABASE, snapshot=HOSTILE, at=given.NOW, bytes=5, vault=HOSTILE, vaults=(HOSTILE,), in_part=True
    )
    changes: dict[str, Any] = {
        "target": HOSTILE,
        "steps": steps,
        "copies": (copy,),
        "spaces": (Space(what=HOSTILE, path=HOSTILE, need=9, free=1),),
        "lost": (HOSTILE,),
        "untouched": (HOSTILE,),
    }
    record = given_restore.record("social.ex", "done", "undo", "forget", sentence=HOSTILE)
    made = given_restore.source(record, findings=tuple(found), changes=changes, lost=(HOSTILE,), **extra)
    made.plans = {view.id: given_restore.plan(given_restore.WISH, **changes) for view in made.views}
    return made


def hostile_vaults() -> given_storage.StorageSource:
    """Hostile text in everything that a vault, its check, a sync and a prune say."""
    rows = [
        given_storage.row("eu-backup", StorageState.BEHIND, HOSTILE, where=HOSTILE, note=HOSTILE, object_lock=HOSTILE),
        given_storage.row("nas", StorageState.AWAY, HOSTILE, where=HOSTILE, error=HOSTILE),
    ]
    rows = [replace(row, usage=replace(row.usage, assets=(_hostile_usage(),))) for row in rows]
    info = given.snapshot(HOSTILE, Asset.MEDIA, given.NOW, 5, vaults=(HOSTILE,), altered=(HOSTILE,))
    plan = Plan(rows=(row_of(info, vault=HOSTILE, goes=True, why=HOSTILE),), bytes=5, notes=(HOSTILE,))
    look = VaultLook(object_lock=HOSTILE, note=HOSTILE)
    report = replace(
        given_storage.report(delete=HOSTILE, reach=HOSTILE),
        look=look,
        foreign=(HOSTILE,),
        next_step=HOSTILE,
        where=HOSTILE,
        host_key=HostKeyUnknown(HOSTILE, HOSTILE, fingerprint=HOSTILE, key_type=HOSTILE, key_base64=""),
    )
    made = given_storage.source(rows, reports=[report], sync=plan, prune=plan, views=())
    made.vault = lambda name: VaultDetail(name=name, snapshots=(info,), lacks=(info,))  # type: ignore[method-assign]
    return made


def _hostile_usage() -> AssetUsage:
    return AssetUsage(host=HOSTILE, asset=Asset.MEDIA, bytes=5, snapshots=1)


def assert_clean(app: MastovaultApp) -> None:
    """Nothing that steers a terminal is drawn, nothing was read as markup, nothing became a link."""
    text = screen_text(app)
    assert not FORBIDDEN & set(text)
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            meta: dict[str, Any] = segment.style.meta if segment.style is not None else {}
            assert "@click" not in meta, segment
            assert segment.style is None or not segment.style.link


PLACES = {
    "fleet": (),
    "host that is away": ("G",),
    "why": ("i",),
    "asset": ("enter",),
    "asset, why": ("enter", "i"),
    "asset, failed row": ("enter", "down"),
    "jobs": ("2",),
    "jobs, failed": ("2", "j"),
    "jobs, in part": ("2", "j", "j", "w"),
    "cancel": ("2", "X"),
    "log": ("2", "enter"),
    "log, wrapped": ("2", "enter", "w"),
    "hosts": ("3",),
    "hosts, away": ("3", "j"),
    "storage": ("4",),
    "settings": ("5",),
}


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_hostile_text_is_only_text(size: tuple[int, int]) -> None:
    async with running(source(), size=size) as (app, pilot):
        for place, keys in PLACES.items():
            await press(pilot, *keys)
            assert_clean(app)
            assert place == "settings" or "[/x]" in screen_text(app), place
            while len(app.screen_stack) > 1:
                await press(pilot, "escape")
            await press(pilot, "1", "g")


async def _toast(app: MastovaultApp, pilot: Pilot[Any]) -> None:
    app.notify(HOSTILE, title=HOSTILE, severity="error")
    await settled(pilot)


async def test_a_toast_is_only_text() -> None:
    async with running(source()) as (app, pilot):
        await _toast(app, pilot)
        assert "[/x]" in screen_text(app)
        assert_clean(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_what_a_vault_says_is_only_text(size: tuple[int, int]) -> None:
    async with running(hostile_vaults(), size=size) as (app, pilot):
        for keys in (("4",), ("G",), ("enter",), ("enter",), ("escape", "s"), ("escape", "v"), ("escape", "P")):
            await press(pilot, *keys)
            await until(pilot, lambda: "[/x]" in screen_text(app), f"the text after {keys}")
            assert_clean(app)


async def test_what_a_proof_says_is_only_text() -> None:
    async with running(hostile_vaults()) as (app, pilot):
        await press(pilot, "4", "a", "G", "enter")
        for text in ("box", "u@h", "/x"):
            await write(pilot, text)
            await press(pilot, "enter")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, TrustKey), "the key")
        assert_clean(app)
        await press(pilot, "escape")
        assert "[/x]" in screen_text(app)
        assert_clean(app)


async def test_a_question_is_only_text() -> None:
    given_source = source()
    given_source.views = (given.asking(given.RUNNING, HOSTILE),)
    async with running(given_source) as (app, _pilot):
        assert "[/x]" in screen_text(app)
        assert_clean(app)


async def test_a_banner_is_only_text() -> None:
    given_source = source()
    given_source.seen = replace(given_source.seen, problem=HOSTILE)
    async with running(given_source, size=(120, 40)) as (app, pilot):
        assert "configuration not read again: [/x]" in screen_text(app)
        assert_clean(app)
        app._deliver(Trouble(error=OSError(5, HOSTILE)))
        await settled(pilot)
        assert_clean(app)


async def test_a_filter_is_only_text() -> None:
    async with running(source()) as (app, pilot):
        await press(pilot, "slash", *"[/x][@click=app.quit]")
        assert_clean(app)
        await press(pilot, *"zzz")
        assert "No asset matches" in screen_text(app)


async def test_a_click_on_remote_text_does_nothing() -> None:
    async with running(source()) as (app, pilot):
        for y in range(3, 20):
            await pilot.click(offset=(60, y))
        await settled(pilot)
        assert app.is_running


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_a_plan_is_only_text(size: tuple[int, int]) -> None:
    async with running(hostile_restores(), size=size) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        assert "[/x]" in screen_text(app)
        for keys in ((), ("G",), ("c",), ("y",), ("enter",)):
            await press(pilot, *keys)
            assert_clean(app)
        assert "[/x]" in screen_text(app)
        await write(pilot, "[/x][@click=app.quit]")
        assert_clean(app)
        assert app.is_running


async def test_what_an_undo_loses_is_only_text() -> None:
    async with running(hostile_restores()) as (app, pilot):
        await press(pilot, "u")
        assert "[/x]" in screen_text(app)
        assert_clean(app)
        await press(pilot, "right", "enter")
        await until(pilot, lambda: "[/x]" in screen_text(app), "the words")
        assert_clean(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_the_steps_of_a_restore_are_only_text(size: tuple[int, int]) -> None:
    run = replace(given_restore.RUNNING, steps=(("database.0", "done"), ("database.1", "begun"), (HOSTILE, "begun")))
    async with running(hostile_restores(views=(run,)), size=size) as (app, pilot):
        await press(pilot, "2")
        await until(pilot, lambda: screen_text(app).count("[/x]") > 3, "the steps")
        assert_clean(app)


async def test_a_look_that_fails_or_asks_is_only_text() -> None:
    failed = JobResult(host="social.ex", asset=Asset.DATABASE, state=JobState.FAILED, error=HOSTILE, next_step=HOSTILE)
    async with running(hostile_restores(look_fails=failed)) as (app, pilot):
        await press(pilot, *IN_PLACE)
        await planned(app, pilot)
        assert "[/x]" in screen_text(app)
        assert_clean(app)
