"""A vault whose clock is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from backends.vault.base import StoredObject, Vault
from tests.contract.passing import PassingVault


class SkewedVault(PassingVault):
    """Every modification time is shifted; what was left before a time is judged by the shifted times as well."""

    def __init__(self, inner: Vault, shift: timedelta) -> None:
        super().__init__(inner)
        self.shift = shift

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for stored in self.inner.list(prefix):
            yield replace(stored, modified_at=stored.modified_at + self.shift)

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        return self.inner.clean_leftovers(older_than - self.shift, prefix)
