"""Page 4: what dies and what stays, the typed name, and the one button that begins."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input

from tui.widgets.panel import Panel
from tui.widgets.text import Line, Piece, fit, wrapped
from tui.widgets.typed import TypedName
from tui.wizard.draft import Where
from tui.wizard.page import Page
from tui.wizard.plan_lines import duration

_VERBS = {
    Where.SANDBOX: "Drill",
    Where.FILES: "Write the files",
    Where.OTHER: "Restore",
    Where.IN_PLACE: "Restore",
}


class ConfirmPage(Page):
    """What will be, what must be typed, and two buttons: the safe one has the focus."""

    DEFAULT_CSS = """
    ConfirmPage #confirm-text { height: 1fr; }
    ConfirmPage #confirm-words { height: auto; }
    ConfirmPage #confirm-words { padding-top: 1; }
    ConfirmPage Horizontal { height: auto; align-horizontal: right; padding: 1 2 1 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        """What will be, the fields, the buttons."""
        yield Panel("Confirm", id="confirm-text")
        yield Vertical(id="confirm-words")
        yield Horizontal(Button("Keep current data", id="keep"), Button("Restore", id="go"))

    @property
    def names(self) -> Sequence[TypedName]:
        """The fields, one for each name that must be typed."""
        return list(self.query(TypedName))

    def enter(self) -> None:
        """The safe button has the focus, and nothing is typed yet."""
        self.call_later(self._lay_out)

    async def _lay_out(self) -> None:
        wanted = self._wanted()
        place = self.query_one("#confirm-words", Vertical)
        await place.remove_children()
        await place.mount_all(TypedName(name, reason) for name, reason in wanted)
        self.query_one("#keep", Button).focus()
        self.draw()

    def _wanted(self) -> list[tuple[str, str]]:
        plan = self.wizard.plan
        host = plan.request.host if plan is not None and self.draft.to_host else self.draft.host
        found = [(f"{host}/{word}", f"to go on although: {self._reason(word)}") for word in self.wizard.words]
        return [*found, (plan.confirm, "to restore")] if plan is not None and plan.confirm else found

    def _reason(self, word: str) -> str:
        plan = self.wizard.plan
        if plan is None:
            return self.wizard.doubts.get(word, word)
        return next((found.text for found in plan.blocked if found.accept == word), word)

    def draw(self) -> None:
        """Draw what will be, and let the button go when all is typed."""
        panel, draft = self.query_one("#confirm-text", Panel), self.draft
        panel.show(self._lines(panel.inner_width - 1))
        go = self.query_one("#go", Button)
        ready = all(field.matches for field in self.names) and len(self.names) == len(self._wanted())
        go.disabled = not ready
        verb = _VERBS[draft.where]
        go.label = verb if ready else f"{verb} (off until it matches)"
        self.query_one("#keep", Button).label = "Keep current data" if draft.to_host else "Not now"

    def _lines(self, cells: int) -> Sequence[Line]:
        draft, plan = self.draft, self.wizard.plan
        label = {
            Where.SANDBOX: "restored here to prove it, then thrown away",
            Where.FILES: f"written as plain files into {draft.directory}",
            Where.OTHER: f"restored onto {draft.target}",
            Where.IN_PLACE: f"restored onto {draft.target}, IN PLACE",
        }[draft.where]
        names = ", ".join(f"{asset.value} of {info.at:%m-%d %H:%M}" for asset, info in draft.copies.items())
        lines: list[Line] = [[(part, "strong")] for part in wrapped(f"{names} UTC: {label}", cells)]
        if plan is None:
            return [*lines, [], [("No server is touched.", "ok")]]
        lines.append([])
        for text in plan.lost:
            lines += _labelled("Gone", text, cells, "warn")
        if not draft.to_host:
            return [*lines, [("No server is touched.", "ok")]]
        lines += _labelled("Untouched", ", ".join(plan.untouched) or "everything else", cells)
        down = duration(plan.downtime_seconds)
        if any(step.id.startswith("services.") for step in plan.steps):
            lines += _labelled(
                "Down", f"Mastodon stops for about {down}" if down else "Mastodon stops for seconds", cells
            )
        if plan.seconds is not None:
            lines += _labelled("Takes", f"about {duration(plan.seconds)} in all", cells)
        lines += _labelled("Undo", "u on the job or on the asset brings back what was there", cells, "ok")
        return [
            *lines,
            *_labelled("", "Until the swap, a failure or X leaves everything as it is now.", cells, "quiet"),
        ]

    @on(Input.Changed)
    def _typed(self) -> None:
        self.draw()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        # Enter in a field never begins it: it goes on to the next name, and when all are right to the button.
        open_one = next((one for one in self.names if not one.matches), None)
        (open_one.input if open_one is not None else self.query_one("#go", Button)).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "keep":
            self.wizard.do_give_up()
        elif not event.button.disabled:
            plan = self.wizard.plan
            confirm = self.names[-1].value if plan is not None and plan.confirm else ""
            self.wizard.begin(accept=self.wizard.words, confirm=confirm)

    def take_text(self, text: str) -> bool:
        """What is typed goes into the first field that is not right yet, whatever has the focus."""
        field = next((one for one in self.names if not one.matches), None)
        return field is not None and field.take(text)

    def go_on(self) -> bool:
        """Enter belongs to the button that has the focus."""
        return False

    def copied(self) -> str:
        """Nothing: what must be typed is to be typed."""
        return ""


def _labelled(label: str, text: str, cells: int, style: str = "") -> list[Line]:
    made: list[Line] = []
    for number, part in enumerate(wrapped(text, max(10, cells - 11))):
        head: list[Piece] = fit([(label if number == 0 else "", "quiet")], 11)
        made.append([*head, (part, style)])
    return made
