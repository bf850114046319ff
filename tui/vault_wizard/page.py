"""What the pages of the vault wizard share, and the two that are forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input, Label

from tui.vault_wizard.draft import Spec, VaultDraft
from tui.widgets.choice import Choice
from tui.widgets.lines import Lines
from tui.widgets.text import Line, wrapped
from tui.wizard.page import Field, WizardPage

if TYPE_CHECKING:
    from tui.vault_wizard.screen import VaultWizard


class VaultPage(WizardPage):
    """One page of the vault wizard."""

    @property
    def wizard(self) -> VaultWizard:
        """The wizard that it is a page of."""
        return cast("VaultWizard", self.screen)

    @property
    def draft(self) -> VaultDraft:
        """What has been typed so far."""
        return self.wizard.draft


class FormPage(VaultPage):
    """Lines to fill in; what the one with the focus means stands below."""

    number: ClassVar[int] = 0
    DEFAULT_CSS = """
    FormPage VerticalScroll { height: 1fr; padding-top: 1; scrollbar-size-vertical: 1; }
    FormPage Horizontal { height: 1; }
    FormPage Label { width: 18; padding: 0 1; color: $quiet; }
    FormPage #form-note { margin: 0 0 1 0; }
    """

    def compose(self) -> ComposeResult:
        """The form and the note."""
        yield VerticalScroll(can_focus=False)
        yield Lines(id="form-note")

    def enter(self) -> None:
        """Lay out the lines that apply to what was chosen."""
        self.call_later(self.lay_out)

    async def lay_out(self, focus: str = "") -> None:
        """Make the lines anew; what was typed stays."""
        place = self.query_one(VerticalScroll)
        await place.remove_children()
        specs = self.draft.specs(self.number)
        await place.mount_all(Horizontal(Label(self._label(spec), markup=False), self._line(spec)) for spec in specs)
        wanted = focus or self.draft.empty(self.number) or specs[0].id
        self.focus_on(wanted)
        self._note()

    def focus_on(self, name: str) -> None:
        """Put the cursor on a line."""
        for widget in self.query("Field, Choice"):
            if widget.id == name:
                widget.focus()

    def _label(self, spec: Spec) -> str:
        return spec.label + (" *" if spec.required else "")

    def _line(self, spec: Spec) -> Field | Choice:
        if spec.options:
            return Choice(spec.options, self.draft.chosen[spec.id], id=spec.id)
        value = self.draft.texts.get(spec.id, "")
        return Field(value=value, placeholder=f"such as {spec.hint}", id=spec.id, select_on_focus=False)

    def draw(self) -> None:
        """Say what the line with the focus means."""
        self._note()

    def on_descendant_focus(self, _event: events.DescendantFocus) -> None:
        """Another line has the focus."""
        self._note()

    def _note(self) -> None:
        focused = self.app.focused
        spec = next(
            (one for one in self.draft.specs(self.number) if focused is not None and one.id == focused.id), None
        )
        cells = max(20, self.app.size.width - 2)
        lines: list[Line] = [[(f" {part}", "quiet")] for part in wrapped(spec.help, cells)] if spec is not None else []
        self.query_one("#form-note", Lines).show(lines)

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        """Take what is typed."""
        if event.input.id:
            self.draft.texts[event.input.id] = event.value
            self.wizard.draw_crumbs()  # they hold the name

    @on(Choice.Changed)
    async def chosen(self, event: Choice.Changed) -> None:
        """Take what was chosen; other credentials need other lines."""
        if event.choice.id:
            self.draft.chosen[event.choice.id] = event.choice.value
            if event.choice.id == "credentials":
                await self.lay_out(focus="credentials")

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        """Enter goes to what must still be filled in, or on."""
        for field in self.query(Field):  # a letter that was typed just before may not have been told yet
            if field.id:
                self.draft.texts[field.id] = field.value
        missing = self.draft.empty(self.number)
        if missing and missing != event.input.id:
            self.focus_on(missing)
        else:
            self.wizard.do_go_on()


class PlacePage(FormPage):
    """Page 2: where it is, and how one gets in."""

    number = 2


class MorePage(FormPage):
    """Page 3: what it costs, whether it is elsewhere, and how objects are put there."""

    number = 3
