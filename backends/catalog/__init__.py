"""What the vaults hold, as seen in a local cache that can be thrown away at any time."""

from backends.catalog.catalog import Catalog
from backends.catalog.checks import CheckInfo, Proof
from backends.catalog.records import record_attempt, record_check
from backends.catalog.status import VaultStatus
from backends.catalog.usage import AssetUsage, VaultUsage

__all__ = [
    "AssetUsage",
    "Catalog",
    "CheckInfo",
    "Proof",
    "VaultStatus",
    "VaultUsage",
    "record_attempt",
    "record_check",
]
