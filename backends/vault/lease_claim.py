"""Leases where `put_new` may replace: each writes only names of its own, and looks at the others' (docs/leases.md).

First a claim is written and the others' are looked at: who holds the lease keeps it, and of two claims the smaller one
goes on. Then the lease is written and looked at again: of two who both wrote it, at least the later one sees the
other and gives way. Both may.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from backends.errors import LeaseLost, VaultError
from backends.vault.base import StoredObject
from backends.vault.lease_place import Busy, Contested, Place, View
from backends.vault.lease_record import UNKNOWN, Record, remembered

_SETTLE = 0.1
"""Seconds between writing and looking."""
_SHOWN_WITHIN = 60.0
"""Seconds after which a listing must show what was written; else nobody can be kept apart there."""


class Claim:
    """One run's way to a lease by claim and confirmation."""

    def __init__(self, place: Place, record: Record) -> None:
        self.place = place
        self.record = record
        self.beat = 0
        self._written = 0.0
        """When our last object had been written, by the ticker."""
        self._seen = View()
        """What was there when we took it."""
        self.previous: tuple[str, ...] = ()

    def take(self) -> None:
        """Take the lease. Raises `Busy`, `Contested`, `VaultError`; then nothing is held."""
        token = self.record.token
        try:
            self._put(self.place.claim(token), self.record)
            view = self._shown(self.place.claim(token))
            self._give_way(view)
            for other, stored in view.claims.items():
                if other < token and other not in view.held and not view.is_over(other):
                    self._yield_to(stored)
            self._beat()
            view = self._shown(self.place.held(token, self.beat))
            self._contest(view)
            self._seen = view
            self._remember(view)
        except (Busy, VaultError):
            self._withdraw()
            raise
        self.place.remove([self.place.claim(token)])
        self.place.sweep(view, self.place.clock.now(), token, 0, self.record.ttl)

    def renew(self) -> None:
        """Write the next beat, and look before and after. Raises `LeaseLost`, `VaultError`."""
        before = self.beat
        self._alone(self.place.look())
        self._beat()
        view = self._noted(self.place.held(self.record.token, self.beat))
        try:
            self._alone(view)
        except LeaseLost:
            self._withdraw()
            raise
        # one beat stays behind: who lists late still finds it, and the next one by its key
        self.place.remove(stored.key for beat, stored in view.held.get(self.record.token, {}).items() if beat < before)
        self.place.sweep(view, self.place.clock.now(), self.record.token, 0, self.record.ttl)

    def check(self) -> None:
        """Ask the vault whether the lease is still ours. Raises `LeaseLost`, `VaultError`."""
        self._alone(self.place.look())

    def release(self, wrote: Sequence[str]) -> None:
        """Say that it is over: whoever comes next need not wait. Raises `VaultError`."""
        token = self.record.token
        last = replace(self.record, state="released", wrote=remembered(self.record.wrote, wrote))
        self.place.put_surely(self.place.done(token), last)
        self.place.remove(self._beats())

    def _beats(self) -> list[str]:
        """The beats that may be there: one stays behind, and one may have been written without an answer."""
        return [self.place.held(self.record.token, beat) for beat in range(max(1, self.beat - 1), self.beat + 2)]

    def _beat(self) -> None:
        self._put(self.place.held(self.record.token, self.beat + 1), replace(self.record, state="held"))
        self.beat += 1

    def _put(self, key: str, record: Record) -> None:
        self.place.put_surely(key, record)
        self._written = self.place.ticker.now()

    def _noted(self, mine: str) -> View:
        """List, and set the clock by the object that we wrote last when it is shown."""
        view = self.place.look()
        if mine in view.objects:
            self.place.clock.note(view.objects[mine].modified_at, self._written)
        return view

    def _shown(self, mine: str) -> View:
        """List until an object of ours is shown; when that took a while, once more after twice as long again.

        So a vault whose listing lags is safe as long as no object takes more than three times as long as another one.
        Raises `Contested`, `VaultError`.
        """
        ticker = self.place.ticker
        began, pause = ticker.now(), _SETTLE
        ticker.sleep(pause)
        view = self._noted(mine)
        lagged = mine not in view.objects
        while mine not in view.objects:
            if self.place.get(mine) is None:  # somebody whose clock was set took it for an old one
                raise Contested(UNKNOWN)
            if ticker.now() - began > _SHOWN_WITHIN:
                raise VaultError(
                    f"the vault {self.place.vault.name} does not show what was just written to it",
                    "Two runs cannot be kept apart there. Try again later, or use another vault.",
                )
            ticker.sleep(pause)
            pause = min(pause * 2, 5.0)
            view = self._noted(mine)
        if lagged:
            ticker.sleep(2 * (ticker.now() - began))
            view = self.place.look()
        return view

    def _give_way(self, view: View) -> None:
        """Raise `Busy` or `Contested` when somebody else holds the lease."""
        now = self.place.clock.now()
        for other in self.place.holders(view, now, self.record.token):
            raise Busy(other)
        last = self._in_slots(view, now)
        if last is not None:
            raise Busy(last)

    def _contest(self, view: View) -> None:
        """As `_give_way`; but who wrote it just when we did may be giving way as well, so it is worth another try."""
        try:
            self._give_way(view)
        except Busy as busy:
            raise Contested(busy.record) from None

    def _in_slots(self, view: View, now: datetime) -> Record | None:
        """Who holds the lease by slots: a run for which this vault's `put_new` is atomic."""
        if not view.top:
            return None
        last = self.place.get(self.place.slot(view.top))
        if last is None:
            raise Contested(UNKNOWN)
        return None if self.place.is_free(last, view.slots[view.top], now) else last

    def _yield_to(self, stored: StoredObject) -> None:
        """Raise `Contested` for a smaller claim that is still meant."""
        record = self.place.get(stored.key)
        if record is not None and not self.place.is_free(record, stored, self.place.clock.now()):
            raise Contested(record)

    def _alone(self, view: View) -> None:
        """Raise `LeaseLost` when a listing shows that somebody else has, or had, the lease."""
        if not self.place.alone(view, self._seen, self.record.token):
            raise self.place.lost()

    def _remember(self, view: View) -> None:
        """What those before wrote."""
        self.previous = remembered(*(each.wrote for each in self.place.before(view, self.record.token)))
        self.record = replace(self.record, wrote=self.previous)

    def _withdraw(self) -> None:
        """Give way: remove what was written, or say that it is over where nothing may be removed."""
        token = self.record.token
        if not self.place.remove([self.place.claim(token), *self._beats()]):
            with suppress(VaultError):
                self.place.put_surely(self.place.gone(token), replace(self.record, state="released"))
