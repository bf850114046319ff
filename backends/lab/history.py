"""The past of the demo's fleet: real backups with dates in the past, failed attempts, what was last seen of a host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backends.lab.lab import Lab


def seed_history(lab: Lab, say: Callable[[str], None]) -> None:
    """Back the hosts up as often as their plans say."""
    say("history not seeded")
