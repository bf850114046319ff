"""What the four pages share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input

from tui.wizard.draft import Draft

if TYPE_CHECKING:
    from tui.wizard.screen import RestoreWizard


class Page(Vertical):
    """One page of the wizard. It shows the draft, and changes it."""

    DEFAULT_CSS = """
    Page { height: 1fr; display: none; }
    Page.-shown { display: block; }
    """

    @property
    def wizard(self) -> RestoreWizard:
        """The wizard that it is a page of."""
        return cast("RestoreWizard", self.screen)

    @property
    def draft(self) -> Draft:
        """What has been chosen so far."""
        return self.wizard.draft

    def enter(self) -> None:
        """The page is shown: take the keys."""

    def draw(self) -> None:
        """Draw what changed."""

    def go_on(self) -> bool:
        """Enter was pressed: whether that means the next page."""
        return True

    def choose(self) -> None:
        """Space was pressed."""

    def copied(self) -> str:
        """What `y` copies."""
        return ""


class Field(Input):
    """One line to type into; nothing typed is ever read as markup, and the cursor stands still."""

    DEFAULT_CSS = """
    Field {
        height: 1; width: 1fr; border: none; padding: 0 1; background: $panel; background-tint: $panel 0%;
        &:focus { background: $cursor-row; background-tint: $panel 0%; border: none; }
        &:ansi:focus { text-style: underline; }
    }
    """
    BINDINGS: ClassVar = [
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("escape", "app.focus_previous", show=False),
    ]

    def on_mount(self) -> None:
        """A cursor that blinks draws the line again and again over a slow line."""
        self.cursor_blink = False
