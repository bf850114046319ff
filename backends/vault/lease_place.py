"""Where the objects of one lease are in a vault, and what they show at a moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backends.errors import LeaseLost, MastovaultError, NotFound, VaultDenied, VaultError, VaultFull
from backends.vault.base import StoredObject, Vault
from backends.vault.lease_clock import Ticker, VaultClock, is_over
from backends.vault.lease_owner import is_gone
from backends.vault.lease_record import MAX_BYTES, UNKNOWN, Record, encode, parse
from backends.vault.names import check_key

LEASES = "leases/"
LAST_SLOT = 10**12 - 1
_LOOKS = 4
_PAUSE = 0.25
"""Seconds between looks at somebody who may be giving way."""
_SLOTS_KEPT = 8
_DONE_READ = 2
_KEPT = 12
"""How many times its ttl an object that is over stays: longer than any listing lags."""
_OBJECT = re.compile(
    r"slots/(?P<slot>\d{12})\.json|claims/(?P<claim>[0-9a-f]{16})\.json"
    r"|held/(?P<held>[0-9a-f]{16})-(?P<beat>\d{6})\.json|done/(?P<done>[0-9a-f]{16})\.json"
    r"|gone/(?P<gone>[0-9a-f]{16})\.json"
)


class Busy(Exception):
    """Somebody else holds the lease."""

    def __init__(self, record: Record) -> None:
        super().__init__(record.run)
        self.record = record


class Contested(Busy):
    """Somebody else wants the lease at the same moment; it may be free soon."""


@dataclass(slots=True)
class View:
    """What a listing shows of one lease."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    """All of it, by key."""
    slots: dict[int, StoredObject] = field(default_factory=dict)
    claims: dict[str, StoredObject] = field(default_factory=dict)
    held: dict[str, dict[int, StoredObject]] = field(default_factory=dict)
    """By token: the beats, each of which renewed it."""
    done: dict[str, StoredObject] = field(default_factory=dict)
    """Who held it and let go of it."""
    gone: dict[str, StoredObject] = field(default_factory=dict)
    """Who never held it after all, where nothing may be removed."""

    @property
    def top(self) -> int:
        """The number of the last slot; 0 without one."""
        return max(self.slots, default=0)

    @property
    def holders(self) -> set[str]:
        """Tokens of those who hold the lease without slots, or held it."""
        return (set(self.held) | set(self.done)) - set(self.gone)

    def is_over(self, token: str) -> bool:
        """Whether its run has said that it is through with a token."""
        return token in self.done or token in self.gone


class Place:
    """The objects of one lease of one vault."""

    def __init__(self, vault: Vault, name: str, ticker: Ticker) -> None:
        self.vault, self.name, self.ticker = vault, name, ticker
        self.clock = VaultClock(ticker)
        self.prefix = check_key(f"{LEASES}{name}") + "/"
        self._may_delete = True

    def slot(self, number: int) -> str:
        """The key of a slot."""
        if number > LAST_SLOT:
            raise VaultError(
                f"the numbers of the lease {self.name} in the vault {self.vault.name} have run out",
                f"Somebody changed it by hand. When no run is at work, delete {self.prefix} there.",
            )
        return f"{self.prefix}slots/{number:012}.json"

    def claim(self, token: str) -> str:
        """The key of a claim."""
        return f"{self.prefix}claims/{token}.json"

    def held(self, token: str, beat: int) -> str:
        """The key of a held lease's beat."""
        return f"{self.prefix}held/{token}-{beat:06}.json"

    def done(self, token: str) -> str:
        """The key that says that a run held the lease and let go of it."""
        return f"{self.prefix}done/{token}.json"

    def gone(self, token: str) -> str:
        """The key that says that a run never held the lease, whatever it wrote."""
        return f"{self.prefix}gone/{token}.json"

    def look(self) -> View:
        """List. Raises `VaultError`."""
        view = View()
        for stored in self.vault.list(self.prefix):
            match = _OBJECT.fullmatch(stored.key.removeprefix(self.prefix))
            if match is None:
                continue
            view.objects[stored.key] = stored
            if match["slot"]:
                view.slots[int(match["slot"])] = stored
            elif match["claim"]:
                view.claims[match["claim"]] = stored
            elif match["held"]:
                view.held.setdefault(match["held"], {})[int(match["beat"])] = stored
            elif match["done"]:
                view.done[match["done"]] = stored
            else:
                view.gone[match["gone"]] = stored
        return view

    def get(self, key: str) -> Record | None:
        """What an object says; None when it is not there. Raises `VaultError`."""
        try:
            with self.vault.read(key) as stored:
                return parse(stored.read(MAX_BYTES + 1))
        except NotFound:
            return None

    def put(self, key: str, record: Record) -> None:
        """Write an object that must be new; a full vault must take it too, or nobody could prune it.

        Raises `AlreadyExists`, `VaultError`.
        """
        try:
            self.vault.put_new(key, encode(record))
        except VaultFull:
            if not self._make_room():
                raise
            self.vault.put_new(key, encode(record))

    def _make_room(self) -> bool:
        """Remove what is over, but for the last two, in place of what is to be written. Raises `VaultError`."""
        view = self.look()
        done = sorted(view.done.values(), key=lambda each: each.modified_at)
        old = [view.slots[number] for number in sorted(view.slots)[:-_DONE_READ]] + done[:-_DONE_READ]
        return bool(old) and self.remove(stored.key for stored in old)

    def put_surely(self, key: str, record: Record) -> None:
        """Write an object whose key nobody else uses; a fault after it was done does not count. Raises `VaultError`."""
        try:
            self.put(key, record)
        except VaultError:
            found = self.get(key)
            if found is None or found.token != record.token:
                raise

    def remove(self, keys: Iterable[str]) -> bool:
        """Delete objects in so far as that is allowed; whether all are gone. Never raises for the vault's fault."""
        gone = True
        for key in keys:
            if not self._may_delete:
                return False
            try:
                self.vault.delete(key)
            except VaultDenied:
                self._may_delete = False
            except MastovaultError:
                gone = False
        return gone and self._may_delete

    def is_free(self, record: Record, stored: StoredObject | None, now: datetime | None) -> bool:
        """Whether a record keeps nobody out any more; what is not listed has not expired."""
        if record.state == "released" or is_gone(record.owner, record.token):
            return True
        return stored is not None and now is not None and is_over(stored.modified_at, now, record.ttl)

    def holders(self, view: View, now: datetime | None, mine: str) -> Iterator[Record]:
        """Those others who hold the lease without slots. Raises `Contested` when one vanishes while it is looked at."""
        for token, beats in view.held.items():
            if token == mine or view.is_over(token):
                continue
            last = max(beats)
            record = self.get(beats[last].key)
            if record is not None and is_gone(record.owner, record.token):
                continue
            if record is None or self.is_free(record, beats[last], now):
                # a listing may lag behind a renewal, a key does not
                later = self.get(self.held(token, last + 1))
                if record is None and later is None:
                    raise Contested(UNKNOWN)
                record = later
            if record is not None:
                yield record

    def alone(self, view: View, seen: View, mine: str) -> bool:
        """Whether nobody else has held the lease since a run took it, and saw this then.

        It does not matter whether they still do. One that is just giving way may take a moment.
        """
        for _ in range(_LOOKS):
            if view.top > seen.top:
                return False
            if not view.holders - seen.holders - {mine}:
                return True
            self.ticker.sleep(_PAUSE)
            view = self.look()
        return False

    def lost(self) -> LeaseLost:
        """What to say to a holder that was overtaken."""
        return LeaseLost(
            f"another run took over the lease of {self.name} in the vault {self.vault.name}",
            "Was this machine asleep, or cut off? Start the run again.",
        )

    def before(self, view: View, mine: str) -> Iterator[Record]:
        """The last of those who held it: each remembers what those before it wrote."""
        done = sorted(view.done.values(), key=lambda each: each.modified_at)[-_DONE_READ:]
        keys = [stored.key for stored in done]
        keys += [
            beats[max(beats)].key for token, beats in view.held.items() if not view.is_over(token) and token != mine
        ]
        keys += [self.slot(view.top)] if view.top else []
        for key in keys:
            record = self.get(key)
            if record is not None:
                yield record

    def sweep(self, view: View, now: datetime, mine: str, below: int, ttl: timedelta) -> None:
        """Remove what has been over for long; of the slots only those far below the holder's."""
        last = below - _SLOTS_KEPT
        old = [stored.key for number, stored in view.slots.items() if number < last and _is_old(stored, now, ttl)]
        for some in (view.claims, view.done, view.gone):
            old += [stored.key for token, stored in some.items() if token != mine and _is_old(stored, now, ttl)]
        for token, beats in view.held.items():
            if token != mine and all(_is_old(stored, now, ttl) for stored in beats.values()):
                old += [stored.key for stored in beats.values()]
        self.remove(old)


def _is_old(stored: StoredObject, now: datetime, ttl: timedelta) -> bool:
    return is_over(stored.modified_at, now, ttl * _KEPT)
