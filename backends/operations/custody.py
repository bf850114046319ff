"""Custody: whether somebody is known to keep the recovery identity, and since when nobody has looked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backends.config.schema import Encryption
from backends.errors import ConfigurationError
from backends.risk import CUSTODY_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """What is known of the recovery identity's keeping. `at` is None when nobody wrote it down."""

    confirmed: bool
    at: datetime | None = None
    seconds: float | None = None
    """Since then."""

    @property
    def due(self) -> bool:
        """Whether it should be confirmed, for the first time or again."""
        return not self.confirmed or self.seconds is None or self.seconds > CUSTODY_SECONDS


def custody_of(encryption: Encryption, now: datetime) -> Custody:
    """Custody as the configuration has it. A time without a zone is taken for UTC, one to come for now."""
    if encryption.recovery is None or encryption.custody_confirmed != encryption.recovery:
        return Custody(confirmed=False)
    at = encryption.custody_confirmed_at
    if at is None:
        return Custody(confirmed=True)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return Custody(confirmed=True, at=at, seconds=max(timedelta(), now - at).total_seconds())


def confirm_custody(config_file: Path, encryption: Encryption, now: datetime) -> None:
    """Record that somebody had the recovery identity in hand. Raises `ConfigurationError`."""
    if not encryption.recovery:
        raise ConfigurationError("there is no recovery recipient", "`mastovault key rotate --recovery` makes one.")
    from backends.config.save_keys import change_keys  # late: ranking the fleet writes nothing

    change_keys(
        config_file,
        {"custody_confirmed": encryption.recovery, "custody_confirmed_at": now.astimezone(UTC).replace(microsecond=0)},
    )
