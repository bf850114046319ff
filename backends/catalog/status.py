"""How a vault is, as the last look at it found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultStatus:
    """How the last look at a vault went; `error` is empty when it answered.

    `bytes` is all that is stored in it. `unreadable` counts manifests and records that could not be understood:
    they are not listed, and `warning` says so.
    """

    name: str
    where: str
    offsite: bool
    read_at: datetime | None
    error: str = ""
    free_bytes: int | None = None
    snapshots: int = 0
    bytes: int = 0
    unreadable: int = 0
    warning: str = ""
    machine_id: str | None = None
