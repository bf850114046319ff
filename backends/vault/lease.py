"""Leases: one run at a time on one asset in one vault, wherever the runs are (docs/leases.md).

A lease expires when it is not renewed, by the vault's own clock, so that a dead run never stops backups for longer.
Safety is not left to clocks: whoever was overtaken is told so by the vault, at the next renewal and at `check`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from backends.errors import LeaseLost, Locked, MastovaultError, VaultError
from backends.vault.base import Vault
from backends.vault.lease_claim import Claim
from backends.vault.lease_clock import MachineTicker, Ticker
from backends.vault.lease_owner import LIVE, is_gone
from backends.vault.lease_place import Busy, Contested, Place
from backends.vault.lease_record import TTL, Holder, Record, holder, new_record, remembered
from backends.vault.lease_slots import Slots

__all__ = ["TTL", "Holder", "Lease", "end_gone", "forget_lease", "lease_holder", "take_lease"]

_PATIENCE = 15.0
"""Seconds for which several who want a lease at the same moment try again."""
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 5.0


class Way(Protocol):
    """How a lease is kept in a kind of vault."""

    place: Place
    record: Record
    previous: tuple[str, ...]

    def take(self) -> None:
        """Take it. Raises `Busy`, `Contested`, `VaultError`."""

    def renew(self) -> None:
        """Show that we are alive, and look whether it is still ours. Raises `LeaseLost`, `VaultError`."""

    def check(self) -> None:
        """Look whether it is still ours. Raises `LeaseLost`, `VaultError`."""

    def release(self, wrote: Sequence[str]) -> None:
        """Let go of it. Raises `VaultError`."""


class Lease:
    """A lease that this process holds; renewed by a thread of its own."""

    def __init__(self, way: Way, ttl: timedelta, ticker: Ticker, taken: float) -> None:
        self.previous: tuple[str, ...] = way.previous
        """Ids of snapshots that the last holders wrote: a listing may not show them yet."""
        self._way, self._ttl, self._ticker = way, ttl.total_seconds(), ticker
        self._until = taken + self._ttl
        self._why: LeaseLost | None = None
        self._released = False
        self._lock = threading.Lock()
        self._end = threading.Event()

    @property
    def name(self) -> str:
        """`<host>/<asset>/write`."""
        return self._way.place.name

    def check(self) -> None:
        """Make sure that the lease is held at this moment, by asking the vault.

        Raises:
            LeaseLost: it was taken over, or could not be renewed in time.
            VaultError: the vault cannot be asked.
        """
        with self._lock:
            if self._released:
                raise LeaseLost(f"the lease of {self.name} was released", "Report this as a bug.")
            if self._why is not None:
                raise self._why
            try:
                if self._ticker.now() < self._until:
                    self._way.check()
                else:
                    self._renew()
            except LeaseLost as error:
                self._why = error
                raise
            except VaultError as error:
                if self._ticker.now() < self._until:
                    raise
                self._why = LeaseLost(
                    f"the lease of {self.name} in the vault {self._way.place.vault.name} could not be renewed in time: "
                    f"{error.sentence}",
                    "Start the run again when that vault answers.",
                )
                raise self._why from error

    @property
    def knows_time(self) -> bool:
        """Whether `now` is the vault's time; where a listing lags it may be this machine's for a while."""
        return self._way.place.clock.known

    def now(self) -> datetime:
        """The time by the vault's clock."""
        return self._way.place.clock.now()

    def renew(self) -> None:
        """Renew it now; the thread does that by itself. Raises `LeaseLost`, `VaultError`."""
        with self._lock:
            if self._why is not None:
                raise self._why
            try:
                self._renew()
            except LeaseLost as error:
                self._why = error
                raise

    def wrote(self, snapshot_id: str) -> None:
        """Remember a snapshot that is about to be listed, for those who hold the lease next."""
        with self._lock:
            self._way.record = replace(self._way.record, wrote=remembered(self._way.record.wrote, (snapshot_id,)))

    def release(self, wrote: Sequence[str] = ()) -> None:
        """Let go of it, and tell the next holder which snapshots were written. Never raises."""
        self._end.set()
        with self._lock:
            if self._released:
                return
            self._released = True
            with suppress(MastovaultError):  # then it expires
                self._way.release(wrote)
            LIVE.discard(self._way.record.token)

    def abandon(self) -> None:
        """Leave it to its expiry without asking the vault: it hangs, and whoever renews may hang with it."""
        self._end.set()
        self._released = True  # without the lock: who hangs may have it
        LIVE.discard(self._way.record.token)

    def keep(self) -> None:
        """Begin to renew it, in a thread."""
        threading.Thread(target=self._keep, name=f"lease {self.name}", daemon=True).start()

    def _keep(self) -> None:
        pause = self._ttl / 3
        while not self._end.wait(pause):
            with self._lock:
                if self._released or self._why is not None:
                    return
                try:
                    self._renew()
                    pause = self._ttl / 3
                except LeaseLost as error:
                    self._why = error
                except VaultError:
                    pause = self._ttl / 12
                except Exception as error:  # noqa: BLE001 - the run must hear of it
                    self._why = LeaseLost(
                        f"the lease of {self.name} could not be renewed: {type(error).__name__}", "See the run's log."
                    )

    def _renew(self) -> None:
        began = self._ticker.now()
        self._way.renew()
        self._until = began + self._ttl


