"""Leases of those who read a snapshot for long: whoever removes leaves the asset alone meanwhile (docs/leases.md).

Readers do not keep each other out, nor backups: each has a lease of its own name, below `<host>/<asset>/read/`. A
reader takes it and then looks for somebody who removes; who removes takes the `sync` lease and then looks for readers.
So at least one of the two sees the other.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from backends.errors import Locked, MastovaultError
from backends.model import Asset
from backends.operations.leases import name_of
from backends.vault.base import StoredObject, Vault
from backends.vault.format import read_format
from backends.vault.lease import TTL, Lease, forget_lease, lease_holder, take_lease
from backends.vault.lease_clock import is_over
from backends.vault.lease_place import LEASES
from backends.vault.lease_record import MAX_TTL

REMOVING = frozenset({"pruned", "encrypted anew"})
"""What those do with an asset who may remove snapshots of it; docs/leases.md."""
_PATIENCE = 30.0
"""Seconds to wait for somebody who removes: he leaves as soon as he sees us."""
_PAUSE = 0.5
_TOKEN = re.compile(r"[0-9a-f]{16}")


class Reading:
    """The reading leases of one run; where one cannot be written, that is said once, and reading goes on."""

    def __init__(
        self,
        run: str,
        doing: str,
        log: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
        ttl: timedelta = TTL,
        patience: float = _PATIENCE,
    ) -> None:
        self._run, self._doing, self._log, self._check = run, doing, log, check
        self._ttl, self._patience = ttl, patience
        self._leases: dict[tuple[str, str, Asset], tuple[Vault, Lease]] = {}
        self._without: set[str] = set()
        """Vaults that take none."""

    def hold(self, vault: Vault, host: str, asset: Asset) -> None:
        """Keep what a vault has of an asset from being removed; best before its manifest is read.

        Raises `Cancelled`, never for the vault's fault.
        """
        place = (vault.name, host, asset)
        if place in self._leases or vault.name in self._without:
            return
        try:
            if read_format(vault) is None:  # nothing to read, and nothing to be made where a disk is not mounted
                return
            name = f"{_above(host, asset)}{secrets.token_hex(8)}"
            self._leases[place] = (
                vault,
                take_lease(vault, name, run=self._run, doing=self._doing, ttl=self._ttl),
            )
            self._let_go(vault, host, asset)
        except MastovaultError as error:
            self._check()
            self._without.add(vault.name)
            self._log(f"note: a prune of {vault.name} at the same time is not kept out: {error.sentence}")

    def release(self) -> None:
        """Let go of all. Never raises."""
        while self._leases:
            _, (vault, lease) = self._leases.popitem()
            lease.release()
            forget_lease(vault, lease.name)

    def _let_go(self, vault: Vault, host: str, asset: Asset) -> None:
        """Wait until nobody removes any more. Raises `VaultError`, `Cancelled`."""
        until = time.monotonic() + self._patience
        told = False
        while (holder := lease_holder(vault, name_of(host, asset, "sync"))) and holder.doing in REMOVING:
            if time.monotonic() >= until:
                self._log(f"note: {holder.sentence}: what goes there cannot be read any more")
                return
            if not told:
                self._log(f"{holder.sentence}; waiting a moment")
                told = True
            self._check()
            time.sleep(_PAUSE)


@contextmanager
def reading(
    run: str, doing: str, log: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> Iterator[Reading]:
    """Reading leases for as long as the block runs.

    Args:
        run: for whoever would remove.
        doing: what the run does with an asset, after "is being".
        log: told of vaults that take no lease.
        check: raises when the operator asked to stop.
    """
    leases = Reading(run, doing, log, check)
    try:
        yield leases
    finally:
        leases.release()


def require_unread(vault: Vault, host: str, asset: Asset, now: datetime) -> None:
    """Look whether somebody reads an asset for long; who removes holds the `sync` lease by then.

    Args:
        vault: where.
        host: whose asset.
        asset: which.
        now: the vault's time.

    Raises:
        Locked: somebody does; the sentence says who.
        VaultError: the vault cannot be asked.
    """
    last: dict[str, StoredObject] = {}
    above = f"{LEASES}{_above(host, asset)}"
    for stored in vault.list(above):
        token = stored.key.removeprefix(above).partition("/")[0]
        if not _TOKEN.fullmatch(token):
            continue
        name = _above(host, asset) + token
        if name not in last or stored.modified_at > last[name].modified_at:
            last[name] = stored
    for name, stored in last.items():
        if is_over(stored.modified_at, now, MAX_TTL):
            forget_lease(vault, name)
            continue
        holder = lease_holder(vault, name, now)
        if holder is not None:
            raise Locked(
                f"{host}/{asset} is being {holder.doing or 'read'} by {holder.user} on {holder.host}, run {holder.run} "
                f"(pid {holder.pid}), since {holder.since}: nothing of it goes from {vault.name} meanwhile",
                "It goes later. If that machine is gone for good, its lease ends by itself within minutes.",
            )


def _above(host: str, asset: Asset) -> str:
    return f"{host}/{asset.value}/read/"
