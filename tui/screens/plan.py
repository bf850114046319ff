"""The plan of a sync or of a prune: every snapshot with what becomes of it, and two buttons. Nothing has begun yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Button, Input

from backends.errors import MastovaultError
from tui import actions
from tui.screens.base import AreaScreen
from tui.vaults import Plan, PlanRow
from tui.widgets.buttons import BUTTONS
from tui.widgets.lines import Lines
from tui.widgets.notice import Notice
from tui.widgets.standing import stands
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, wrapped
from tui.widgets.typed import TypedName


class PlanScreen(AreaScreen):
    """What both plans share. Subclasses say what they are about."""

    AUTO_FOCUS = ""
    SCOPED_CSS = False
    MOVES: ClassVar = [
        Binding("up", "row(-1)", show=False),
        Binding("down", "row(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]
    CSS = (
        "PlanScreen {"
        + BUTTONS
        + """
        #plan-rows { height: 1fr; }
        #plan-none { display: none; }
        #plan-word { height: auto; padding-top: 1; display: none; }
        #plan-buttons { height: auto; align-horizontal: right; padding: 1 2 0 0; margin-bottom: 1; }
        &.-none #plan-rows { display: none; }
        &.-none #plan-buttons { display: none; }
        &.-none #plan-none { display: block; }
        &.-typed #plan-word { display: block; }
    }
    """
    )
    safe = "Not now"
    """The words on the safe button."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: Plan | None = None
        self.error: MastovaultError | None = None
        self.begun = False

    def ask(self) -> None:
        """Have the plan made."""
        raise NotImplementedError

    def head(self, plan: Plan, cells: int) -> Sequence[Line]:
        """What the plan comes to."""
        raise NotImplementedError

    def nothing(self) -> Sequence[Line]:
        """What is said when nothing is to be done."""
        raise NotImplementedError

    def verb(self, plan: Plan) -> str:
        """The words on the button that does it."""
        raise NotImplementedError

    def word(self, plan: Plan) -> tuple[str, str]:
        """What must be typed before, and what for; both empty when nothing."""
        return "", ""

    def columns(self) -> Sequence[Column]:
        """The columns of the list."""
        raise NotImplementedError

    def cells(self, row: PlanRow) -> Sequence[Line]:
        """What stands in one row."""
        raise NotImplementedError

    def begin(self, plan: Plan) -> None:
        """The button was pressed."""
        raise NotImplementedError

    def body(self) -> Iterable[Widget]:
        """The words, the list, the field and the buttons."""
        yield Lines(id="plan-head")
        yield Table(self.columns(), self.cells, id="plan-rows")
        yield Notice(id="plan-none")
        yield Vertical(id="plan-word")
        yield Horizontal(Button(self.safe, id="keep"), Button("…", id="go", disabled=True), id="plan-buttons")

    def on_mount(self) -> None:
        """Have the plan made."""
        super().on_mount()
        self.query_one("#keep", Button).focus()
        self.ask()

    @property
    def table(self) -> Table[PlanRow]:
        """The list."""
        return self.query_one("#plan-rows", Table)

    @property
    def waiting(self) -> bool:
        """Whether the plan is still being made."""
        return self.plan is None and self.error is None

    @property
    def field(self) -> TypedName | None:
        """Where the word is typed."""
        return next(iter(self.query(TypedName)), None)

    async def arrived(self, plan: Plan | None, error: MastovaultError | None = None) -> None:
        """The plan was made, or it is known why not."""
        self.plan, self.error = plan, error
        if not stands(self):
            return
        place = self.query_one("#plan-word", Vertical)
        await place.remove_children()
        if not stands(self):
            return
        if plan is not None and plan.going and not self.mastovault.read_only:
            name, reason = self.word(plan)
            if name:
                await place.mount(TypedName(name, reason))
            if not stands(self):
                return
            self.set_class(bool(name), "-typed")
            self.query_one("#keep" if name else "#go", Button).focus()
        self.refresh_picture()
        if plan is not None and plan.going and not self.word(plan)[0]:
            self.query_one("#go", Button).focus()

    def draw(self) -> None:
        """Draw the plan."""
        plan = self.plan
        self.set_class(plan is None or not plan.rows, "-none")
        cells = max(20, self.app.size.width - 2)
        self.query_one("#plan-none", Notice).show(self._empty())
        lines = [[(" ", ""), *line] for line in self.head(plan, cells)] if plan is not None and plan.rows else []
        if plan is not None:
            lines += [[(" ▲ ", "warn"), (part, "warn")] for note in plan.notes[:4] for part in wrapped(note, cells - 3)]
        self.query_one("#plan-head", Lines).show(lines)
        self.table.set_columns(self.columns())
        self.table.show(plan.rows if plan is not None else ())
        self._draw_buttons(plan)

    def _draw_buttons(self, plan: Plan | None) -> None:
        go = self.query_one("#go", Button)
        if plan is None or not plan.going:
            go.disabled, go.label = True, "nothing to do"
            return
        if self.mastovault.read_only:
            go.disabled, go.label = True, "read-only"
            return
        field = self.field
        ready = field is None or field.matches
        go.disabled = not ready or self.begun
        go.label = self.verb(plan) if ready else f"{self.verb(plan)} (off until it matches)"

    def _empty(self) -> Sequence[Line]:
        if self.error is not None:
            cells = max(20, self.app.size.width - 8)
            lines: list[Line] = [[("There is no plan ✗", "bad")], []]
            lines += [[(part, "")] for part in wrapped(self.error.sentence, cells)]
            return [*lines, *([(part, "accent")] for part in wrapped(self.error.next_step, cells))]
        return [[("making the plan…", "run")]] if self.plan is None else self.nothing()

    def footer(self) -> Sequence[actions.Action]:
        """Only what leads away: what is to be done stands on the buttons."""
        return actions.footer(self.place)

    @on(Input.Changed)
    def typed(self) -> None:
        """Let the button go when the word is there."""
        self._draw_buttons(self.plan)

    @on(Input.Submitted)
    def submitted(self) -> None:
        """Enter in the field never begins it: when the word is right it goes on to the button."""
        if self.field is not None and self.field.matches:
            self.query_one("#go", Button).focus()

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Leave, or begin."""
        if event.button.id == "keep":
            self.app.pop_screen()
        elif self.plan is not None and not event.button.disabled and not self.begun:
            self.begun = True
            self.begin(self.plan)

    def take_text(self, text: str) -> bool:
        """What is typed belongs to the word, whatever has the focus."""
        field = self.field
        typing = isinstance(self.focused, Input)
        return field is not None and not field.matches and not typing and field.take(text)

    def action_row(self, step: int) -> None:
        """Move in the list while a button or the field has the focus."""
        self.table.action_move(step)

    def action_page(self, direction: int) -> None:
        """The same by screens."""
        self.table.action_page(direction)

    def do_copy(self) -> None:
        """Copy the name of the snapshot under the cursor."""
        row = self.table.current
        if row is not None:
            self.mastovault.copy(row.id)
