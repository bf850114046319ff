"""Leases where `put_new` is atomic: numbered slots, each of which only one can write (docs/leases.md).

To take, to renew and to release the lease is to write the next number. Whoever is overtaken finds its number taken,
however long it slept and whatever a listing shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from backends.errors import AlreadyExists, VaultError
from backends.vault.lease_place import Busy, Contested, Place, View
from backends.vault.lease_record import UNKNOWN, Record, remembered


class Slots:
    """One run's way through the slots of a lease."""

    def __init__(self, place: Place, record: Record) -> None:
        self.place = place
        self.record = record
        self.number = 0
        self._written = 0.0
        """When our slot had been written, by the ticker."""
        self._seen = View()
        """What was there when we took it."""
        self.previous: tuple[str, ...] = ()

    def take(self) -> None:
        """Take the lease. Raises `Busy`, `Contested`, `VaultError`; then nothing is held."""
        view = self.place.look()
        if view.holders - set(view.done):
            self._give_way(*self._probe())
        self.number = self._climb(view)
        try:
            self._settle()
        except (Busy, VaultError):
            self._give_back()
            raise

    def renew(self) -> None:
        """Write the next slot. Raises `LeaseLost`, `VaultError`."""
        self._advance(replace(self.record, state="held"))
        view = self._noted()
        self._alone(view)
        self.place.sweep(view, self.place.clock.now(), self.record.token, self.number, self.record.ttl)

    def check(self) -> None:
        """Ask the vault whether the lease is still ours. Raises `LeaseLost`, `VaultError`."""
        while (following := self.place.get(self.place.slot(self.number + 1))) is not None:
            if following.token != self.record.token:
                raise self.place.lost()
            self.number += 1  # a renewal that was thought to have failed
        self._alone(self.place.look())

    def release(self, wrote: Sequence[str]) -> None:
        """Write the last slot: whoever comes next need not wait. Raises `LeaseLost`, `VaultError`."""
        self._advance(replace(self.record, state="released", wrote=remembered(self.record.wrote, wrote)))

    def _climb(self, view: View) -> int:
        """Write the slot after the last one, once that is free. Raises `Busy`, `VaultError`."""
        number = view.top
        while True:
            last = self._read(number)
            if last is not None and not self.place.is_free(last, None, None):
                top = self._overtakes(number, last)
                if top > number:
                    number = top
                    continue
            if self._write(number + 1):
                self._written = self.place.ticker.now()
                self.previous = last.wrote if last is not None else ()
                self.record = replace(self.record, wrote=self.previous)
                return number + 1
            number += 1

    def _read(self, number: int) -> Record | None:
        """What the slot says from which we go on; None before the first. Raises `Contested`, `VaultError`."""
        if not number:
            return None
        found = self.place.get(self.place.slot(number))
        if found is None:  # removed since it was listed, for there are later ones
            raise Contested(UNKNOWN)
        return found

    def _overtakes(self, number: int, last: Record) -> int:
        """Look whether a slot that somebody holds has expired; returns the number to go on from.

        Raises:
            Busy: it has not.
        """
        view, now = self._probe()
        if view.top > number:
            return view.top
        if not self.place.is_free(last, view.slots.get(number), now):
            raise Busy(last)
        return number

    def _probe(self) -> tuple[View, datetime | None]:
        """List, and tell what time it is at the vault; None where it does not show what was just written."""
        key = self.place.claim(self.record.token)
        try:
            self.place.put_surely(key, self.record)
            view = self.place.look()
        finally:
            self.place.remove([key])
        probe = view.claims.get(self.record.token)
        return view, probe.modified_at if probe else None

    def _give_way(self, view: View, now: datetime | None) -> None:
        """Raise `Busy` when somebody holds the lease without slots."""
        for other in self.place.holders(view, now, self.record.token):
            raise Busy(other)

    def _write(self, number: int) -> bool:
        """Write a slot; False when somebody else has. Raises `VaultError`."""
        held = replace(self.record, state="held")
        try:
            self.place.put(self.place.slot(number), held)
        except AlreadyExists:
            return self._is_mine(number)
        except VaultError:
            with suppress(VaultError):
                if self._is_mine(number):
                    return True
            raise
        return True

    def _is_mine(self, number: int) -> bool:
        found = self.place.get(self.place.slot(number))
        return found is not None and found.token == self.record.token

    def _advance(self, record: Record) -> None:
        """Write the slot after ours. Raises `LeaseLost` when somebody else has, `VaultError`."""
        key = self.place.slot(self.number + 1)
        try:
            self.place.put(key, record)
        except AlreadyExists:
            found = self.place.get(key)
            if found is None or found.token != self.record.token:
                raise self.place.lost() from None
            if found.state != record.state:  # a renewal that was thought to have failed
                self.number += 1
                self._advance(record)
                return
        self.number += 1
        self._written = self.place.ticker.now()

    def _noted(self) -> View:
        """List, and set the clock by our slot when it is shown."""
        view = self.place.look()
        mine = view.slots.get(self.number)
        if mine is not None:
            self.place.clock.note(mine.modified_at, self._written)
        return view

    def _settle(self) -> None:
        """Look whether somebody holds the lease without slots. Raises `Busy`, `VaultError`."""
        view = self._noted()
        if view.top > self.number:
            raise Contested(UNKNOWN)
        self._give_way(view, self.place.clock.now())
        self._seen = view
        if view.holders:
            self.previous = remembered(
                *(each.wrote for each in self.place.before(view, self.record.token)), self.previous
            )
            self.record = replace(self.record, wrote=self.previous)
        self.place.sweep(view, self.place.clock.now(), self.record.token, self.number, self.record.ttl)

    def _alone(self, view: View) -> None:
        """Raise `LeaseLost` when a listing shows that somebody else has, or had, the lease."""
        if view.top > self.number or not self.place.alone(replace(view, slots={}), self._seen, self.record.token):
            raise self.place.lost()

    def _give_back(self) -> None:
        with suppress(VaultError):
            self.release(())
