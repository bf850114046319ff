"""What the keys of every screen do: they ask the engine for something, on the feed's thread, and say how it went."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from textual.command import CommandPalette
from textual.worker import WorkType

from backends.errors import MastovaultError
from backends.model import Asset, JobState, Secret
from backends.runs.view import Question
from tui import jobs
from tui.feed import INTERVALS
from tui.jobs import JobEntry
from tui.screens.asset import AssetScreen
from tui.screens.base import AreaScreen
from tui.screens.dialog import Ask, Confirm
from tui.screens.fleet import FleetScreen
from tui.screens.help import HelpScreen
from tui.screens.log import LogScreen
from tui.widgets.filter_input import FilterInput
from tui.widgets.log_pane import LogPane
from tui.widgets.text import Line, safe

if TYPE_CHECKING:
    from tui.app import MastovaultApp

Given = TypeVarTuple("Given")


class Deeds:
    """Mixed into the app; every `do_` is an entry of `tui.actions`."""

    @property
    def _app(self) -> MastovaultApp:
        return cast("MastovaultApp", self)

    def do_area_fleet(self) -> None:
        """Go to the fleet."""
        self.go("fleet")

    def do_area_jobs(self) -> None:
        """Go to the jobs."""
        self.go("jobs")

    def do_area_hosts(self) -> None:
        """Go to the hosts."""
        self.go("hosts")

    def do_area_storage(self) -> None:
        """Go to the vaults."""
        self.go("storage")

    def do_area_settings(self) -> None:
        """Go to the settings."""
        self.go("settings")

    def go(self, area: str) -> None:
        """Show an area, at its top."""
        app = self._app
        if app.current_mode == area:
            while len(app.screen_stack) > 1:
                app.pop_screen()
        else:
            app.switch_mode(area)

    def do_refresh(self) -> None:
        """Ask hosts and vaults now."""
        self._app.feed.refresh()
        self._app.notify("Asking hosts and vaults.", timeout=2)

    def do_pause(self) -> None:
        """Hold the picture still, or let it go on."""
        app = self._app
        app.paused = not app.paused
        app.feed.paused = app.paused
        if not app.paused:
            app.feed.reread()
            app.feed.hurry()
        app.redraw()

    def do_slower(self) -> None:
        """Ask the hosts less often."""
        self._change_interval(1)

    def do_faster(self) -> None:
        """Ask the hosts more often."""
        self._change_interval(-1)

    def _change_interval(self, step: int) -> None:
        feed = self._app.feed
        place = INTERVALS.index(feed.interval) + step
        feed.interval = INTERVALS[max(0, min(place, len(INTERVALS) - 1))]
        self._app.redraw()

    def do_palette(self) -> None:
        """Open the palette."""
        self._app.push_screen(CommandPalette(placeholder="find an action, an asset or a job"))

    def do_help(self) -> None:
        """Show the help of the screen."""
        app = self._app
        screen = app.screen
        if isinstance(screen, AreaScreen):
            app.push_screen(HelpScreen(screen.place, read_only=app.read_only))

    def do_leave(self) -> None:
        """Go back; at the top, leave and say what goes on."""
        app = self._app
        if len(app.screen_stack) > 1:
            app.pop_screen()
        else:
            self.leave()

    def leave(self) -> None:
        """Leave; what runs goes on, and the last line in the terminal says so."""
        app = self._app
        going = [run for run in app.runs if run.active and run.kind != jobs.PLAN]
        if not going:
            app.exit()
            return
        hosts = ", ".join(sorted({run.host for run in going})[:5])
        one = len(going) == 1
        app.exit(
            f"{len(going)} run{'' if one else 's'} ({hosts}) {'goes' if one else 'go'} on without this window. "
            f"`mastovault` shows {'it' if one else 'them'} again, `mastovault cancel {going[0].id}` stops "
            f"{'it' if one else 'the first'}."
        )

    def copy(self, text: str) -> None:
        """Put a text on the clipboard."""
        self._app.copy_to_clipboard(safe(text) if "\n" not in text else text)
        first = text.splitlines()[0][:60] if text else ""
        self._app.notify(f"Copied: {first}", timeout=2)

    def open_log(self, run: str, job: str | None) -> None:
        """Show a log full screen."""
        self._app.push_screen(LogScreen(run, job))

    def open_log_of(self, host: str, asset: Asset) -> None:
        """Show the log of the newest job on an asset."""
        entry = jobs.newest_of(self._app.entries, host, asset)
        if entry is None:
            self._app.notify(f"No job on {host}/{asset} has left a log on this machine.", severity="warning")
        else:
            self.open_log(entry.run.id, entry.log)

    def show_fleet_of(self, host: str) -> None:
        """Show the fleet with one host's rows only."""
        app = self._app
        self.go("fleet")

        def fill() -> None:
            if isinstance(app.screen, FleetScreen):
                app.screen.query_one(FilterInput).value = f"host:{host}"

        app.call_later(fill)

    def cancel_job(self, entry: JobEntry) -> None:
        """Stop a job after asking."""
        app = self._app
        if not entry.active:
            app.notify("This job has ended already.", severity="warning")
            return
        if entry.job.state is JobState.CANCELLING:
            app.notify("It is being cancelled; the state changes when the work has really stopped.", severity="warning")
            return
        lines: list[Line] = [
            [(f"  {entry.what} {entry.target}", "strong"), (f"  {jobs.amount(entry.job)}", "quiet")],
            [],
            [(jobs.cancelling(entry), "")],
        ]

        def decided(yes: bool | None) -> None:
            if yes:
                self.spawn(self._cancel, entry)

        app.push_screen(Confirm("Cancel this job?", lines, yes="Cancel the job", no="Let it run"), decided)

    async def _cancel(self, entry: JobEntry) -> None:
        app = self._app
        # The steps of a restore are those of all its assets: one of them cannot be taken out.
        whole = entry.run.kind in {"restore", "undo"}
        await app.feed.call(app.source.cancel, entry.run.id, None if whole else entry.job.id)
        app.feed.hurry()

    def ask_operator(self, run: str, question: Question) -> None:
        """Open the window in which a run's question is answered."""
        app = self._app

        def decided(secret: Secret | None) -> None:
            if secret is not None:
                self.spawn(self._answer, run, question.id, secret)

        where = next((view.host for view in app.runs if view.id == run), "")
        app.push_screen(Ask(f"{where} asks", question.prompt, run, question.id), decided)

    async def _answer(self, run: str, question: str, secret: Secret) -> None:
        app = self._app
        await app.feed.call(app.source.answer, run, question, secret)
        app.feed.hurry()

    def ask_history(self, host: str, asset: Asset) -> None:
        """Read the past of an asset for the screen that is shown."""
        self.spawn(self._read_history, host, asset, group="history")

    async def _read_history(self, host: str, asset: Asset) -> None:
        app = self._app
        history = await app.feed.call(app.source.history, host, asset)
        for screen in app.screen_stack:
            if isinstance(screen, FleetScreen | AssetScreen):
                screen.history_arrived(history)

    def pull_logs(self) -> None:
        """Read what is new in the log that is shown."""
        self.spawn(self._pull, group="log")

    async def _pull(self) -> None:
        app = self._app
        for pane in app.area.query(LogPane) if app.area is not None else ():
            subject = pane.subject
            if subject is None or not pane.display:
                continue
            asked = pane.since
            lines, since = await app.feed.call(app.source.log, *subject, asked)
            pane.add(subject, asked, lines, since)

    def tell_outcomes(self, ended: Sequence[JobEntry]) -> None:
        """One toast for each job that has ended; one for all of them when there are many."""
        app = self._app
        ended = [entry for entry in ended if not self._is_one_of_many(entry)]
        if len(ended) > 3:
            failed = sum(entry.job.state is JobState.FAILED or entry.lost for entry in ended)
            text = f"{len(ended)} jobs ended, {failed} failed." if failed else f"{len(ended)} jobs ended."
            app.notify(f"{text} 2 shows them.", severity="error" if failed else "information")
            return
        for entry in ended:
            word, _style = jobs.state(entry)
            bad = entry.job.state is JobState.FAILED or entry.lost
            what = jobs.outcome(entry)
            app.notify(
                f"{entry.what} {entry.target}: {word}{f', {what}' if what else ''}",
                severity="error" if bad else "information",
                timeout=8 if bad else 5,
            )

    def _is_one_of_many(self, entry: JobEntry) -> bool:
        """Whether it is a good part of a run on vaults that goes on: the last one of these speaks for all."""
        if entry.run.kind not in jobs.ON_VAULTS or entry.job.state is JobState.FAILED or entry.lost:
            return False
        mine = [one for one in self._app.entries if one.run.id == entry.run.id]
        return any(one.active for one in mine) or entry.key != mine[-1].key

    def spawn(self, work: Callable[[*Given], Coroutine[Any, Any, None]], *given: *Given, group: str = "deeds") -> None:
        """Do something that waits for the feed's threads; what goes wrong is told."""
        app = self._app

        async def told() -> None:
            try:
                await work(*given)
            except MastovaultError as error:
                text = f"{error.sentence}. {error.next_step}" if error.next_step else error.sentence
                app.notify(text, severity="error", timeout=8)
            except Exception as error:  # noqa: BLE001 - told in a window, the app goes on
                app.tell_fault(error)

        # Not called before its turn: a worker that is cancelled until then has begun nothing.
        deed: WorkType[None] = told
        app.run_worker(deed, group=group, exit_on_error=False)
