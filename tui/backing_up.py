"""What `b` does: start backups, one at once and several after asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from backends.model import Asset
from tui import jobs
from tui.screens.dialog import Confirm
from tui.widgets import say
from tui.widgets.text import Line

if TYPE_CHECKING:
    from tui.app import MastovaultApp

_LISTED = 12


class BackingUp:
    """Mixed into the app beside `Deeds`."""

    @property
    def _main(self) -> MastovaultApp:
        return cast("MastovaultApp", self)

    def start_backup(
        self, targets: Mapping[str, Sequence[Asset]], *, ask: bool, then: Callable[[], None] = lambda: None
    ) -> None:
        """Start the runs; one asset at once, more than one after asking."""
        app = self._main
        working = jobs.at_work(entry for entry in app.entries if entry.run.kind in jobs.CHANGING)
        free = {host: [asset for asset in assets if (host, asset) not in working] for host, assets in targets.items()}
        free = {host: assets for host, assets in free.items() if assets}
        names = [f"{host}/{asset}" for host, assets in free.items() for asset in assets]
        busy = sum(len(assets) for assets in targets.values()) - len(names)
        if not names:
            app.notify("A job is at work on it right now; 2 shows it.", severity="warning")
            return
        if not ask and len(names) == 1:
            app.spawn(self._start, free)
            return
        lines: list[Line] = [[(f"  {name}", "strong")] for name in names[:_LISTED]]
        if len(names) > _LISTED:
            lines.append([(f"  and {len(names) - _LISTED} more", "quiet")])
        if busy:
            lines += [[], [(f"{busy} of the chosen are at work already and are left out.", "quiet")]]
        lines += [[], [("The hosts keep running; nothing on them is changed.", "quiet")]]

        def decided(yes: bool | None) -> None:
            if yes:
                then()
                app.spawn(self._start, free)

        title = f"Back up {len(names)} assets of {len(free)} host{'s' * (len(free) != 1)}?"
        app.push_screen(Confirm(title, lines, yes=f"Back up {len(names)}", no="Not now"), decided)

    async def _start(self, targets: Mapping[str, Sequence[Asset]]) -> None:
        app = self._main
        started = await app.feed.call(app.source.back_up, targets)
        app.feed.hurry()
        failed = [one for one in started if one.error]
        good = len(started) - len(failed)
        for one in failed[:3]:
            app.notify(f"{one.host}: {one.error}", title="Not started", severity="error", timeout=8)
        if good == 1 and not failed:
            app.notify(f"Backup of {_listed(targets)} has begun; 2 shows it.", timeout=3)
        elif good:
            app.notify(f"{good} runs have begun; 2 shows them.", timeout=3)


def _listed(targets: Mapping[str, Sequence[Asset]]) -> str:
    host, assets = next(iter(targets.items()))
    return f"{host}/{assets[0]}" if len(assets) == 1 else f"{say.count(len(assets))} assets of {host}"
