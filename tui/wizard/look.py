"""What the look before a restore has come to: the run that makes the plan, and the plan."""

from __future__ import annotations

from dataclasses import dataclass

from backends.model import JobState
from backends.restore.plan import Finding, RestorePlan
from backends.runs.view import RunView
from tui.source import Wish


@dataclass(slots=True, kw_only=True)
class Look:
    """One look. `run` is empty until it was started; `error` says why there is no plan."""

    wish: Wish
    run: str = ""
    plan: RestorePlan | None = None
    error: str = ""
    next_step: str = ""
    reading: bool = False
    """Whether the plan of the ended run is being read."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.plan is not None or bool(self.error)

    @property
    def closed(self) -> tuple[Finding, ...]:
        """The findings that no typed word can override."""
        return tuple(found for found in self.plan.blocked if not found.accept) if self.plan is not None else ()

    @property
    def words(self) -> tuple[str, ...]:
        """The words that override what blocks it, in the order they were found."""
        return tuple(dict.fromkeys(found.accept for found in self.plan.blocked)) if self.plan is not None else ()

    def ended(self, view: RunView) -> None:
        """The run ended without a plan: say why."""
        failed = [one for one in view.results if one.state is not JobState.DONE]
        first = failed[0] if failed else None
        self.error = (first.error if first else None) or "the run that looks ended without a plan"
        self.next_step = (first.next_step if first else None) or "R looks again."
