"""The storage screens: what each key does, what a plan needs before it begins, and what read-only takes away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from textual.app import ComposeResult
from textual.widgets import Button

from backends.config.schema import Config
from backends.errors import MastovaultError, VaultError
from backends.model import Asset, JobState, Trust
from backends.operations.storage import StorageState
from tests.ui import given, given_storage
from tests.ui.driving import press, running, screen_text, settled, write
from tests.ui.test_wizard import told, until
from tui import vault_words
from tui.screens.asset import AssetScreen
from tui.screens.base import AreaScreen
from tui.screens.dialog import Typed
from tui.screens.jobs import JobsScreen
from tui.screens.prune import PruneScreen
from tui.screens.storage import StorageScreen
from tui.screens.sync import SyncScreen
from tui.screens.vault import VaultScreen
from tui.screens.vault_check import CheckDialog, TrustKey
from tui.vaults import Plan, lacking
from tui.widgets.typed import TypedName
from tui.wizard.proof import doubt_of


async def test_the_pane_follows_the_cursor_and_enter_opens_the_vault() -> None:
    async with running(given_storage.source()) as (app, pilot):
        await press(pilot, "4", "j")
        assert isinstance(app.screen, StorageScreen)
        assert "full in 6 days" in screen_text(app)
        await press(pilot, "y")
        assert app.clipboard == "/srv/backup"
        await press(pilot, "enter")
        assert isinstance(app.screen, VaultScreen)
        assert "LACKING ▲" in screen_text(app)
        await press(pilot, "j", "enter", "y")
        held = app.screen.held
        assert held.has_focus
        assert {row.info.host for row in held.items} == {"social.ex"}
        assert held.current is not None
        assert app.clipboard == held.current.info.id
        await press(pilot, "enter")
        assert isinstance(app.screen, AssetScreen)
        await press(pilot, "escape", "escape")
        assert isinstance(app.screen, StorageScreen)


async def test_v_proves_the_vault_and_the_word_stays() -> None:
    source = given_storage.source(reports=[given_storage.BROKEN, given_storage.GOOD])
    async with running(source) as (app, pilot):
        await press(pilot, "4", "v")
        assert isinstance(app.screen, CheckDialog)
        await until(pilot, lambda: "there is no bucket" in screen_text(app), "the steps")
        await press(pilot, "escape")
        assert "CHECK ✗" in screen_text(app)
        await press(pilot, "v")
        await until(pilot, lambda: "Everything works" in screen_text(app), "the steps")
        await press(pilot, "escape")
        assert "CHECK ✗" not in screen_text(app)
        assert [call[:2] for call in source.done] == [("check", "eu-backup")] * 2


async def test_a_server_whose_key_was_lost_is_trusted_again_by_hand_only() -> None:
    source = given_storage.source(reports=[given_storage.UNKNOWN_KEY, given_storage.GOOD])
    async with running(source) as (app, pilot):
        await press(pilot, "4", "G", "v")
        await until(pilot, lambda: isinstance(app.screen, TrustKey), "the key")
        await press(pilot, "enter")
        assert isinstance(app.screen, CheckDialog)
        await press(pilot, "escape", "v")
        await until(pilot, lambda: "Everything works" in screen_text(app), "the steps")
        assert not any(call[0] == "accept" for call in source.done)


async def test_forgetting_a_vault_needs_its_name_and_says_that_its_objects_stay() -> None:
    source = given_storage.source()
    async with running(source) as (app, pilot):
        await press(pilot, "4")
        assert "Forget" in screen_text(app)
        await press(pilot, "D")
        window = app.screen
        assert isinstance(window, Typed)
        text = screen_text(app)
        assert "Forget the vault eu-backup?" in text
        assert "What is stored there stays" in text
        assert "no object is removed" in text
        assert app.focused is window.query_one("#no")
        assert window.query_one("#yes", Button).disabled
        await press(pilot, "enter")
        assert isinstance(app.screen, StorageScreen), "the safe button has the focus"
        await press(pilot, "D")
        await write(pilot, "eu-backu")
        await press(pilot, "enter")
        assert isinstance(app.screen, Typed)
        await write(pilot, "p")
        await press(pilot, "enter", "enter")
        await until(pilot, lambda: "is forgotten" in told(app), "the word that it is done")
        assert [call for call in source.done if call[0] == "forget"] == [("forget", "eu-backup")]


async def test_a_vault_that_a_host_names_is_not_forgotten() -> None:
    source = given_storage.source()
    config = source.seen.config
    named = config.hosts["social.ex"].model_copy(update={"vaults": ("eu-backup",)})
    changed = config.model_copy(update={"hosts": {**config.hosts, "social.ex": named}})
    source.seen = replace(source.seen, config=changed)
    async with running(source) as (app, pilot):
        await press(pilot, "4", "D")
        assert isinstance(app.screen, StorageScreen)
        assert "social.ex name the vault eu-backup" in told(app)


async def test_what_cannot_be_forgotten_is_said() -> None:
    source = given_storage.source(refuses="config.toml cannot be written: disk full")
    async with running(source) as (app, pilot):
        await press(pilot, "4", "D")
        await write(pilot, "eu-backup")
        await press(pilot, "enter", "enter")
        await until(pilot, lambda: "disk full" in told(app), "why not")


async def test_a_sync_shows_its_plan_and_starts_one_run_for_each_host() -> None:
    source = given_storage.source(views=())
    async with running(source) as (app, pilot):
        await press(pilot, "4", "s")
        await until(pilot, lambda: "Copy to eu-backup" in screen_text(app), "the plan")
        assert source.kinds() == []
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen), "the jobs")
        assert source.kinds() == [("sync", "mstdn.art"), ("sync", "social.ex")]
        wish = next(call[1] for call in source.done if call[0] == "start")
        assert wish.options == {"target": "eu-backup"}
        assert wish.assets == tuple(Asset)


async def test_a_prune_needs_its_word() -> None:
    source = given_storage.source(views=())
    async with running(source) as (app, pilot):
        await press(pilot, "4", "P")
        await until(pilot, lambda: "REMOVE ✗" in screen_text(app), "the plan")
        screen = app.screen
        assert isinstance(screen, PruneScreen)
        assert isinstance(app.focused, Button)
        assert app.focused.id == "keep"
        go = screen.query_one("#go", Button)
        await press(pilot, "down", "down")
        assert screen.table.position == 2
        await write(pilot, "all/prun")
        await press(pilot, "enter", "enter")
        assert go.disabled
        assert source.kinds() == []
        await press(pilot, "e", "enter")
        assert app.focused is go
        assert not go.disabled
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen), "the jobs")
        assert source.kinds() == [("prune", "mstdn.art"), ("prune", "social.ex")]
        # A vault that did not answer when the plan was made is left alone, be it back or not.
        assert all(call[1].options == {"vaults": ["eu-backup"]} for call in source.done if call[0] == "start")


async def test_a_second_passes_while_the_field_of_the_word_is_being_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    compose, taken = TypedName.compose, []

    def late(field: TypedName) -> ComposeResult:
        assert isinstance(field.screen, PruneScreen)
        field.screen.tick()
        taken.append(field.screen.take_text("a"))
        return compose(field)

    monkeypatch.setattr(TypedName, "compose", late)
    async with running(given_storage.source(views=())) as (app, pilot):
        await press(pilot, "4", "P")
        await until(pilot, lambda: "all/prune" in screen_text(app), "the word")
        assert taken == [False]


async def test_from_a_vault_only_that_one_is_pruned() -> None:
    source = given_storage.source(views=())
    async with running(source) as (app, pilot):
        await press(pilot, "4", "j", "enter", "P")
        await until(pilot, lambda: "local/prune" in screen_text(app), "the word")
        assert source.done == [("plan_prune", tuple(given_storage.config().hosts), ("local",))]


async def test_the_safe_button_and_escape_leave_a_prune_alone() -> None:
    source = given_storage.source(views=())
    async with running(source) as (app, pilot):
        for key in ("enter", "escape"):
            await press(pilot, "3", "P")
            await until(pilot, lambda: "REMOVE ✗" in screen_text(app), "the plan")
            await press(pilot, key)
            await press(pilot, "escape")
        assert source.done == [("plan_prune", ("social.ex",), ())] * 2


async def test_a_plan_that_cannot_be_made_says_why_and_a_run_that_cannot_start_too() -> None:
    source = given_storage.source(
        views=(), plan_fails=VaultError("there is nothing to fill local from", "Add another.")
    )
    async with running(source) as (app, pilot):
        await press(pilot, "4", "s")
        await until(pilot, lambda: "There is no plan ✗" in screen_text(app), "the reason")
        assert "Add another." in screen_text(app)
        assert not app.screen.query_one("#plan-buttons").display
        source.plan_fails = None
        source.sync = Plan()
        await press(pilot, "escape", "s")
        await until(pilot, lambda: "lacks nothing" in screen_text(app), "the words")
        await press(pilot, "escape", "s")


async def test_a_sync_of_a_host_that_is_at_work_is_not_started_twice() -> None:
    busy = given.run("s1", [given.job("social.ex", Asset.MEDIA, JobState.RUNNING)], begun=given.NOW, kind="sync")
    source = given_storage.source(views=(busy,))
    async with running(source) as (app, pilot):
        await press(pilot, "4", "s")
        await until(pilot, lambda: isinstance(app.screen, SyncScreen) and app.screen.plan is not None, "the plan")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen), "the jobs")
        assert source.kinds() == [("sync", "mstdn.art")]


async def test_read_only_keeps_the_plan_of_a_sync_and_refuses_the_rest() -> None:
    source = given_storage.source(views=())
    async with running(source, read_only=True) as (app, pilot):
        await press(pilot, "4", "v", "a", "P")
        assert isinstance(app.screen, StorageScreen)
        assert "read-only" in told(app)
        await press(pilot, "s")
        await until(pilot, lambda: isinstance(app.screen, SyncScreen) and app.screen.plan is not None, "the plan")
        assert app.screen.query_one("#go", Button).disabled
        await press(pilot, "enter")
        assert source.done == []


async def test_a_fleet_without_vault_or_key_says_so() -> None:
    config = Config.model_validate({"hosts": {"a": {"address": "a"}}})
    fleet = given.fleet((), (), ())
    async with running(given.GivenSource(seen=given.seen(config, fleet))) as (app, pilot):
        assert "no vault yet" in screen_text(app)
        await press(pilot, "4")
        assert "No vault yet" in screen_text(app)
        assert "mastovault key new" in screen_text(app)
        await press(pilot, "1", "a")
        assert "Add vault" in screen_text(app)


async def test_a_vault_that_is_forgotten_meanwhile_is_said_so() -> None:
    source = given_storage.source()
    async with running(source) as (app, pilot):
        await press(pilot, "4", "j", "enter")
        source.seen = given_storage.seen(given_storage.ROWS[:1])
        app.feed.reread()
        await until(pilot, lambda: "not configured any more" in screen_text(app), "the words")
        await press(pilot, "s", "escape", "v")
        await settled(pilot)
        assert app.is_running


@pytest.mark.parametrize("state", list(StorageState))
def test_only_what_answered_is_good(state: StorageState) -> None:
    word, style = vault_words.state(given_storage.row("local", state, "said" if state is not StorageState.OK else ""))
    assert (style == "ok") == (state is StorageState.OK)
    assert word


def test_what_a_vault_lacks_is_what_others_hold_of_its_hosts() -> None:
    config = given_storage.config()
    found = [
        given.snapshot("social.ex", Asset.REDIS, given.NOW, 1, vaults=("nas",)),
        given.snapshot("social.ex", Asset.REDIS, given.NOW, 1, vaults=("nas", "local")),
        given.snapshot("elsewhere", Asset.REDIS, given.NOW, 1, vaults=("nas",)),
        given.snapshot("social.ex", Asset.MEDIA, given.NOW, 1, vaults=("forgotten",)),
        given.snapshot("social.ex", Asset.SECRETS, given.NOW, 1, vaults=("nas",), damaged=("local",)),
    ]
    assert lacking(found, config, "local") == (found[0], found[4])


def test_the_worst_doubt_is_shown() -> None:
    info = given.snapshot("a", Asset.REDIS, given.NOW, 1)
    trusts = iter([Trust.UNSIGNED, Trust.CHANGED, Trust.TRUSTED])
    by = {key: next(trusts) for key in ("x", "y", "z")}
    found = [replace(info, signer=key) for key in by]
    doubt = doubt_of(found, lambda one: by[one.signer])
    assert doubt is not None
    assert doubt[0].startswith("CHANGED")
    assert doubt_of(found[2:], lambda one: by[one.signer]) is None
    assert doubt_of([replace(found[2], altered=("nas",))], lambda one: by[one.signer]) is not None


async def test_a_run_that_cannot_start_is_told() -> None:
    source = given_storage.source(views=())

    def refuse(_wish: object) -> str:
        raise MastovaultError("the disk is full", "Free it.")

    source.start = refuse  # type: ignore[method-assign,assignment]
    async with running(source) as (app, pilot):
        await press(pilot, "4", "s")
        await until(pilot, lambda: isinstance(app.screen, SyncScreen) and app.screen.plan is not None, "the plan")
        await press(pilot, "enter")
        assert "the disk is full" in told(app)
        assert isinstance(app.screen, SyncScreen)
        assert not app.screen.query_one("#go", Button).disabled


@pytest.mark.parametrize("keys", [("4",), ("4", "P"), ("4", "s"), ("4", "enter"), ("r",)])
async def test_a_second_that_passes_while_a_screen_is_taken_away_draws_nothing(keys: tuple[str, ...]) -> None:
    async with running(given_storage.source()) as (app, pilot):
        await press(pilot, *keys)
        screen = app.screen
        assert isinstance(screen, AreaScreen)
        removed = asyncio.ensure_future(_removed(screen))
        drawn = 0
        while not removed.done():
            screen.tick()
            drawn += 1
            await asyncio.sleep(0)
        assert drawn > 1


async def _removed(screen: AreaScreen) -> None:
    await screen.app._prune(screen)
