"""Small windows about a vault: its check, step by step, and the key of its server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Static

from backends.errors import HostKeyUnknown
from tui.screens.dialog import Confirm, Dialog
from tui.screens.why import Telling
from tui.widgets.proof_lines import report_lines
from tui.widgets.standing import stands
from tui.widgets.text import Line, wrapped

if TYPE_CHECKING:
    from backends.operations.vault_check import VaultReport

_CELLS = 60
_FILES = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}


class CheckDialog(Telling):
    """What the check of a vault finds; it goes on when the window is closed, and the storage screen shows the word."""

    BINDINGS: ClassVar = [Binding("v", "close", show=False)]
    CSS = f"""
    {Dialog.CSS}
    CheckDialog > Vertical {{ width: 76; }}
    CheckDialog > Vertical > Panel {{ max-height: 20; }}
    CheckDialog Static.foot {{ height: 1; margin-top: 1; color: $quiet; }}
    """

    def __init__(self, name: str) -> None:
        lines: list[Line] = [
            [("Writing, reading, listing, replacing and deleting something small…", "run")],
            [],
            [("A vault that is far away may take some seconds.", "quiet")],
        ]
        super().__init__(f"Check of {name}", lines)
        self.vault = name
        self.waits = True

    def foot(self) -> Iterable[Widget]:
        """How to close it."""
        yield Static("esc closes", classes="foot", markup=False)

    def tell(self, report: VaultReport) -> None:
        """Show what was found."""
        self.waits = False
        self._lines = report_lines(report, 68)
        if stands(self):
            self.show_lines()


class TrustKey(Confirm):
    """A server's key that was never seen: shown with its fingerprint, and accepted only by hand."""

    def __init__(self, name: str, shown: HostKeyUnknown) -> None:
        super().__init__(
            f"The server of {name} is not known yet", key_lines(shown), yes="It matches, trust it", no="Stop"
        )


def key_lines(shown: HostKeyUnknown) -> Sequence[Line]:
    """The fingerprint, and how to compare it."""
    lines: list[Line] = [[(f"{shown.key_type} key, not seen before:", "")]]
    lines += [[("  ", ""), (part, "strong")] for part in wrapped(shown.fingerprint, _CELLS - 2)]
    command = f"ssh-keygen -lf /etc/ssh/ssh_host_{_FILES.get(shown.key_type, 'ecdsa')}_key.pub"
    lines += [[], [("On the server's console run, and compare:", "quiet")]]
    lines += [[("  ", ""), (part, "run")] for part in wrapped(command, _CELLS - 2)]
    text = "A provider of storage boxes publishes its fingerprints: compare with that page."
    return [*lines, *([(part, "quiet")] for part in wrapped(text, _CELLS))]
