"""The fleet as the screens show it: every asset of every host with its age, risk and reasons."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backends.model import AssetStatus, HostObservation


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultStatus:
    """How the last look at a vault went; `error` is empty when it answered."""

    name: str
    where: str
    offsite: bool
    read_at: datetime | None
    error: str = ""
    free_bytes: int | None = None
    snapshots: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All rows, worst first, with the hosts and vaults behind them."""

    generated_at: datetime
    assets: tuple[AssetStatus, ...]
    hosts: tuple[HostObservation, ...]
    vaults: tuple[VaultStatus, ...]
