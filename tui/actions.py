"""The one list of what a key does: bindings, footer, help, palette and read-only all come from here."""

from __future__ import annotations

from collections.abc import Iterable

from textual.binding import Binding, BindingType

from tui.action import Action
from tui.action_list import ACTIONS as _AREAS
from tui.action_storage import ACTIONS as _STORAGE
from tui.wizard.keys import ACTIONS as _WIZARD

__all__ = ["ACTIONS", "MOVES", "Action", "action", "bindings", "footer", "of", "offered", "refused"]

ACTIONS: tuple[Action, ...] = (*_WIZARD, *_STORAGE, *_AREAS)

_BY_ID = {action.id: action for action in ACTIONS}

MOVES: tuple[tuple[str, str], ...] = (
    ("↑↓ j k", "move"),
    ("g G", "top, bottom"),
    ("tab", "next pane"),
)
"""Keys of every table, for the help; the table widget binds them."""


def action(name: str) -> Action:
    """The action with this id."""
    return _BY_ID[name]


def of(place: str) -> tuple[Action, ...]:
    """What can be done on one screen, in the order of the footer and the help."""
    return tuple(entry for entry in ACTIONS if place in entry.places)


def footer(place: str) -> tuple[Action, ...]:
    """What the last line of a screen offers."""
    return tuple(entry for entry in ACTIONS if place in entry.footer)


def bindings(place: str) -> list[BindingType]:
    """Textual's bindings of one screen; the footer is ours, so none is shown by Textual."""
    return [
        Binding(entry.keys, f"do('{entry.id}')", entry.label, show=False, id=f"{place}.{entry.id}")
        for entry in of(place)
        if entry.keys
    ]


def refused(entry: Action, read_only: bool) -> str:
    """Why an action cannot be done now; empty when it can."""
    if read_only and entry.changes:
        return f"{entry.label} changes something and this window is read-only; start without --read-only to do it."
    return ""


def offered(place: str, read_only: bool) -> Iterable[Action]:
    """What the palette lists on a screen."""
    return (entry for entry in of(place) if entry.palette and not refused(entry, read_only))
