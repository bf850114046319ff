"""What a vault can do, proved: something small is written, read, listed, replaced and removed there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Literal, Protocol, TypeVar, runtime_checkable

from backends.config.schema import DirectoryVault, VaultConfig
from backends.errors import HostKeyUnknown, MastovaultError, VaultError
from backends.operations.vault_check_steps import Failed, Steps
from backends.vault.base import Vault, VaultLook
from backends.vault.format import VaultFormat
from backends.vault.open import open_vault

T = TypeVar("T")
Step = Literal["reach", "write", "read", "list", "replace", "delete", "exclusive", "clock"]
STEPS: tuple[Step, ...] = ("reach", "write", "read", "list", "replace", "delete", "exclusive", "clock")
PATIENCE = 10.0
"""Seconds for one step. One that takes longer ends the check: a backup would wait like that for every object."""
_CLEANING = 3.0
_CLOSING = 0.5
"""Seconds; what still tries to connect is left alone."""
_NOT_TRIED = "not tried"
_NEEDS: dict[Step, Step] = {
    "read": "write",
    "replace": "write",
    "delete": "write",
    "exclusive": "write",
    "clock": "write",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing that a vault can do, or why not."""

    name: Step
    ok: bool
    seconds: float
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultReport:
    """What a check found."""

    name: str
    where: str
    steps: tuple[Proof, ...]
    look: VaultLook = field(default_factory=VaultLook)
    free_bytes: int | None = None
    clock_seconds: float | None = None
    """How far the vault's clock is ahead of this machine's; negative when it is behind."""
    foreign: tuple[str, ...] = ()
    """Some objects in the place that are none of ours."""
    found: VaultFormat | None = None
    """The Mastovault vault that is there already."""
    ours: bool | None = None
    """Whether one of the recipients that were given is among that vault's."""
    exclusive: bool | None = None
    """Whether of several writers of one object exactly one wins; leases take longer where not."""
    next_step: str = ""
    """What to do about the first step that failed."""
    host_key: HostKeyUnknown | None = None
    """The server's key, when it has to be accepted first (`connection.host_keys.accept`)."""

    @property
    def usable(self) -> bool:
        """Whether backups can go there, and be read again."""
        done = {step.name for step in self.steps if step.ok}
        return {"reach", "write", "read", "list"} <= done

    @property
    def good(self) -> bool:
        """Whether everything works, prune too."""
        return all(step.ok for step in self.steps)


def check_vault(
    name: str, config: VaultConfig, *, recipients: Sequence[str] = (), patience: float = PATIENCE
) -> VaultReport:
    """Prove what the vault of a `[vaults.NAME]` table can do. Nothing stays there where removing is allowed.

    Args:
        name: what it is called, or is to be called.
        config: its settings.
        recipients: our own, to say whether they are among those of a vault that is there already.
        patience: seconds for one step.
    """
    try:
        vault = open_vault(name, config)
    except MastovaultError as error:
        reach = Proof("reach", False, 0.0, error.sentence)
        steps = (reach, *(Proof(step, False, 0.0, _NOT_TRIED) for step in STEPS[1:]))
        return VaultReport(name=name, where="", steps=steps, next_step=error.next_step)
    missing = _missing(config)
    try:
        report = prove(vault, recipients=recipients, patience=patience)
        if isinstance(vault, Unmakes) and report.found is None and report.steps[0].ok:
            with suppress(VaultError):
                _timed(vault.unmake, _CLEANING)
        return report
    finally:
        with suppress(VaultError):
            _timed(vault.close, _CLOSING)
        for directory in missing:
            with suppress(OSError):
                directory.rmdir()


def prove(vault: Vault, *, recipients: Sequence[str] = (), patience: float = PATIENCE) -> VaultReport:
    """The same for a vault that is open already. Never raises for the vault's fault."""
    steps, order = Steps(vault, recipients), _Order(patience)
    for name in STEPS:
        order.take(name, getattr(steps, name))
    if steps.there:
        with suppress(MastovaultError):
            _timed(lambda: vault.delete(steps.key), _CLEANING)
    return VaultReport(
        name=vault.name,
        where=vault.where,
        steps=tuple(order.proofs),
        look=steps.look,
        free_bytes=steps.free_bytes,
        clock_seconds=steps.clock_seconds,
        foreign=steps.foreign,
        found=steps.found,
        ours=steps.ours,
        exclusive=steps.is_exclusive,
        next_step=order.next_step,
        host_key=order.host_key,
    )


@runtime_checkable
class Unmakes(Protocol):
    """A vault that can remove the directory which it made for itself."""

    def unmake(self) -> None:
        """Remove it when it is empty. Never raises."""
        ...


class _Order:
    """Takes one step after another, and leaves out what an earlier one makes pointless."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._stopped = False
        self.proofs: list[Proof] = []
        self.next_step = ""
        self.host_key: HostKeyUnknown | None = None

    def take(self, name: Step, work: Callable[[], str]) -> None:
        """Carry out a step, within its time."""
        done = {proof.name for proof in self.proofs if proof.ok}
        if self._stopped or (name in _NEEDS and _NEEDS[name] not in done):
            self.proofs.append(Proof(name, False, 0.0, _NOT_TRIED))
            return
        begun = time.monotonic()
        try:
            said, ok = _timed(work, self._patience), True
        except MastovaultError as error:
            said, ok = error.sentence, False
            self._note(name, error)
        self.proofs.append(Proof(name, ok, time.monotonic() - begun, said))

    def _note(self, name: Step, error: MastovaultError) -> None:
        self.next_step = self.next_step or error.next_step
        if name == "reach" or isinstance(error, _Silent):
            self._stopped = not isinstance(error, Failed)
        shown = getattr(error, "shown", None)
        if isinstance(shown, HostKeyUnknown):
            self.host_key = shown


class _Silent(VaultError):
    """The vault did not answer in time."""


def _timed(work: Callable[[], T], seconds: float) -> T:
    """Do something in a thread of its own, and do not wait for it for ever."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = Thread(target=run, name="vault-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise _Silent(f"it did not answer within {seconds:g} seconds", "Look at the network, and at the load there.")
    return results[0]


def _missing(config: VaultConfig) -> list[Path]:
    """The directories that a directory vault would make, the lowest first."""
    if not isinstance(config, DirectoryVault):
        return []
    path = config.path.expanduser().absolute()
    return [each for each in (path, *path.parents) if not each.exists()]
