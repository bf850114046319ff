"""Two clocks that a lease needs: one of this machine that counts sleep too, and the vault's own."""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_WHOLE_SECONDS = timedelta(seconds=1)


class Ticker(Protocol):
    """Where seconds, pauses and chance come from; of this machine, or of a test."""

    def now(self) -> float:
        """Seconds since some moment; only differences count."""
        ...

    def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        ...

    def chance(self) -> float:
        """A random number from 0 to 1."""
        ...

    def token(self) -> str:
        """16 random hex digits."""
        ...


class MachineTicker:
    """This machine's seconds since boot; the time that it was suspended counts, which `time.monotonic` leaves out."""

    def now(self) -> float:
        """Seconds since boot (clock_gettime(2), CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def chance(self) -> float:
        """A random number from 0 to 1."""
        return random.random()  # noqa: S311 - so that two do not try again at the same moment

    def token(self) -> str:
        """16 random hex digits."""
        return secrets.token_hex(8)


class VaultClock:
    """What time it is at the vault: the modification time of something just written there, and the seconds since."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._known: tuple[datetime, float] | None = None

    @property
    def known(self) -> bool:
        """Whether the vault has shown its own time."""
        return self._known is not None

    def note(self, modified_at: datetime, ticks: float) -> None:
        """Something that was written by `ticks` (of the ticker) has this modification time."""
        self._known = modified_at, ticks

    def now(self) -> datetime:
        """The vault's time; this machine's as long as the vault has not shown its own."""
        if self._known is None:
            return datetime.now(UTC)
        modified_at, ticks = self._known
        return modified_at + timedelta(seconds=self._ticker.now() - ticks)


def is_over(modified_at: datetime, now: datetime, ttl: timedelta) -> bool:
    """Whether what was last written at one time of the vault has expired at another time of the same clock.

    A time in the future is as far away as one in the past: a vault whose clock was set back must not lock for days. The
    holder of a lease counts from before it wrote, so it always ends first; a tenth covers clocks that run unevenly,
    and whole seconds (S3, SFTP) are as wrong as they are coarse.
    """
    slack = ttl / 10
    if not modified_at.microsecond or not now.microsecond:
        slack += _WHOLE_SECONDS
    return abs(now - modified_at) > ttl + slack
