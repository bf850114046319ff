"""The plan of a prune: every snapshot, kept or removed, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tui import actions
from tui.screens.plan import PlanScreen
from tui.vaults import Plan, PlanRow
from tui.widgets import say
from tui.widgets.table import Column
from tui.widgets.text import Line, words, wrapped


class PruneScreen(PlanScreen):
    """What no policy keeps any more."""

    place = "prune"
    BINDINGS: ClassVar = [*actions.bindings("prune"), *PlanScreen.MOVES]
    safe = "Keep all"

    def __init__(self, hosts: Sequence[str], vaults: Sequence[str] = ()) -> None:
        super().__init__()
        self.hosts = tuple(hosts)
        self.vaults = tuple(vaults)

    def crumbs(self) -> tuple[Line, Line]:
        """Where we are."""
        name = self.hosts[0] if len(self.hosts) == 1 else f"{len(self.hosts)} hosts"
        name += f" in {', '.join(self.vaults)}" if self.vaults else ""
        left: Line = [(" 4 ", "key"), ("Storage › ", "quiet"), ("prune ", "strong"), (name, "strong")]
        return left, self.running()

    def ask(self) -> None:
        """Judge every snapshot."""
        self.mastovault.plan_prune(self)

    def head(self, plan: Plan, cells: int) -> Sequence[Line]:
        """How much goes and how much stays."""
        going, kept = len({row.id for row in plan.going}), len({row.id for row in plan.rows if not row.goes})
        if not going:
            return [[("✓ ", "ok"), (f"Nothing goes: all {say.count(kept)} snapshots are kept.", "strong")]]
        sizes = f", up to {say.size(plan.bytes)} are freed" if plan.bytes else ""
        text = f"Removes {say.count(going)} snapshot{'s' * (going != 1)}{sizes}; keeps {say.count(kept)}."
        lines: list[Line] = [[("▲ ", "high"), (part, "strong")] for part in wrapped(text, cells - 2)]
        quiet = "Removed for good, nobody can undo it. Hosts are not touched."
        return [*lines, *([(part, "quiet")] for part in wrapped(quiet, cells))]

    def nothing(self) -> Sequence[Line]:
        """There is no snapshot at all."""
        return [[("There is no snapshot in any vault.", "strong")], [], [("esc goes back.", "quiet")]]

    def verb(self, plan: Plan) -> str:
        """The words on the button."""
        return f"Remove {say.count(len({row.id for row in plan.going}))}"

    def word(self, plan: Plan) -> tuple[str, str]:
        """A word of its own: removing is for good."""
        hosts = self.vaults or tuple(plan.hosts)
        return (f"{hosts[0] if len(hosts) == 1 else 'all'}/prune", "to remove them:") if plan.going else ("", "")

    def columns(self) -> Sequence[Column]:
        """When, what, where, what becomes of it and why."""
        return [
            Column("what", "", 8, gap=1),
            Column("when", "When (UTC)", 11, gap=1),
            Column("of", "Snapshot of", 20 if self.app.size.width < 100 else 30, gap=1),
            Column("vault", "In", 9 if self.app.size.width < 100 else 16, gap=1),
            Column("size", "Size", 5, "right", gap=1),
            Column("why", "Why", 0, gap=0),
        ]

    def cells(self, row: PlanRow) -> Sequence[Line]:
        """One snapshot in one vault."""
        return [
            words("REMOVE ✗" if row.goes else "keep ✓", "high" if row.goes else "ok"),
            words(say.day_time(row.at)),
            words(f"{row.host}/{row.asset}", "strong" if row.goes else ""),
            words(row.vault, "quiet"),
            words(say.size(row.bytes)),
            words(row.why, "" if row.goes else "quiet"),
        ]

    def begin(self, plan: Plan) -> None:
        """Start one run for each host."""
        self.mastovault.start_prune(plan)
