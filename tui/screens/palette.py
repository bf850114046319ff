"""What the command palette finds: the actions of this screen, the areas, and every host, asset and job by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui import actions
from tui.screens.asset import AssetScreen
from tui.screens.base import AreaScreen

if TYPE_CHECKING:
    from tui.app import MastovaultApp


class Commands(Provider):
    """Built from the registry, so that it never offers what the screen cannot do."""

    def _commands(self) -> Iterable[tuple[str, str, Callable[[], object]]]:
        app = cast("MastovaultApp", self.app)
        screen = self.screen
        if isinstance(screen, AreaScreen):
            for entry in actions.offered(screen.place, app.read_only):
                yield entry.label, f"{entry.shown}: {entry.help}", partial(screen.action_do, entry.id)
        if app.seen is None:
            return
        for status in app.seen.fleet.assets:
            opened = partial(app.push_screen, AssetScreen(status.host, status.asset))
            yield f"{status.host}/{status.asset}", f"{status.level.value}, open this asset", opened
        for job in app.entries:
            name = f"job {job.number} {job.what} {job.target}"
            yield name, "open its log", partial(app.open_log, job.run.id, job.job.id)

    async def discover(self) -> Hits:
        """What is listed before anything is typed: the actions."""
        screen = self.screen
        number = len(list(actions.offered(screen.place, False))) if isinstance(screen, AreaScreen) else 0
        for name, help_text, command in list(self._commands())[:number]:
            yield DiscoveryHit(name, command, help=help_text)

    async def search(self, query: str) -> Hits:
        """Everything whose name fits what was typed."""
        matcher = self.matcher(query)
        for name, help_text, command in self._commands():
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), command, help=help_text)
