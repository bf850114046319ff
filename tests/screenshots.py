"""`python -m tests.screenshots`: pictures of the real app on the demo's fleet, into `screenshots/`.

Starts the embedded fleet with its history, presses the keys a person would, and saves what stands on the screen.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from backends.lab.lab import Lab
from tui import jobs
from tui.app import MastovaultApp
from tui.screens.asset import AssetScreen
from tui.screens.fleet import FleetScreen
from tui.screens.jobs import JobsScreen
from tui.screens.prune import PruneScreen
from tui.screens.storage import StorageScreen
from tui.screens.vault import VaultScreen
from tui.vault_wizard.screen import VaultWizard
from tui.widgets.typed import TypedName
from tui.wizard.screen import RestoreWizard

PLACE = Path(__file__).parent.parent / "screenshots"
SIZES = ((80, 24), (120, 40))
_PATIENCE = 60.0


class Picture:
    """One app at one size, driven as a person would."""

    def __init__(self, app: MastovaultApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot

    async def until(self, wanted: Callable[[], bool], what: str) -> None:
        """Wait until the screen has something; fails when it never does."""
        end = time.monotonic() + _PATIENCE
        while not wanted():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not happen within {_PATIENCE:.0f} s")
            await self.pilot.pause(0.05)

    async def save(self, name: str) -> None:
        """Save the screen as `NAME-80x24.svg`."""
        await self.pilot.pause(0.3)
        width, height = self.app.size
        path = PLACE / f"{name}-{width}x{height}.svg"
        path.write_text(self.app.export_screenshot(title="Mastovault"), encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(PLACE.parent)}\n")

    def at_work(self) -> bool:
        """Whether a job is far enough to be worth a picture."""
        parts = [jobs.percent(entry.job) for entry in self.app.entries if entry.active]
        return any(part is not None and 15 <= part < 95 for part in parts)


async def _pictures(lab: Lab, size: tuple[int, int]) -> None:
    app = MastovaultApp(lab.paths)
    async with app.run_test(size=size, notifications=False) as pilot:
        picture = Picture(app, pilot)
        await picture.until(lambda: app.seen is not None and app.runs_known, "the fleet")
        await picture.until(lambda: app.asking is not None, "asking the hosts")
        await picture.until(lambda: app.asking is None, "the hosts' answers")
        fleet = app.screen
        assert isinstance(fleet, FleetScreen)
        await pilot.press("g")
        await picture.until(lambda: not fleet.waiting, "the history")
        await picture.save("fleet")
        await pilot.press("i")
        await picture.save("why")
        await pilot.press("escape")
        await pilot.press(*["space"] * 5, "b")
        await picture.save("confirm")
        await pilot.press("tab", "enter")
        await picture.until(picture.at_work, "a backup")
        await picture.save("live")
        await pilot.press("2")
        await picture.until(lambda: isinstance(app.screen, JobsScreen), "the jobs")
        await picture.save("jobs")
        await pilot.press("1")
        await picture.until(lambda: not any(entry.active for entry in app.entries), "the end of the backup")
        fleet.table.move_to("art/media")
        await pilot.press("enter")
        await picture.until(lambda: isinstance(app.screen, AssetScreen) and not app.screen.waiting, "the history")
        await picture.save("asset")
        await pilot.press("escape")
        await pilot.press("question_mark")
        await picture.save("help")
        await pilot.press("escape")
        await _storage(picture)
        await _restore(picture, fleet)


async def _storage(picture: Picture) -> None:
    """The vaults, a proof, the wizard up to its proof, and the plan of a prune; nothing is saved or removed."""
    app, pilot = picture.app, picture.pilot
    await pilot.press("4")
    storage = app.screen
    assert isinstance(storage, StorageScreen)
    await pilot.press("j")
    await picture.until(lambda: not storage.waiting, "what is in the vault")
    await picture.save("storage")
    await pilot.press("enter")
    vault = app.screen
    assert isinstance(vault, VaultScreen)
    await picture.until(lambda: not vault.waiting, "what is in the vault")
    await picture.save("vault")
    config = app.paths.config_file
    before = config.read_text(encoding="utf-8")
    config.write_text(f"{before}\n[retention]\nlast = 2\n", encoding="utf-8")
    await pilot.press("escape", "P")
    prune = app.screen
    assert isinstance(prune, PruneScreen)
    await picture.until(lambda: not prune.waiting, "the plan")
    await pilot.press(*"all/pru")
    await picture.save("prune")
    config.write_text(before, encoding="utf-8")
    await pilot.press("escape", "a", "enter")
    wizard = app.screen
    assert isinstance(wizard, VaultWizard)
    await pilot.pause(0.3)
    with tempfile.TemporaryDirectory(prefix="mastovault-") as place:
        await pilot.press(*"nearby", "enter", *place, "enter", "enter")
        await picture.until(lambda: wizard.report is not None, "the proof")
        await picture.save("vault-wizard")
        await pilot.press("escape")
    await pilot.press("1")


async def _restore(picture: Picture, fleet: FleetScreen) -> None:
    """A restore in place, from the wizard to its end."""
    app, pilot = picture.app, picture.pilot
    fleet.table.move_to("art/database")
    await pilot.press("r")
    wizard = app.screen
    assert isinstance(wizard, RestoreWizard)
    await picture.until(lambda: bool(wizard.points), "the restore points")
    await picture.save("restore-copy")
    await pilot.press("enter", "G", "space")
    await picture.save("restore-target")
    await pilot.press("enter")
    await picture.until(lambda: wizard.plan is not None, "the plan")
    await picture.save("restore-plan")
    await pilot.press("enter")
    await picture.until(lambda: bool(wizard.query(TypedName)), "the field")
    await pilot.press(*"art/data")
    await picture.save("restore-confirm")
    await pilot.press(*"base", "enter", "enter")
    await picture.until(
        lambda: any(_done(run.steps) > 1 for run in app.runs if run.kind == "restore"), "the first steps"
    )
    await picture.save("restore-running")
    await picture.until(lambda: any(run.kind == "restore" and not run.active for run in app.runs), "the end")
    await picture.save("restore-done")


def _done(steps: Sequence[tuple[str, str]]) -> int:
    return sum(state == "done" for _step, state in steps)


def main() -> None:
    """Make all pictures."""
    os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
    for name in ("NO_COLOR", "COLORFGBG", "TEXTUAL_THEME"):
        os.environ.pop(name, None)
    PLACE.mkdir(exist_ok=True)
    for size in SIZES:
        with (
            tempfile.TemporaryDirectory(prefix="mastovault-") as place,
            Lab(Path(place) / "demo", history=True, s3_vault=True) as lab,
        ):
            asyncio.run(_pictures(lab, size))


if __name__ == "__main__":
    main()
