"""Pages 4 and 5: the proof that backups can be kept there, and the one button that saves."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Button

from tui.vault_wizard.page import VaultPage
from tui.widgets import say
from tui.widgets.lines import Lines
from tui.widgets.panel import Panel
from tui.widgets.proof_lines import WORDS, report_lines
from tui.widgets.text import Line, fit, wrapped


class ProvePage(VaultPage):
    """Each step with its word and time; nothing is saved yet."""

    DEFAULT_CSS = """
    ProvePage Panel { height: 1fr; }
    """

    def compose(self) -> ComposeResult:
        """The steps and a note."""
        yield Panel("Proof", id="proof")
        yield Lines(id="proof-note")

    def enter(self) -> None:
        """Prove it, unless that was done with these very settings."""
        self.query_one(Panel).focus()
        self.wizard.prove()

    def draw(self) -> None:
        """Draw the steps, or that they are being tried."""
        wizard, panel = self.wizard, self.query_one(Panel)
        panel.name_it(f"Proof of {self.draft.name}")
        report = wizard.report
        cells = panel.inner_width - 2
        panel.show(report_lines(report, cells) if report is not None else self._trying())
        self.query_one("#proof-note", Lines).show([self._note()])

    def _trying(self) -> Sequence[Line]:
        waited = (self.wizard.mastovault.now() - self.wizard.begun_at).total_seconds()
        lines: list[Line] = [
            [
                ("Trying it with something small, which is removed again…", "run"),
                (f"   {say.took(max(0, waited))}", "quiet"),
            ]
        ]
        return [*lines, [], *([(" · ", "quiet"), (text, "quiet")] for text in WORDS.values())]

    def _note(self) -> Line:
        report = self.wizard.report
        if report is None:
            return [(" Nothing is saved yet.", "quiet")]
        if report.usable and not report.good:
            return [(" Nothing is saved yet. ⏎ goes on all the same; R tries again.", "warn")]
        if report.usable:
            return [(" Nothing is saved yet. ⏎ goes on to the last page.", "quiet")]
        return [(" STOP ✗ ", "crit"), (" It is not saved like this. R tries again, 2 changes the place.", "")]

    def copied(self) -> str:
        """What failed, for whoever can mend it."""
        report = self.wizard.report
        bad = [f"{step.name}: {step.said}" for step in report.steps if not step.ok] if report is not None else []
        return "\n".join(bad)


class SavePage(VaultPage):
    """What is written into config.toml, who will use it, and the button."""

    DEFAULT_CSS = """
    SavePage Panel { height: 1fr; }
    SavePage Horizontal { height: auto; align-horizontal: right; padding: 1 2 1 0; }
    """

    def compose(self) -> ComposeResult:
        """The lines and the buttons."""
        yield Panel("Save", id="save")
        yield Horizontal(Button("Not now", id="keep"), Button("Save it", id="go"))

    def enter(self) -> None:
        """It was proved, so that the button has the focus."""
        self.query_one("#go", Button).focus()

    def draw(self) -> None:
        """Draw what will be written, and what it means."""
        panel = self.query_one(Panel)
        panel.show(self._lines(panel.inner_width - 1))
        self.query_one("#go", Button).disabled = self.wizard.saving

    def _lines(self, cells: int) -> Sequence[Line]:
        import tomlkit

        wizard, app = self.wizard, self.wizard.mastovault
        made = tomlkit.dumps({"vaults": {self.draft.name: self.draft.values()}}).strip()
        text = made.replace("[vaults]\n", "", 1)
        lines: list[Line] = [[("Written into ", "quiet"), (str(app.paths.config_file), "")], []]
        lines += [[("  ", ""), (part, "run")] for line in text.splitlines() for part in wrapped(line, cells - 2)]
        lines.append([])
        report = wizard.report
        if report is not None and not report.good:
            failed = ", ".join(WORDS[step.name] for step in report.steps if not step.ok)
            lines += _labelled("▲ not all", f"{failed}: backups go on without it, prune may not", cells, "warn")
        hosts = app.seen.config.hosts if app.seen is not None else {}
        every = [name for name, host in hosts.items() if not host.vaults]
        own = [name for name, host in hosts.items() if host.vaults]
        if every:
            lines += _labelled("used by", f"{', '.join(every)}, from their next backup on", cells)
        if own:
            text = f"{', '.join(own)} name their vaults: add it there"
            lines += _labelled("not by", text, cells, "warn")
        if not hosts:
            lines += _labelled("used by", "every host that is added", cells)
        return lines

    def go_on(self) -> bool:
        """Enter belongs to the button that has the focus."""
        return False

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Leave, or save."""
        if event.button.id == "keep":
            self.wizard.do_give_up()
        else:
            self.wizard.save()


def _labelled(label: str, text: str, cells: int, style: str = "") -> list[Line]:
    parts = wrapped(text, max(10, cells - 10))
    return [[*fit([(label if number == 0 else "", "quiet")], 10), (part, style)] for number, part in enumerate(parts)]
