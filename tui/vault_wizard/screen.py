"""The wizard that adds a vault: Kind, Place, More, Prove, Save. Nothing is saved before the last button."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding
from textual.widget import Widget

from backends.config.schema import SftpVault, VaultConfig
from tui import actions
from tui.screens.base import AreaScreen
from tui.vault_wizard.draft import KINDS, MORE, PLACE, VaultDraft
from tui.vault_wizard.kind_page import KindPage
from tui.vault_wizard.page import MorePage, PlacePage, VaultPage
from tui.vault_wizard.prove_page import ProvePage, SavePage
from tui.widgets.buttons import BUTTONS
from tui.widgets.text import Line, Piece
from tui.wizard.page import page_names

if TYPE_CHECKING:
    from backends.operations.vault_check import VaultReport

PAGES = ("Kind", "Place", "More", "Prove", "Save")
NOTHING = "Nothing has been saved."
_PROVE, _SAVE = 4, 5
_KEYS = {
    1: {"go_on", "choose", "help", "give_up"},
    2: {"go_on", "help", "give_up"},
    3: {"go_on", "help", "give_up"},
    4: {"go_on", "prove_again", "page_back", "help", "give_up"},
    5: {"page_back", "help", "give_up"},
}


class VaultWizard(AreaScreen):
    """Opened from the storage screen, or from a fleet without any vault."""

    place = "vault_wizard"
    AUTO_FOCUS = ""
    BINDINGS: ClassVar = [
        *actions.bindings("vault_wizard"),
        *(Binding(str(number), f"page({number})", show=False) for number in range(1, 6)),
    ]
    CSS = f"VaultWizard {{ {BUTTONS} }}"

    def __init__(self) -> None:
        super().__init__()
        self.draft = VaultDraft()
        self.page = 1
        self.report: VaultReport | None = None
        self.saving = False
        self._proved: Mapping[str, Any] | None = None
        self._tries = 0
        self._proving = False

    def body(self) -> Iterable[Widget]:
        """The pages, one of them shown."""
        self.begun_at = self.mastovault.now()
        yield KindPage()
        yield PlacePage()
        yield MorePage()
        yield ProvePage()
        yield SavePage()

    def on_mount(self) -> None:
        """Begin with the kind."""
        super().on_mount()
        self.show_page(1)

    @property
    def pages(self) -> list[VaultPage]:
        """All of them."""
        return list(self.query(VaultPage))

    @property
    def current(self) -> VaultPage:
        """The page that is shown."""
        return self.pages[self.page - 1]

    @property
    def waiting(self) -> bool:
        """Whether a proof is on its way."""
        return self._proving

    def draw(self) -> None:
        """Draw the page that is shown."""
        if len(self.pages) == len(PAGES):
            self.current.draw()

    def footer(self) -> Sequence[actions.Action]:
        """What this page can do; help and leaving stand last."""
        found = [entry for entry in actions.footer(self.place) if entry.id in _KEYS[self.page]]
        return sorted(found, key=lambda entry: entry.id in {"help", "give_up"})

    def crumbs(self) -> tuple[Line, Line]:
        """What is added, and the pages."""
        left: list[Piece] = [(" Add vault", "strong")]
        if self.page > 1:
            left += [(" › ", "quiet"), (self.draft.name or KINDS[self.draft.kind][0], "strong")]
        return left, page_names(PAGES, self.page)

    def show_page(self, number: int) -> None:
        """Show a page, if the ones before it are filled in."""
        for page in range(1, number):
            reason = self._shut(page)
            if reason:
                self.app.notify(reason, severity="warning")
                return
        self.page = number
        for index, one in enumerate(self.pages, 1):
            one.set_class(index == number, "-shown")
        self.current.enter()
        self.refresh_picture()

    def _shut(self, page: int) -> str:
        """Why one cannot go on from a page."""
        if page in {PLACE, MORE}:
            seen = self.mastovault.seen
            return self.draft.lacks(page, seen.config.vaults if seen is not None else ())
        if page == _PROVE:
            if self.report is None or self._proved != self.draft.values():
                return "It is not proved yet."
            if not self.report.usable:
                return "It cannot be used like this: see what failed. R tries again, 2 changes the place."
        return ""

    def prove(self, *, again: bool = False) -> None:
        """Try the vault, unless that was done with these very settings."""
        values = self.draft.values()
        if values == self._proved and not again:
            return
        self._proved, self.report, self._proving = values, None, True
        self.begun_at = self.mastovault.now()
        self._tries += 1
        self.mastovault.spawn(self._prove, self._tries, self.draft.name, self.draft.config(), group="checks")

    async def _prove(self, number: int, name: str, its: VaultConfig) -> None:
        app = self.mastovault
        try:
            report = await app.prove(name, its)
        finally:
            if number == self._tries:
                self._proving = False
        if number != self._tries or self not in app.screen_stack:
            return
        self.report = report
        self.refresh_picture()
        if report.host_key is not None and isinstance(its, SftpVault) and app.screen is self:
            app.trust_key(name, its, report.host_key, lambda: self.prove(again=True))

    def save(self) -> None:
        """The last button was pressed."""
        if not self.saving and not self.mastovault.read_only:
            self.saving = True
            self.mastovault.spawn(self._save)

    async def _save(self) -> None:
        app = self.mastovault
        try:
            await app.save_vault(self.draft.name, self.draft.values(), self._leave)
        finally:
            self.saving = False

    def _leave(self) -> None:
        if self in self.app.screen_stack:
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

    def action_page(self, number: int) -> None:
        """A digit was pressed where nothing is typed."""
        if number < self.page:
            self.show_page(number)
        elif number > self.page:
            self.do_go_on()

    def do_choose(self) -> None:
        """Choose what is under the cursor."""
        self.current.choose()
        self.refresh_picture()

    def do_prove_again(self) -> None:
        """Try the vault once more."""
        if self.page == _PROVE and not self._proving:
            self.prove(again=True)
            self.refresh_picture()

    def do_copy(self) -> None:
        """Copy what this page is about."""
        text = self.current.copied()
        if text:
            self.mastovault.copy(text)

    def do_give_up(self) -> None:
        """Leave; nothing has been saved."""
        self._tries += 1
        self.app.pop_screen()
        self.app.notify(NOTHING, timeout=3)

    do_back = do_give_up
    do_leave = do_give_up
