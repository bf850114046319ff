"""Every state of the screens as a picture, at both sizes; renew them with `pytest tests/ui --snapshot-update`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from backends.config.schema import Config
from backends.model import Asset, HostState, Level
from backends.operations.restores import RestoreRecord
from backends.operations.storage import StorageRow, StorageState
from tests.ui import given, given_restore, given_storage
from tests.ui.driving import app_of, press, screen_text, settled
from tests.ui.test_hostile import hostile_restores
from tests.ui.test_hostile import source as hostile
from tests.ui.test_wizard import IN_PLACE, until
from tui.app import MastovaultApp
from tui.screens.plan import PlanScreen
from tui.screens.vault_check import CheckDialog, TrustKey
from tui.vault_wizard.screen import VaultWizard
from tui.vaults import Plan
from tui.widgets.log_pane import LogPane
from tui.wizard.screen import RestoreWizard

Make = Callable[[], MastovaultApp]


def _seen(**parts: Any) -> given.GivenSource:
    return given.GivenSource(seen=given.seen(made=given.fleet(**parts)))


def _first_run() -> MastovaultApp:
    return given.app(given.GivenSource(seen=given.seen(given.config(()), given.fleet((), (), ())), views=(), lines=()))


def _away() -> MastovaultApp:
    states = (HostState.LOGIN_FAILED, HostState.HOST_KEY_CHANGED, HostState.HOST_KEY_UNKNOWN, HostState.OFFLINE)
    hosts = [
        given.host(name, state, message=f"what {name} said", next_step="what to do about it")
        for name, state in zip(given.config().hosts, states, strict=True)
    ]
    rows = [
        given.status(name, asset, Level.UNKN, 30, "cannot be asked", age=5, stale=True)
        for name in given.config().hosts
        for asset in Asset
    ]
    return given.app(_seen(statuses=rows, hosts=hosts))


def _storage_gone() -> MastovaultApp:
    vaults = (
        given.VAULTS[0],
        replace(given.VAULTS[1], error="/srv/backup is not mounted", free_bytes=None),
    )
    return given.app(_seen(vaults=vaults))


def _storage_low() -> MastovaultApp:
    said = "there is not enough room left for one more backup like the last days'"
    full = given_storage.row("local", StorageState.FULL, said, free_bytes=300 << 20)
    return given.app(given_storage.source((full,)))


def _asks() -> MastovaultApp:
    return given.app(given.GivenSource(views=(given.asking(given.RUNNING, "passphrase of ~/.ssh/id_ed25519"),)))


def _storing(*rows: StorageRow, **extra: Any) -> Make:
    return lambda: given.app(given_storage.source(rows or given_storage.ROWS, **extra))


def _without_vaults() -> MastovaultApp:
    config = Config.model_validate({"hosts": {"social.ex": {"address": "social.ex"}}})
    return given.app(given.GivenSource(seen=given.seen(config, given.fleet((), (), ()))))


def _doubted() -> MastovaultApp:
    """A signer is configured, and a copy is not from it."""
    made = given_restore.source()
    made.seen = replace(made.seen, config=given.config(signers={"ops": "b3BzLWtleQ=="}))
    return given.app(made)


def _restoring(*records: RestoreRecord, **extra: Any) -> Make:
    return lambda: given.app(given_restore.source(*records, **extra))


_PROOF = ("4", "a", "j", "enter", *"offsite", "enter", *"my-backups", "enter", "enter", "wait")

STATES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "fleet": (given.app, ()),
    "fleet_marked": (given.app, ("space", "space")),
    "fleet_idle": (lambda: given.app(given.GivenSource(views=())), ()),
    "filter": (given.app, ("slash", *"media")),
    "filter_finds_nothing": (given.app, ("slash", *"foo", "enter")),
    "sorted_by_age": (given.app, ("greater_than_sign", "greater_than_sign", "greater_than_sign", "o")),
    "hosts_away": (_away, ()),
    "first_run": (_first_run, ()),
    "storage_gone": (_storage_gone, ()),
    "storage_low": (_storage_low, ()),
    "read_only": (lambda: given.app(read_only=True), ()),
    "paused": (given.app, ("p",)),
    "why": (given.app, ("i",)),
    "confirm_bulk": (lambda: given.app(given.GivenSource(views=())), ("space", "space", "b")),
    "confirm_cancel": (given.app, ("2", "j", "X")),
    "question": (_asks, ()),
    "asset": (given.app, ("enter",)),
    "asset_offline": (given.app, ("j", "j", "j", "j", "enter", "enter")),
    "jobs": (given.app, ("2",)),
    "jobs_failed": (given.app, ("2", "G", "k")),
    "jobs_none": (lambda: given.app(given.GivenSource(views=())), ("2",)),
    "log": (given.app, ("2", "j", "enter")),
    "help": (given.app, ("question_mark",)),
    "hosts": (given.app, ("3", "G")),
    "storage": (given.app, ("4",)),
    "settings": (given.app, ("5",)),
    "ascii": (lambda: given.app(ascii_glyphs=True), ()),
    "storage_states": (_storing(), ("4", "j")),
    "vault": (_storing(), ("4", "enter")),
    "vault_wizard_place": (_storing(), ("4", "a", "j", "enter", *"offsite", "enter", *"my-backups")),
    "vault_wizard_failed": (_storing(reports=[given_storage.BROKEN]), _PROOF),
    "prune": (_storing(), ("4", "P", "wait", *"all/pru")),
    "hostile_fleet": (lambda: given.app(hostile()), ()),
    "hostile_asset": (lambda: given.app(hostile()), ("enter",)),
    "hostile_jobs": (lambda: given.app(hostile()), ("2", "j")),
    "wizard_copy": (_restoring(), ("r",)),
    "wizard_copy_whole": (_restoring(), ("3", "r")),
    "wizard_copy_none": (_restoring(has_points=False), ("r",)),
    "wizard_target": (_restoring(), ("r", "enter")),
    "wizard_target_files": (_restoring(), ("r", "enter", "j", "enter")),
    "wizard_target_other": (_restoring(), ("3", "r", "enter", "j", "j", "enter")),
    "wizard_target_in_place": (_restoring(), ("3", "r", "enter", "G", "space")),
    "wizard_sandbox": (_restoring(), ("3", "r", "enter", "enter")),
    "wizard_looking": (_restoring(look_hangs=True), (*IN_PLACE, "wait")),
    "wizard_look_failed": (_restoring(look_fails=given_restore.REFUSED), (*IN_PLACE, "wait")),
    "wizard_plan": (_restoring(), (*IN_PLACE, "wait")),
    "wizard_plan_end": (_restoring(), (*IN_PLACE, "wait", "end")),
    "wizard_commands": (_restoring(), (*IN_PLACE, "wait", "c")),
    "wizard_plan_blocked": (_restoring(findings=(*given_restore.FINDINGS, given_restore.NO_ROOM)), (*IN_PLACE, "wait")),
    "wizard_plan_read_only": (lambda: given.app(given_restore.source(), read_only=True), (*IN_PLACE, "wait")),
    "wizard_confirm": (_restoring(), (*IN_PLACE, "wait", "4", *"social.ex/datab")),
    "wizard_confirm_ready": (_restoring(), (*IN_PLACE, "wait", "4", *"social.ex/database", "enter")),
    "wizard_confirm_word": (
        _restoring(findings=(*given_restore.FINDINGS, given_restore.OTHER_DOMAIN)),
        (*IN_PLACE, "wait", "4", *"social.ex/domain", "enter", "s"),
    ),
    "wizard_confirm_sandbox": (_restoring(), ("r", "enter", "enter", "enter")),
    "wizard_help": (_restoring(), ("r", "question_mark")),
    "restore_running": (_restoring(views=(given_restore.RUNNING,)), ("2", "wait")),
    "restore_done": (
        _restoring(given_restore.record("social.ex", "done", "undo", "forget"), views=(given_restore.DONE,)),
        ("2", "wait"),
    ),
    "restore_failed": (_restoring(views=(given_restore.FAILED,)), ("2", "wait")),
    "restore_interrupted": (
        _restoring(given_restore.record("social.ex", "interrupted", "resume", "rollback"), views=(given_restore.CUT,)),
        ("2", "wait"),
    ),
    "restore_decide": (
        _restoring(given_restore.record("social.ex", "interrupted", "resume", "rollback"), views=(given_restore.CUT,)),
        ("u",),
    ),
    "undo": (
        _restoring(given_restore.record("social.ex", "done", "undo", "forget")),
        ("u", "right", "enter", "wait", "s"),
    ),
    "verify": (_restoring(), ("v",)),
    "drill": (_restoring(), ("space", "space", "space", "space", "d")),
    "kinds": (_restoring(views=given_restore.KINDS), ("2",)),
    "hostile_plan": (lambda: given.app(hostile_restores()), (*IN_PLACE, "wait")),
}

SMALL: dict[str, tuple[Make, tuple[str, ...]]] = {
    "storage_none": (_without_vaults, ("4",)),
    "fleet_without_vault": (_without_vaults, ()),
    "storage_away": (_storing(), ("4", "G")),
    "storage_read_only": (lambda: given.app(given_storage.source(), read_only=True), ("4",)),
    "storage_ascii": (lambda: given.app(given_storage.source(), ascii_glyphs=True), ("4",)),
    "vault_forget": (_storing(), ("4", "D")),
    "vault_check": (_storing(reports=[given_storage.APPENDING]), ("4", "v", "wait")),
    "vault_wizard_kind": (_storing(), ("4", "a")),
    "vault_wizard_more": (_storing(), _PROOF[:-2]),
    "vault_wizard_appending": (_storing(reports=[given_storage.APPENDING]), _PROOF),
    "vault_wizard_key": (
        _storing(reports=[given_storage.UNKNOWN_KEY]),
        ("4", "a", "G", "enter", *"box", "enter", *"u@nas2", "enter", *"/x", "enter", "enter", "wait"),
    ),
    "vault_wizard_save": (_storing(), (*_PROOF, "enter")),
    "sync": (_storing(), ("4", "s", "wait")),
    "sync_nothing": (_storing(sync=Plan()), ("4", "s", "wait")),
    "prune_read_only": (lambda: given.app(given_storage.source(), read_only=True), ("4", "P")),
    "wizard_copy_doubted": (_doubted, ("r",)),
    "asset_doubted": (_doubted, ("enter",)),
}
"""States that differ at the other size only in what the others show already."""


def _drive(keys: tuple[str, ...]) -> Callable[[Pilot[Any]], Any]:
    async def run(pilot: Pilot[Any]) -> None:
        await settled(pilot)
        for key in keys:
            if key == "wait":
                await _arrived(pilot)
            else:
                await press(pilot, key)

    return run


async def _arrived(pilot: Pilot[Any]) -> None:
    """Wait until what a run or a thread is asked for stands on the screen."""
    app = app_of(pilot)

    def there() -> bool:
        screen = app.screen
        if isinstance(screen, VaultWizard | TrustKey):
            return not isinstance(screen, VaultWizard) or (screen.report is not None and screen.report.host_key is None)
        if isinstance(screen, PlanScreen):
            return not screen.waiting
        if isinstance(screen, CheckDialog):
            return not screen.waits
        if isinstance(screen, RestoreWizard):
            looking = screen.look_run is not None and screen.look_run.active and screen.query_one(LogPane).since > 0
            return looking or (screen.look_run is not None and (screen.look is None or screen.look.over))
        text = screen_text(app)
        return "SWAP" in text or "212 posts" in text

    await until(pilot, there, "what was waited for")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
@pytest.mark.parametrize("state", STATES)
def test_screen(state: str, size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    make, keys = STATES[state]
    assert snap_compare(make(), terminal_size=size, run_before=_drive(keys))


@pytest.mark.parametrize("state", SMALL)
def test_small_screen(state: str, snap_compare: Callable[..., bool]) -> None:
    make, keys = SMALL[state]
    assert snap_compare(make(), terminal_size=(80, 24), run_before=_drive(keys))


def test_screen_too_small(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(given.app(), terminal_size=(72, 20), run_before=_drive(()))


def test_screen_with_sixteen_colours(snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM")
    assert snap_compare(given.app(), terminal_size=(80, 24), run_before=_drive(()))


def test_screen_without_colour(snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(given.app(), terminal_size=(80, 24), run_before=_drive(()))
