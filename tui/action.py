"""What an entry of the registry of actions is; the entries are in `tui.action_list`."""

from __future__ import annotations

from dataclasses import dataclass

EVERYWHERE = frozenset({"fleet", "asset", "jobs", "log", "hosts", "storage", "vault", "sync", "prune", "settings"})
"""The places from which every area can be reached."""
WIZARD = frozenset({"wizard"})
VAULT_WIZARD = frozenset({"vault_wizard"})
ALWAYS = EVERYWHERE | WIZARD | VAULT_WIZARD


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


def places(*names: str) -> frozenset[str]:
    """Some places by name."""
    return frozenset(names)
