"""The contract between the engine of restores and what each asset does in it.

A `Part` looks at the target and says what it would do, as values. From the facts of that look its `actions` are made:
small steps that can be done, done again after a cut, undone, and forgotten. The engine (`operations.restore`) orders
the actions of all parts by phase, writes each into the journal before it begins, and walks back when one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from backends.connection.base import Connection
from backends.mastodon.installation import Installation
from backends.model import Asset
from backends.progress import Job
from backends.restore.plan import Look, RestoreRequest, StepInfo
from backends.restore.source import Source

Way = Literal["rollback", "undo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The machine that a restore goes to.

    `installation` is what discovery found. On a bare machine, and on one whose settings are to be restored, it is what
    will be there: see `backends.restore.target`.
    """

    name: str
    connection: Connection
    installation: Installation
    become: str = "none"
    """`none`, `sudo` or `su`: how the connection becomes another user."""
    bare: bool = False
    """No Mastodon is installed: nothing to stop or to start, and the database is yet to be made."""
    same_host: bool = True
    """Whether the snapshots came from this very host."""

    @property
    def root(self) -> str | None:
        """Whom to run as what needs root (systemctl, chown): `as_user` of a command; None is the login user."""
        return None if self.connection.login_user == "root" or self.become == "none" else "root"


class Memory(Protocol):
    """What the steps of a restore must remember: JSON values, on disk before `set` returns."""

    def get(self, key: str) -> Any:
        """The value, or None."""
        ...

    def set(self, key: str, value: Any) -> None:
        """Keep a value. Nothing secret."""
        ...


@dataclass(slots=True, kw_only=True)
class Work:
    """What a step has at hand while it runs.

    The connection is that of `target`; after a lost connection the engine makes a new one and calls the step again.
    """

    request: RestoreRequest
    target: Target
    sources: Mapping[Asset, Source]
    job: Job
    memory: Memory
    way: Way = "rollback"
    """While undoing: `rollback` leaves nothing of the restore behind, `undo` keeps what the restore brought, aside,
    until it is forgotten (people may have written into it)."""

    @property
    def connection(self) -> Connection:
        """The connection to the target."""
        return self.target.connection


def _nothing(work: Work) -> None:
    """Nothing to take back, nothing kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step, as something that can be carried out.

    Every function may be called again after having been cut off at any point: it looks at what is there and does the
    rest. Each raises `MastovaultError`s only.

    Attributes:
        info: how the plan shows it.
        do: carry it out. It calls `job.step(...)`/`advance` for progress and logs its commands; the engine has logged
            the step's name already.
        undo: take back what `do` did, wholly or in part, also when `do` never began. Not cancellable.
        forget: give up what was kept for the undo (the old database, the old files).
    """

    info: StepInfo
    do: Callable[[Work], None]
    undo: Callable[[Work], None] = _nothing
    forget: Callable[[Work], None] = _nothing


class Part(Protocol):
    """What each asset (and the services) provides. Parts hold no state."""

    asset: ClassVar[Asset | None]

    def look(self, request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
        """Look at the target and the snapshot, read-only, in seconds. What is wrong is a finding, not an error.

        Raises:
            ConnectionFailed: the connection is gone.
        """
        ...

    def actions(self, request: RestoreRequest, facts: Mapping[str, Any]) -> Sequence[Action]:
        """The steps, in order, from the facts of a look; the same facts give the same steps."""
        ...
