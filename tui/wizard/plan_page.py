"""Page 3: the plan. It is made by a run that only looks, and shown as it is."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal

from backends.runs.view import RunView
from tui import jobs
from tui.widgets import say
from tui.widgets.lines import Lines
from tui.widgets.log_pane import LogPane
from tui.widgets.panel import Panel
from tui.widgets.text import Line, Piece, wrapped
from tui.wizard.draft import Where
from tui.wizard.page import Page
from tui.wizard.plan_lines import command_lines, commands_text, plan_lines
from tui.wizard.sandbox import sandbox_lines

WIDE = 110


class PlanPage(Page):
    """The plan, the exact commands beside it where there is room, and what happens next."""

    DEFAULT_CSS = """
    PlanPage Horizontal { height: 1fr; }
    PlanPage #plan-text { width: 1fr; height: 100%; }
    PlanPage #plan-commands { width: 1fr; height: 100%; display: none; }
    PlanPage.-commands #plan-commands { display: block; }
    PlanPage.-commands #plan-text { display: none; }
    PlanPage.-broad #plan-text { display: block; width: 68; }
    PlanPage.-broad #plan-commands { display: block; }
    PlanPage.-none #plan-commands { display: none; }
    PlanPage.-none #plan-text { display: block; width: 1fr; }
    PlanPage LogPane { display: none; height: 1fr; }
    PlanPage.-looking LogPane { display: block; }
    PlanPage.-looking Horizontal { height: 8; }
    """

    def compose(self) -> ComposeResult:
        """Plan and commands, the log of the look, a note."""
        yield Horizontal(Panel("Plan", id="plan-text"), Panel("Exact commands (y copies)", id="plan-commands"))
        yield LogPane(id="plan-log")
        yield Lines(id="plan-note")

    @property
    def text(self) -> Panel:
        """The plan."""
        return self.query_one("#plan-text", Panel)

    @property
    def commands(self) -> Panel:
        """The commands."""
        return self.query_one("#plan-commands", Panel)

    def enter(self) -> None:
        """Begin in the plan."""
        self.remove_class("-commands")
        self.text.focus()

    def switch(self) -> None:
        """Show the commands instead of the plan, or go over to them where both are shown."""
        look = self.wizard.look
        if look is None or look.plan is None:
            self.app.notify("There is no plan yet.", severity="warning")
        elif self.has_class("-broad"):
            (self.text if self.commands.has_focus else self.commands).focus()
        else:
            self.toggle_class("-commands")
            (self.commands if self.has_class("-commands") else self.text).focus()

    def draw(self) -> None:
        """Draw the plan, or how far the look is."""
        look, draft = self.wizard.look, self.draft
        made = look is not None and look.plan is not None
        self.set_class(self.app.size.width >= WIDE and made, "-broad")
        self.set_class(not made, "-none")
        self.set_class(look is not None and not look.over, "-looking")
        cells = self.text.inner_width - 1
        self.text.name_it(f"{draft.name} to {self._where()}")
        if draft.where is Where.SANDBOX:
            self.text.show(sandbox_lines(draft, self.wizard.mastovault.now(), cells))
        elif look is None:
            self.text.show([[("No look has begun.", "quiet")]])
        elif look.plan is not None:
            self.text.show(plan_lines(look.plan, self.wizard.mastovault.now(), cells))
            self.commands.show(command_lines(look.plan, self.commands.inner_width - 1))
        else:
            self.text.show(self._without(cells))
        self.query_one("#plan-note", Lines).show(self._note())

    def _where(self) -> str:
        draft = self.draft
        if draft.where is Where.FILES:
            return draft.directory
        return "a sandbox" if draft.where is Where.SANDBOX else f"{draft.target}, {draft.where.value.upper()}"

    def _without(self, cells: int) -> Sequence[Line]:
        look = self.wizard.look
        if look is not None and look.error:
            lines: list[Line] = [[("There is no plan ✗", "bad")], []]
            lines += [[(part, "")] for part in wrapped(look.error, cells)]
            return [*lines, *([(part, "accent")] for part in wrapped(look.next_step, cells))]
        view = self.wizard.look_run
        head = "Looking; nothing is changed anywhere."
        return [[(head, "strong")], [], self._progress(view)]

    def _progress(self, view: RunView | None) -> Line:
        if view is None:
            return [("starting", "run")]
        entry = next((one for one in jobs.entries([view], plans=True) if one.job.step or one.question), None)
        if entry is not None and entry.question is not None:
            return [("ASKS ? ", "flag"), (f" {entry.question.prompt} (a answers)", "")]
        waited = (self.wizard.mastovault.now() - view.begun_at).total_seconds()
        step = entry.job.step if entry is not None else "starting"
        return [(step, "run"), (f"   {say.took(max(0.0, waited))}", "quiet")]

    def _note(self) -> Sequence[Line]:
        look, draft, plan = self.wizard.look, self.draft, self.wizard.plan
        if draft.where is Where.SANDBOX or (plan is not None and look is not None and not look.closed):
            if self.wizard.mastovault.read_only:
                return [[(" READ-ONLY ", "flag"), (" The wizard ends here: start without --read-only to go on.", "")]]
            never = plan is not None and draft.where is Where.IN_PLACE and not all(c.drilled_at for c in plan.copies)
            if never:
                return [[(" Safer: choose the sandbox first (2), this copy was never proven.", "warn")]]
            return [[(" Nothing has been changed. ⏎ goes on to the last page.", "quiet")]]
        if look is not None and look.closed:
            number = len(look.closed)
            stop: list[Piece] = [(" STOP ✗ ", "crit"), (f" {number} finding{'s' * (number != 1)} in the way: ", "bad")]
            return [[*stop, ("page 4 is closed. R looks again, 2 changes the target.", "")]]
        return [[(" Nothing has been changed.", "quiet")]]

    def copied(self) -> str:
        """The exact commands."""
        plan = self.wizard.plan
        return commands_text(plan) if plan is not None else ""
