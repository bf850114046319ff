"""The plan of a restore, as a run leaves it in its folder for whoever asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MastovaultError
from backends.runs.folder import folder_of

if TYPE_CHECKING:
    from backends.restore.plan import RestorePlan

PLAN = "plan.json"
_MAX_BYTES = 4 << 20


def read_plan(state_dir: Path, run: str) -> RestorePlan | None:
    """The plan that a run made (kinds `plan` and `restore`); None when there is none (yet)."""
    from backends.restore.plan import plan_from_json

    try:
        with (folder_of(state_dir, run) / PLAN).open("rb") as file:
            return plan_from_json(file.read(_MAX_BYTES))
    except (OSError, ValueError, MastovaultError):
        return None
