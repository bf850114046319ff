"""The restore wizard: Copy, Target, Plan, Confirm. Nothing on any host changes before the last button."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.widget import Widget
from textual.widgets import Input

from backends.errors import MastovaultError
from backends.model import Asset
from backends.restore.plan import RestorePlan
from backends.runs.view import RunView
from tui import actions
from tui.screens.base import AreaScreen
from tui.widgets.buttons import BUTTONS
from tui.widgets.log_pane import LogPane
from tui.widgets.text import Line, Piece
from tui.wizard.confirm_page import ConfirmPage
from tui.wizard.copy_page import CopyPage
from tui.wizard.draft import Where, new_draft
from tui.wizard.look import Look
from tui.wizard.page import Page, page_names
from tui.wizard.plan_page import PlanPage
from tui.wizard.target_page import TargetPage

if TYPE_CHECKING:
    from backends.operations.choose import RestorePoint

PAGES = ("Copy", "Target", "Plan", "Confirm")
UNCHANGED = "Nothing has been changed."
_KEYS = {
    1: {"go_on", "choose", "whole", "help", "give_up"},
    2: {"go_on", "choose", "page_back", "help", "give_up"},
    3: {"go_on", "commands", "look_again", "page_back", "help", "give_up"},
    4: {"help", "give_up"},
}


class RestoreWizard(AreaScreen):
    """Opened on a host with some of its assets, or on one snapshot of it."""

    place = "wizard"
    AUTO_FOCUS = ""
    BINDINGS: ClassVar = actions.bindings("wizard")
    CSS = f"RestoreWizard {{ {BUTTONS} }}"

    def __init__(self, host: str, assets: Sequence[Asset], snapshot: str = "") -> None:
        super().__init__()
        self._host, self._assets, self._snapshot = host, assets, snapshot
        self.page = 1
        self.points: Sequence[RestorePoint] | None = None
        self.look: Look | None = None
        self.begun = False

    def body(self) -> Iterable[Widget]:
        """The four pages, one of them shown."""
        self.draft = new_draft(self._host, self.mastovault.now(), self._assets)
        yield CopyPage()
        yield TargetPage()
        yield PlanPage()
        yield ConfirmPage()

    def on_mount(self) -> None:
        """Begin with reading the restore points."""
        super().on_mount()
        self.show_page(1)
        self.mastovault.read_points(self)

    @property
    def pages(self) -> list[Page]:
        """All four."""
        return list(self.query(Page))

    @property
    def current(self) -> Page:
        """The page that is shown."""
        return self.pages[self.page - 1]

    @property
    def plan(self) -> RestorePlan | None:
        """The plan, when it has been made and is that of what is chosen now."""
        return self.look.plan if self.look is not None and self.draft.where is not Where.SANDBOX else None

    @property
    def doubts(self) -> Mapping[str, str]:
        """What must be typed because a chosen copy is not to be trusted, and what speaks against it."""
        found = ((self.mastovault.trust(info), info) for info in self.draft.copies.values())
        return {f"{trust.value}": self.mastovault.distrust(info) for trust, info in found if not trust.good}

    @property
    def words(self) -> tuple[str, ...]:
        """What must be typed to go on all the same: a drill has no plan that would say it."""
        if self.draft.where is Where.SANDBOX:
            return tuple(self.doubts)
        return self.look.words if self.look is not None else ()

    @property
    def look_run(self) -> RunView | None:
        """The run that looks, as far as it is known."""
        run = self.look.run if self.look is not None else ""
        return next((view for view in self.mastovault.runs if view.id == run), None)

    @property
    def waiting(self) -> bool:
        """Whether something that was asked for has not arrived yet."""
        return self.points is None or (self.look is not None and self.look.reading)

    def points_arrived(self, points: Sequence[RestorePoint]) -> None:
        """Show the restore points."""
        self.points = points
        self.query_one(CopyPage).fill(self._snapshot)
        self.refresh_picture()

    def draw(self) -> None:
        """Draw the page that is shown, and take the plan when its run has ended."""
        self._follow_look()
        if len(self.pages) == len(PAGES):
            self.current.draw()

    def footer(self) -> Sequence[actions.Action]:
        """What this page can do; help and leaving stand last."""
        wanted = _KEYS[self.page]
        if self.page == 3 and self.draft.where is Where.SANDBOX:
            wanted = wanted - {"commands", "look_again"}
        if self.page == len(PAGES) and not self.query_one(ConfirmPage).names:
            wanted = wanted | {"page_back"}
        found = [entry for entry in actions.footer(self.place) if entry.id in wanted]
        return sorted(found, key=lambda entry: entry.id in {"help", "give_up"})

    def crumbs(self) -> tuple[Line, Line]:
        """What is restored, and the pages."""
        left: list[Piece] = [(" Restore › ", "quiet"), (self._host, "strong")]
        copies = self.draft.copies if self.points else {}
        if copies:
            what = next(iter(copies)).value if len(copies) == 1 else f"{len(copies)} assets"
            left += [(" › ", "quiet"), (what, "strong")]
        return left, page_names(PAGES, self.page)

    def take_text(self, text: str) -> bool:
        """What is typed on the last page belongs to the name that must be typed."""
        typing = isinstance(self.focused, Input)
        return self.page == len(PAGES) and not typing and self.query_one(ConfirmPage).take_text(text)

    def show_page(self, number: int) -> None:
        """Show a page, if the ones before it are filled in."""
        reason = next((text for page in range(1, number) if (text := self._shut(page))), "")
        if reason:
            self.app.notify(reason, severity="warning")
            return
        self.page = number
        for index, page in enumerate(self.pages, 1):
            page.set_class(index == number, "-shown")
        if number >= 3:
            self._look()
        self.current.enter()
        self.refresh_picture()

    def _shut(self, page: int) -> str:
        """Why one cannot go on from a page."""
        if page == 1 and self.points is None:
            return "The restore points are still being read."
        if page < 3:
            return self.draft.lacks(page)
        if self.mastovault.read_only:
            return "This window is read-only: the wizard ends with the plan."
        if self.draft.where is Where.SANDBOX:
            return ""
        look = self.look
        if look is None or look.wish != self.draft.look() or not look.over:
            return "The plan is not made yet."
        if look.plan is None:
            return "There is no plan: R looks again."
        return "What is marked STOP keeps it from running; see the way out below it." if look.closed else ""

    def _look(self, *, again: bool = False) -> None:
        wish = self.draft.look()
        if self.look is not None and (again or wish != self.look.wish):
            self._stop_look()
        if wish is not None and self.look is None:
            self.look = Look(wish=wish)
            self.mastovault.begin_look(self, self.look)

    def _stop_look(self) -> None:
        look, self.look = self.look, None
        if look is not None and look.run and not look.over:
            self.mastovault.give_up_look(look.run)

    def _follow_look(self) -> None:
        look, view = self.look, self.look_run
        if look is None or look.over or look.reading or view is None:
            return
        self.query_one("#plan-log", LogPane).watch_log((view.id, None), "")
        if not view.active:
            self.mastovault.read_plan(self, look, view)

    def look_arrived(self) -> None:
        """The plan was made, or it is known why not."""
        self.refresh_picture()

    def begin(self, *, accept: Sequence[str], confirm: str) -> None:
        """The last button was pressed: start the run and show it."""
        if self.begun or self.mastovault.read_only:
            return
        self.begun = True
        self.mastovault.start_run(self.draft.order(accept=accept, confirm=confirm), self._started)

    def _started(self, error: MastovaultError | None) -> None:
        self.begun = False
        if error is None and self in self.app.screen_stack:
            while self.app.screen is not self:
                self.app.pop_screen()
            self.app.pop_screen()

    def do_go_on(self) -> None:
        """Go to the next page, or let the page do what enter means on it."""
        if self.current.go_on() and self.page < len(PAGES):
            self.show_page(self.page + 1)

    def do_page_back(self) -> None:
        """Go to the page before."""
        if self.page > 1:
            self.show_page(self.page - 1)

    def do_page_1(self) -> None:
        """Go to the copies."""
        self.show_page(1)

    def do_page_2(self) -> None:
        """Go to the targets."""
        self.show_page(2)

    def do_page_3(self) -> None:
        """Go to the plan."""
        self.show_page(3)

    def do_page_4(self) -> None:
        """Go to the last page."""
        self.show_page(4)

    def do_choose(self) -> None:
        """Choose what is under the cursor."""
        self.current.choose()
        self.refresh_picture()

    def do_whole(self) -> None:
        """Choose the whole host, or one asset again."""
        if self.page == 1:
            self.query_one(CopyPage).whole()

    def do_commands(self) -> None:
        """Show the exact commands."""
        if self.page == 3:
            self.query_one(PlanPage).switch()

    def do_look_again(self) -> None:
        """Make the plan anew."""
        if self.page == 3:
            self._look(again=True)
            self.refresh_picture()

    def do_answer(self) -> None:
        """Answer what the look asks for."""
        view = self.look_run
        if view is not None and view.questions:
            self.mastovault.ask_operator(view.id, view.questions[0])

    def do_copy(self) -> None:
        """Copy what this page is about."""
        text = self.current.copied()
        if text:
            self.mastovault.copy(text)

    def do_give_up(self) -> None:
        """Leave; nothing has been changed."""
        self._stop_look()
        self.app.pop_screen()
        self.app.notify(UNCHANGED, timeout=3)

    do_back = do_give_up
    do_leave = do_give_up
