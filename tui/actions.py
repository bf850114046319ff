"""The one list of what a key does: bindings, footer, help, palette and read-only all come from here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding, BindingType

EVERYWHERE = frozenset({"fleet", "asset", "jobs", "log", "hosts", "storage", "settings"})
TABLES = EVERYWHERE - {"log"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing the operator can do.

    Attributes:
        id: the screen's or app's method is `do_<id>`.
        keys: as Textual names them, separated by commas.
        shown: the keys as a person reads them.
        label: the word in the footer.
        help: the line in the help.
        places: screens it belongs to.
        footer: places that show it in their footer.
        changes: starts or stops something; refused with `--read-only`.
        palette: offered in the command palette.
    """

    id: str
    keys: str
    shown: str
    label: str
    help: str
    places: frozenset[str] = EVERYWHERE
    footer: frozenset[str] = frozenset()
    changes: bool = False
    palette: bool = True


def _in(*places: str) -> frozenset[str]:
    return frozenset(places)


ACTIONS: tuple[Action, ...] = (
    Action(
        id="open",
        keys="enter",
        shown="⏎",
        label="Open",
        help="open the row",
        places=_in("fleet", "asset", "jobs", "hosts"),
        footer=_in("fleet", "asset", "jobs", "hosts"),
        palette=False,
    ),
    Action(
        id="backup",
        keys="b",
        shown="b",
        label="Backup",
        help="back up row or marked",
        places=_in("fleet", "asset", "hosts"),
        footer=_in("fleet", "asset", "hosts"),
        changes=True,
    ),
    Action(
        id="cancel",
        keys="X",
        shown="X",
        label="Cancel",
        help="stop the job, asks first",
        places=_in("jobs", "log"),
        footer=_in("jobs", "log"),
        changes=True,
    ),
    Action(
        id="answer",
        keys="a",
        shown="a",
        label="Answer",
        help="answer the run",
        places=_in("jobs"),
        changes=True,
    ),
    Action(
        id="why",
        keys="i",
        shown="i",
        label="Why",
        help="why this risk",
        places=_in("fleet", "asset"),
        footer=_in("fleet"),
    ),
    Action(
        id="log",
        keys="l",
        shown="l",
        label="Log",
        help="log of the newest run",
        places=_in("fleet", "asset", "jobs"),
        footer=_in("fleet", "asset", "jobs"),
    ),
    Action(
        id="mark",
        keys="space",
        shown="space",
        label="Mark",
        help="mark the row",
        places=_in("fleet"),
        footer=_in("fleet"),
    ),
    Action(
        id="mark_range",
        keys="ctrl+space,ctrl+@",
        shown="^space",
        label="Mark to here",
        help="mark from last to here",
        places=_in("fleet"),
    ),
    Action(
        id="filter",
        keys="slash",
        shown="/",
        label="Filter",
        help="filter: text !text host:x risk:crit",
        places=_in("fleet"),
        footer=_in("fleet"),
    ),
    Action(
        id="sort_left",
        keys="less_than_sign",
        shown="<",
        label="Sort left",
        help="sort by column before",
        places=_in("fleet"),
        palette=False,
    ),
    Action(
        id="sort_right",
        keys="greater_than_sign",
        shown=">",
        label="Sort right",
        help="sort by next column",
        places=_in("fleet"),
        palette=False,
    ),
    Action(
        id="reverse",
        keys="o",
        shown="o",
        label="Reverse",
        help="turn the order around",
        places=_in("fleet"),
    ),
    Action(
        id="follow",
        keys="s",
        shown="s",
        label="Follow",
        help="follow the end of the log",
        places=_in("jobs", "log"),
        footer=_in("jobs", "log"),
    ),
    Action(
        id="wrap",
        keys="w",
        shown="w",
        label="Wrap",
        help="wrap long lines of the log",
        places=_in("jobs", "log"),
        footer=_in("jobs", "log"),
    ),
    Action(
        id="times",
        keys="t",
        shown="t",
        label="Time",
        help="show times in the log",
        places=_in("jobs", "log"),
        footer=_in("jobs", "log"),
    ),
    Action(
        id="copy",
        keys="y",
        shown="y",
        label="Copy",
        help="copy name or text",
        footer=_in("asset", "log"),
    ),
    Action(
        id="refresh",
        keys="R,f5,ctrl+r",
        shown="R F5",
        label="Refresh",
        help="ask hosts, vaults now",
        footer=_in("hosts", "storage"),
    ),
    Action(id="area_fleet", keys="1", shown="1", label="Fleet", help="fleet, worst first"),
    Action(id="area_jobs", keys="2", shown="2", label="Jobs", help="jobs and their logs"),
    Action(id="area_hosts", keys="3", shown="3", label="Hosts", help="hosts as last seen"),
    Action(id="area_storage", keys="4", shown="4", label="Storage", help="storage: the vaults"),
    Action(id="area_settings", keys="5", shown="5", label="Settings", help="settings"),
    Action(
        id="areas",
        keys="",
        shown="1-5",
        label="Area",
        help="",
        footer=_in("fleet", "jobs", "hosts", "storage", "settings"),
        palette=False,
    ),
    Action(id="pause", keys="p", shown="p", label="Pause", help="hold still, runs go on"),
    Action(id="slower", keys="plus", shown="+", label="Slower", help="ask hosts less often"),
    Action(id="faster", keys="minus", shown="-", label="Faster", help="ask hosts more often"),
    Action(
        id="palette",
        keys="colon,ctrl+p",
        shown=": ^p",
        label="Command",
        help="find a command or asset",
        palette=False,
    ),
    Action(
        id="help",
        keys="question_mark,f1,h",
        shown="?",
        label="Help",
        help="this help",
        footer=EVERYWHERE,
        palette=False,
    ),
    Action(
        id="back",
        keys="escape",
        shown="esc",
        label="Back",
        help="close, clear, go back",
        footer=_in("asset", "log", "jobs", "hosts", "storage", "settings"),
        palette=False,
    ),
    Action(
        id="leave",
        keys="q,ctrl+c",
        shown="q",
        label="Quit",
        help="back, at the top quit",
        footer=_in("fleet"),
    ),
)

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
