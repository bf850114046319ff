"""What can be done on the screens of the vaults."""

from __future__ import annotations

from tui.action import VAULT_WIZARD, Action
from tui.action import places as _in

ACTIONS: tuple[Action, ...] = (
    Action(
        id="open_vault",
        keys="enter",
        shown="⏎",
        label="Open",
        help="open the row",
        places=_in("storage", "vault"),
        footer=_in("storage", "vault"),
        palette=False,
    ),
    Action(
        id="add_vault",
        keys="a",
        shown="a",
        label="Add",
        help="add a vault, proved first",
        places=_in("storage", "fleet"),
        footer=_in("storage"),
        changes=True,
    ),
    Action(
        id="check_vault",
        keys="v",
        shown="v",
        label="Check",
        help="prove what the vault can do",
        places=_in("storage", "vault"),
        footer=_in("storage", "vault"),
        changes=True,
    ),
    Action(
        id="sync",
        keys="s",
        shown="s",
        label="Sync",
        help="copy what it lacks, plan first",
        places=_in("storage", "vault"),
        footer=_in("storage", "vault"),
    ),
    Action(
        id="prune",
        keys="P",
        shown="P",
        label="Prune",
        help="remove old ones, plan first",
        places=_in("storage", "vault", "hosts"),
        footer=_in("storage", "vault"),
        changes=True,
    ),
    Action(
        id="forget_vault",
        keys="D",
        shown="D",
        label="Forget",
        help="forget the vault, what it holds stays",
        places=_in("storage"),
        footer=_in("storage"),
        changes=True,
    ),
    Action(
        id="prove_again",
        keys="R,f5,ctrl+r",
        shown="R",
        label="Prove again",
        help="try the vault again",
        places=VAULT_WIZARD,
        footer=VAULT_WIZARD,
        changes=True,
    ),
)
