"""What the keys do in the restore wizard."""

from __future__ import annotations

from tui.action import VAULT_WIZARD, WIZARD, Action

_BOTH = WIZARD | VAULT_WIZARD

ACTIONS: tuple[Action, ...] = (
    Action(
        id="go_on", keys="enter", shown="⏎", label="Next", help="next page", places=_BOTH, footer=_BOTH, palette=False
    ),
    Action(
        id="choose",
        keys="space",
        shown="space",
        label="Choose",
        help="choose the row",
        places=_BOTH,
        footer=_BOTH,
        palette=False,
    ),
    Action(
        id="whole",
        keys="w",
        shown="w",
        label="Whole host",
        help="all assets, or one only",
        places=WIZARD,
        footer=WIZARD,
    ),
    Action(
        id="commands",
        keys="c",
        shown="c",
        label="Commands",
        help="the exact commands",
        places=WIZARD,
        footer=WIZARD,
    ),
    Action(
        id="look_again",
        keys="R,f5,ctrl+r",
        shown="R",
        label="Look again",
        help="make the plan anew",
        places=WIZARD,
        footer=WIZARD,
    ),
    Action(
        id="page_back",
        keys="backspace",
        shown="⌫",
        label="Page back",
        help="page before",
        places=_BOTH,
        footer=_BOTH,
        palette=False,
    ),
    *(
        Action(id=f"page_{number}", keys=str(number), shown=str(number), label=name, help=f"page {name}", places=WIZARD)
        for number, name in enumerate(("Copy", "Target", "Plan", "Confirm"), 1)
    ),
    Action(
        id="give_up",
        keys="escape",
        shown="esc",
        label="Leave",
        help="leave, nothing has been changed",
        places=_BOTH,
        footer=_BOTH,
        palette=False,
    ),
)
