"""What the keys do about restores: the wizard's looks, starting runs, verify and drill, and what comes after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

from backends.errors import MastovaultError
from backends.model import Asset, Secret, SnapshotInfo
from backends.runs.view import RunView
from tui import after, jobs
from tui.screens.dialog import AskNow, Confirm, Typed
from tui.screens.jobs import JobsScreen
from tui.source import Wish
from tui.widgets import say
from tui.widgets.text import Line

if TYPE_CHECKING:
    from backends.operations.restores import RestoreRecord
    from tui.app import MastovaultApp
    from tui.wizard.look import Look
    from tui.wizard.screen import RestoreWizard

Chosen = Mapping[str, Mapping[Asset, SnapshotInfo]]
"""By host and asset, the snapshot to verify or to drill."""
_LISTED = 10


class Restoring:
    """Mixed into the app beside `Deeds`."""

    @property
    def _mastovault(self) -> MastovaultApp:
        return cast("MastovaultApp", self)

    def open_wizard(self, host: str, assets: Sequence[Asset], snapshot: str = "") -> None:
        """Open the restore wizard on a host's assets, or on one snapshot."""
        from tui.wizard.screen import RestoreWizard

        app = self._mastovault
        if app.paused:
            # The plan is made by a run, and a picture that is held still would never show it.
            app.do_pause()
        app.push_screen(RestoreWizard(host, assets, snapshot))

    def read_points(self, wizard: RestoreWizard) -> None:
        """Read the restore points of the wizard's host."""

        async def read() -> None:
            app = self._mastovault
            wizard.points_arrived(await app.feed.call(app.source.points, wizard.draft.host))

        self._mastovault.spawn(read)

    def begin_look(self, wizard: RestoreWizard, look: Look) -> None:
        """Start the run that makes a plan."""

        async def begin() -> None:
            app = self._mastovault
            try:
                look.run = await app.feed.call(app.source.start, look.wish)
            except MastovaultError as error:
                look.error, look.next_step = error.sentence, error.next_step
            if wizard.look is not look:
                # It was given up while it was being started.
                self.give_up_look(look.run)
            app.feed.hurry()
            wizard.look_arrived()

        self._mastovault.spawn(begin)

    def give_up_look(self, run: str) -> None:
        """Stop a look that nobody waits for any more; it changes nothing, so nobody is asked."""

        async def stop() -> None:
            app = self._mastovault
            try:
                await app.feed.call(app.source.cancel, run, None)
            except MastovaultError:
                return  # it has ended by itself

        if run:
            self._mastovault.spawn(stop)

    def read_plan(self, wizard: RestoreWizard, look: Look, view: RunView) -> None:
        """Read the plan that a run has made."""
        look.reading = True

        async def read() -> None:
            app = self._mastovault
            try:
                look.plan = await app.feed.call(app.source.plan, look.run)
            finally:
                look.reading = False
            if look.plan is None:
                look.ended(view)
            wizard.look_arrived()

        self._mastovault.spawn(read)

    def start_run(self, wish: Wish, then: Callable[[MastovaultError | None], None] = lambda _error: None) -> None:
        """Start a run and show the jobs, with the cursor on it."""

        async def start() -> None:
            app = self._mastovault
            try:
                run = await app.feed.call(app.source.start, wish)
            except MastovaultError as error:
                then(error)
                raise
            then(None)
            app.feed.hurry()
            self.show_job_of(run)

        self._mastovault.spawn(start)

    def show_job_of(self, run: str) -> None:
        """Show the jobs with the cursor on a run, as soon as it is known."""
        app = self._mastovault
        app.go("jobs")

        def look() -> None:
            for screen in app.screen_stack:
                if isinstance(screen, JobsScreen):
                    screen.look_at(run)

        app.call_later(look)

    def start_checks(self, kind: str, chosen: Chosen, then: Callable[[], None] = lambda: None) -> None:
        """Verify or drill some snapshots after a light question: enter begins.

        A drill loads what it restores; of a copy whose writer is not trusted that needs its word, as a restore does.
        """
        app = self._mastovault
        working = jobs.at_work(entry for entry in app.entries if entry.run.kind == kind)
        free = {
            host: {asset: one for asset, one in found.items() if (host, asset) not in working}
            for host, found in (self._with_databases(chosen) if kind == "drill" else chosen).items()
        }
        names = [(f"{host}/{asset}", one) for host, found in free.items() for asset, one in found.items()]
        if not names:
            busy = any(chosen.values())
            app.notify(f"A {kind} of it is at work; 2 shows it." if busy else "There is no copy of it yet; b backs up.",
                       severity="warning")  # fmt: skip
            return
        lines: list[Line] = [
            [(f"  {name:<24.40} ", "strong"), (f"{say.day_time(one.at)} UTC  {say.size(one.bytes)}", "quiet")]
            for name, one in names[:_LISTED]
        ]
        if len(names) > _LISTED:
            lines.append([(f"  and {len(names) - _LISTED} more", "quiet")])
        lines += [[], *([(text, "")] for text in after.CHECKS[kind])]
        doubts = {host: self._doubts(found) for host, found in free.items()} if kind == "drill" else {}
        wishes = [
            Wish(
                kind=kind,
                host=host,
                assets=tuple(found),
                options={"snapshots": {asset.value: one.id for asset, one in found.items()}}
                | ({"accept": list(doubts[host])} if doubts.get(host) else {}),
            )
            for host, found in free.items()
            if found
        ]

        def decided(yes: bool | None) -> None:
            if yes:
                then()
                app.spawn(self._start_all, kind, wishes)

        what = names[0][0] if len(names) == 1 else f"{len(names)} copies"
        verb = kind.capitalize()
        words = {f"{host}/{word}": said for host, its in doubts.items() for word, said in its.items()}
        if words:
            self._ask_words(f"{verb} {what}?", [*lines, *after.doubtful(words)], list(words), verb, decided)
        else:
            app.push_screen(Confirm(f"{verb} {what}?", lines, yes=verb, no="Not now", light=True), decided)

    def _doubts(self, found: Mapping[Asset, SnapshotInfo]) -> dict[str, list[str]]:
        """Which words must be typed to load some copies all the same, and what speaks against them."""
        app = self._mastovault
        said: dict[str, list[str]] = {}
        for asset, one in found.items():
            if not (trust := app.trust(one)).good:
                said.setdefault(trust.value, []).append(f"{one.host}/{asset}: {app.distrust(one)}")
        return said

    def _ask_words(
        self, title: str, lines: Sequence[Line], words: Sequence[str], yes: str, decided: Callable[[bool | None], None]
    ) -> None:
        """Ask for one word after the other."""
        word, *more = words

        def typed(good: bool | None) -> None:
            if good and more:
                self._ask_words(title, lines, more, yes, decided)
            else:
                decided(good)

        self._mastovault.push_screen(Typed(title, lines, word, yes=yes, no="Not now"), typed)

    def _with_databases(self, chosen: Chosen) -> Chosen:
        """Secrets are only proven by a database that they open: the newest one goes with them."""
        seen = self._mastovault.seen
        newest = {one.host: one.newest for one in (seen.fleet.assets if seen else ()) if one.asset is Asset.DATABASE}
        made: dict[str, Mapping[Asset, SnapshotInfo]] = {}
        for host, found in chosen.items():
            database = newest.get(host)
            alone = Asset.SECRETS in found and Asset.DATABASE not in found
            made[host] = {Asset.DATABASE: database, **found} if alone and database is not None else found
        return made

    async def _start_all(self, kind: str, wishes: Sequence[Wish]) -> None:
        app = self._mastovault
        begun = 0
        for wish in wishes:
            try:
                await app.feed.call(app.source.start, wish)
                begun += 1
            except MastovaultError as error:
                app.notify(f"{wish.host}: {error.sentence}", title="Not started", severity="error", timeout=8)
        app.feed.hurry()
        if begun:
            what = wishes[0].host if begun == 1 else f"{begun} hosts"
            app.notify(f"{kind.capitalize()} of {what} has begun; 2 shows it.", timeout=3)

    def settle_restore(self, host: str, asset: Asset | None = None, restore: str = "") -> None:
        """Offer what can be done about a restore: undo, forget, continue, roll back."""
        app = self._mastovault
        records = app.seen.restores if app.seen is not None else ()
        record = after.record_of(records, host, asset, restore)
        if record is None:
            what = f"{host}/{asset}" if asset is not None else host
            app.notify(f"No restore of {what} on this machine can be undone or continued.", severity="warning")
            return
        if not record.can:
            app.notify(f"The restore of {record.confirm} is {record.sentence}.", severity="warning")
            return

        def decided(what: str | None) -> None:
            if what in {"undo", "forget"}:
                self._ask_typed(record, what)
            elif what:
                self._go_on(record, what)

        app.push_screen(after.AfterDialog(record, app.now()), decided)

    def _ask_typed(self, record: RestoreRecord, what: str) -> None:
        app = self._mastovault
        title, yes = after.TYPED[what]
        window = Typed(title, after.warning(record, what), record.confirm, yes=yes, no="Keep it as it is")

        def decided(yes: bool | None) -> None:
            if yes:
                self._go_on(record, what)

        app.push_screen(window, decided)
        if what == "undo":
            app.spawn(self._tell_loss, record, window)

    async def _tell_loss(self, record: RestoreRecord, window: Typed) -> None:
        app = self._mastovault
        try:
            lost = await app.feed.aside(app.source.undo_words, record.id, self.ask_now)
        except MastovaultError as error:
            lost = (f"What was written since the restore is not known: {error.sentence}",)
        window.tell(after.warning(record, "undo", lost))

    def _go_on(self, record: RestoreRecord, what: str) -> None:
        options = {"restore": record.id, "what": what}
        self.start_run(Wish(kind="undo", host=record.host, assets=record.assets, options=options))

    def ask_now(self, prompt: str) -> Secret | None:
        """Ask for a secret from a thread of the feed, and wait for the answer; None when there is none."""
        app = self._mastovault
        answered: Future[Secret | None] = Future()
        app.call_from_thread(app.push_screen, AskNow("A host asks", prompt), answered.set_result)
        return answered.result()