def take_lease(
    vault: Vault,
    name: str,
    *,
    run: str,
    doing: str,
    ttl: timedelta = TTL,
    wait: float = 0.0,
    ticker: Ticker | None = None,
) -> Lease:
    """Take a lease, and keep it renewed until it is released.

    Args:
        vault: where it is.
        name: `<host>/<asset>/write` or `<host>/<asset>/sync`.
        run: the id of the run, for whoever comes second.
        doing: what the run does with the asset, after "is being".
        ttl: how long it lasts without a renewal; at most 15 minutes.
        wait: seconds to wait for somebody else's.
        ticker: another clock than this machine's; then nothing renews it by itself.

    Raises:
        Locked: somebody else holds it; the sentence says who.
        VaultError: it cannot be written, or not be seen, in this vault.
    """
    clock = ticker or MachineTicker()
    began = clock.now()
    exclusive = vault.exclusive()
    pause = _FIRST_PAUSE
    while True:
        taken = clock.now()
        try:
            lease = _attempt(Place(vault, name, clock), exclusive, run, doing, ttl, taken)
        except Busy as busy:
            patience = max(wait, _PATIENCE) if isinstance(busy, Contested) else wait
            if clock.now() - began >= patience:
                raise _locked(busy.record, name, vault) from None
            clock.sleep(pause * (0.5 + clock.chance()))
            pause = min(pause * 1.6, _LAST_PAUSE)
        else:
            if ticker is None:
                lease.keep()
            return lease


def end_gone(vault: Vault, name: str) -> None:
    """End the lease that a process of this machine holds which is gone. Raises `VaultError`.

    Others would wait for its expiry; this machine alone knows better.
    """
    place = Place(vault, name, MachineTicker())
    view = place.look()
    held = [beats[max(beats)].key for token, beats in view.held.items() if not view.is_over(token)]
    held += [place.slot(view.top)] if view.top else []
    for key in held:
        record = place.get(key)
        if record is not None and record.state == "held" and is_gone(record.owner, record.token):
            with suppress(Locked):
                take_lease(vault, name, run=record.run, doing=record.doing).release()
            return


def _attempt(place: Place, exclusive: bool, run: str, doing: str, ttl: timedelta, taken: float) -> Lease:
    token = place.ticker.token()
    record = new_record(token, run=run, doing=doing, ttl=ttl)
    way: Way = Slots(place, record) if exclusive else Claim(place, record)
    LIVE.add(token)
    try:
        way.take()
    except BaseException:
        LIVE.discard(token)
        raise
    return Lease(way, record.ttl, place.ticker, taken)


def _locked(record: Record, name: str, vault: Vault) -> Locked:
    minutes = max(1, round(record.ttl.total_seconds() / 60))
    return Locked(
        holder(record, name, vault.name).sentence,
        f"Wait for it. If that machine is gone for good, its lease ends by itself within {minutes} minutes.",
    )


def forget_lease(vault: Vault, name: str) -> None:
    """Remove every object of a lease whose name nobody takes again, where that is allowed. Never raises."""
    with suppress(MastovaultError):
        place = Place(vault, name, MachineTicker())
        place.remove(place.look().objects)


def lease_holder(vault: Vault, name: str, now: datetime | None = None) -> Holder | None:
    """Who seems to hold a lease, without writing anything.

    Args:
        vault: where it is.
        name: which.
        now: the vault's time; without it the lease's age is judged by this machine's clock, if loosely.

    Raises:
        VaultError: the vault cannot be read.
    """
    place = Place(vault, name, MachineTicker())
    view, now = place.look(), now or datetime.now(UTC)
    with suppress(Contested):
        for other in place.holders(view, now, ""):
            return holder(other, name, vault.name)
    last = place.get(place.slot(view.top)) if view.top else None
    if last is None or place.is_free(last, view.slots[view.top], now):
        return None
    return holder(last, name, vault.name)
