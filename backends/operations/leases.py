"""The leases of one operation on one asset, in every vault that it writes to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Literal

from backends.errors import LeaseLost, VaultError
from backends.model import Asset
from backends.vault.base import Vault
from backends.vault.lease import TTL, Lease, take_lease

Kind = Literal["write", "sync"]
NAMES: tuple[Kind, ...] = ("write", "sync")
"""What an asset's leases are for, in the order in which one takes both."""


def name_of(host: str, asset: Asset, kind: Kind = "write") -> str:
    """The name of an asset's lease."""
    return f"{host}/{asset.value}/{kind}"


class Held:
    """The leases that were taken. A vault whose lease could not be written is `lacking`, and is not to be written."""

    def __init__(self) -> None:
        self.vaults: list[Vault] = []
        """Those whose lease we have, in the order in which they were named."""
        self.lacking: dict[str, str] = {}
        """Those that failed or hang, by name, and why."""
        self.leases: dict[str, Lease] = {}
        """By the name of the vault."""
        self._wrote: list[str] = []

    def check(self, vault: Vault) -> None:
        """Make sure that this run may still write there, by asking the vault. Raises `LeaseLost`, `VaultError`."""
        lease = self.leases.get(vault.name)
        if lease is None:
            raise LeaseLost(f"this run has no lease in the vault {vault.name}", "Report this as a bug.")
        lease.check()

    def wrote(self, snapshot_id: str) -> None:
        """Remember a snapshot for those who come next; best called before its manifest is put."""
        self._wrote.append(snapshot_id)
        for lease in list(self.leases.values()):
            lease.wrote(snapshot_id)

    def abandon(self, vault: Vault, why: str) -> None:
        """Ask nothing more of a vault that hangs; its lease expires."""
        lease = self.leases.pop(vault.name, None)
        if lease is not None:
            lease.abandon()
            self.vaults = [each for each in self.vaults if each.name != vault.name]
            self.lacking[vault.name] = why

    def release(self) -> None:
        """Let go of every lease. Never raises."""
        for lease in self.leases.values():
            lease.release(self._wrote)


@contextlib.contextmanager
def hold_vaults(
    vaults: Sequence[Vault],
    host: str,
    asset: Asset,
    run: str,
    doing: str = "backed up",
    log: Callable[[str], None] | None = None,
    *,
    kind: Kind = "write",
    ttl: timedelta = TTL,
    wait: float = 0.0,
) -> Iterator[Held]:
    """Hold the leases of an asset in some vaults for as long as the block runs.

    Args:
        vaults: where the operation writes; always taken in the order of their names, so that two never wait crosswise.
        host: the host's name.
        asset: the asset.
        run: the run, for whoever comes second.
        doing: what it does, after "is being".
        log: told of a vault that drops out.
        kind: `write` for what adds or removes snapshots, `sync` for what copies them from vault to vault.
        ttl: how long a lease lasts without a renewal.
        wait: seconds to wait for somebody else's lease.

    Raises:
        Locked: another run holds a lease in one of them; nothing is held.
        VaultError: no vault takes a lease; the last one's fault.
    """
    held = Held()
    fault: VaultError | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(held.release)
        for vault in sorted(vaults, key=lambda each: each.name):
            try:
                held.leases[vault.name] = take_lease(
                    vault, name_of(host, asset, kind), run=run, doing=doing, ttl=ttl, wait=wait
                )
            except VaultError as error:
                fault = error
                held.lacking[vault.name] = error.sentence
                if log is not None:
                    log(f"the vault {vault.name} drops out, its lease cannot be taken: {error.sentence}")
        held.vaults = [vault for vault in vaults if vault.name in held.leases]
        if not held.vaults and fault is not None:
            raise fault
        yield held
