"""Every state of the screens as a picture, at both sizes; renew them with `pytest tests/ui --snapshot-update`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from backends.model import Asset, HostState, Level
from tests.ui import given
from tests.ui.driving import press, settled
from tests.ui.test_hostile import source as hostile
from tui.app import MastovaultApp
from tui.source import Seen

Make = Callable[[], MastovaultApp]


def _seen(**parts: Any) -> given.GivenSource:
    return given.GivenSource(seen=Seen(config=given.config(), fleet=given.fleet(**parts)))


def _first_run() -> MastovaultApp:
    return given.app(
        given.GivenSource(seen=Seen(config=given.config(()), fleet=given.fleet((), (), ())), views=(), lines=())
    )


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
    return given.app(_seen(vaults=(replace(given.VAULTS[1], free_bytes=300 << 20),)))


def _asks() -> MastovaultApp:
    return given.app(given.GivenSource(views=(given.asking(given.RUNNING, "passphrase of ~/.ssh/id_ed25519"),)))


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
    "hostile_fleet": (lambda: given.app(hostile()), ()),
    "hostile_asset": (lambda: given.app(hostile()), ("enter",)),
    "hostile_jobs": (lambda: given.app(hostile()), ("2", "j")),
}


def _drive(keys: tuple[str, ...]) -> Callable[[Pilot[Any]], Any]:
    async def run(pilot: Pilot[Any]) -> None:
        await settled(pilot)
        await press(pilot, *keys)

    return run


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
@pytest.mark.parametrize("state", STATES)
def test_screen(state: str, size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    make, keys = STATES[state]
    assert snap_compare(make(), terminal_size=size, run_before=_drive(keys))


def test_screen_too_small(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(given.app(), terminal_size=(72, 20), run_before=_drive(()))


def test_screen_with_sixteen_colours(snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM")
    assert snap_compare(given.app(), terminal_size=(80, 24), run_before=_drive(()))


def test_screen_without_colour(snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(given.app(), terminal_size=(80, 24), run_before=_drive(()))
