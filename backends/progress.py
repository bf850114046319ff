"""What work sees of the job it is part of: where it reports to, and how it learns that it must stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from backends.model import Secret


class Job(Protocol):
    """One asset's part of a run, as the engine's rooms see it. Every method may be called from any thread."""

    @property
    def id(self) -> str:
        """The job's name within its run, for example `database`."""
        ...

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin the next step; `total` is how much it will advance when that is known."""
        ...

    def advance(self, amount: int) -> None:
        """Count bytes or items done in this step. Cheap; published at most four times a second."""
        ...

    def log(self, line: str) -> None:
        """Add a line to the job's log; it is cleaned on the way. Never pass a secret."""
        ...

    def warn(self, text: str) -> None:
        """Say that something was left out: the job will end as done in part."""
        ...

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from another thread when the job is cancelled; returns a function that takes it back."""
        ...

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when the operator asked to stop."""
        ...

    def ask(self, prompt: str) -> Secret | None:
        """Ask the operator for a secret (a password, a passphrase); None when nobody can answer."""
        ...


class QuietJob:
    """A job that nobody watches: for checks, tests and library use."""

    id = "quiet"

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Ignore the step."""

    def advance(self, amount: int) -> None:
        """Ignore the progress."""

    def log(self, line: str) -> None:
        """Ignore the line."""

    def warn(self, text: str) -> None:
        """Ignore the warning."""

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Never call back."""
        return lambda: None

    def check_cancelled(self) -> None:
        """Never stop."""

    def ask(self, prompt: str) -> Secret | None:
        """Answer that nobody is there."""
        return None
