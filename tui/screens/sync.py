"""The plan of a sync: what a vault lacks, and from where it would come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tui import actions
from tui.screens.plan import PlanScreen
from tui.vaults import Plan, PlanRow
from tui.widgets import say
from tui.widgets.table import Column
from tui.widgets.text import Line, words, wrapped


class SyncScreen(PlanScreen):
    """What a vault lacks and others hold."""

    place = "sync"
    BINDINGS: ClassVar = [*actions.bindings("sync"), *PlanScreen.MOVES]

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def crumbs(self) -> tuple[Line, Line]:
        """Where we are."""
        left: Line = [(" 4 ", "key"), ("Storage › ", "quiet"), (self.target, "strong"), (" › ", "quiet")]
        return [*left, ("sync", "strong")], self.running()

    def ask(self) -> None:
        """Compare the vaults."""
        self.mastovault.plan_sync(self)

    def head(self, plan: Plan, cells: int) -> Sequence[Line]:
        """How much is copied."""
        number = len(plan.going)
        text = f"Copy to {self.target} what it lacks: {say.count(number)} snapshot{'s' * (number != 1)}"
        lines: list[Line] = [[(part, "strong")] for part in wrapped(f"{text}, {say.size(plan.bytes)}", cells)]
        if plan.free is not None and plan.free < plan.bytes:
            lines.append([(f"▲ only {say.size(plan.free)} are free there: the newest come first", "high")])
        quiet = (
            "As they are stored: no host is asked, no key is needed. Newest first; it can be stopped and begun anew."
        )
        return [*lines, *([(part, "quiet")] for part in wrapped(quiet, cells))]

    def nothing(self) -> Sequence[Line]:
        """Nothing is lacking."""
        return [
            [(self.target, "strong"), (" lacks nothing that another vault holds. ✓", "strong")],
            [],
            [("R asks the vaults again, esc goes back.", "quiet")],
        ]

    def verb(self, plan: Plan) -> str:
        """The words on the button."""
        return f"Copy {say.count(len(plan.going))}"

    def columns(self) -> Sequence[Column]:
        """When, what, how much, from where."""
        return [
            Column("when", "When (UTC)", 11),
            Column("what", "Snapshot of", 24, gap=1),
            Column("size", "Size", 6, "right"),
            Column("from", "From", 10, gap=1),
            Column("why", "", 0, gap=0),
        ]

    def cells(self, row: PlanRow) -> Sequence[Line]:
        """One snapshot."""
        return [
            words(say.day_time(row.at)),
            words(f"{row.host}/{row.asset}", "strong" if row.goes else "quiet"),
            words(say.size(row.bytes)),
            words(row.vault or "–", "quiet"),
            words(row.why, "" if row.goes else "warn"),
        ]

    def begin(self, plan: Plan) -> None:
        """Start one run for each host."""
        self.mastovault.start_sync(self.target, plan)
