"""What the pages of the wizards share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input

from tui.widgets.text import Piece
from tui.wizard.draft import Draft

if TYPE_CHECKING:
    from tui.wizard.screen import RestoreWizard


class WizardPage(Vertical):
    """One page of any wizard."""

    DEFAULT_CSS = """
    WizardPage { height: 1fr; display: none; }
    WizardPage.-shown { display: block; }
    """

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


class Page(WizardPage):
    """One page of the restore wizard. It shows the draft, and changes it."""

    @property
    def wizard(self) -> RestoreWizard:
        """The wizard that it is a page of."""
        return cast("RestoreWizard", self.screen)

    @property
    def draft(self) -> Draft:
        """What has been chosen so far."""
        return self.wizard.draft


def page_names(names: Sequence[str], current: int) -> list[Piece]:
    """` 1 Copy [2 TARGET] 3 Plan`, for the right end of the crumbs."""
    made: list[Piece] = []
    for number, name in enumerate(names, 1):
        here = number == current
        made.append((f"[{number} {name.upper()}]" if here else f" {number} {name} ", "key" if here else "quiet"))
    return [*made, (" ", "")]


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
    ]

    def on_mount(self) -> None:
        """A cursor that blinks draws the line again and again over a slow line."""
        self.cursor_blink = False


class InnerField(Field):
    """One below a list: escape goes back to the list."""

    BINDINGS: ClassVar = [Binding("escape", "app.focus_previous", show=False)]
