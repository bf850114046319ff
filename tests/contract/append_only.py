"""A vault whose credentials may add and read, and never delete or replace."""

from __future__ import annotations

from datetime import datetime

from backends.errors import VaultDenied, VaultError
from backends.vault.base import Upload, Vault
from tests.contract.passing import PassingUpload, PassingVault


class AppendOnlyVault(PassingVault):
    """Answers a delete as a provider does whose policy forbids it; with `replaces`, objects may be overwritten."""

    def __init__(self, inner: Vault, *, replaces: bool = False) -> None:
        super().__init__(inner)
        self.replaces = replaces
        self.denied: list[str] = []
        """Keys whose deletion was refused."""

    def open_upload(self, key: str) -> Upload:
        return _Upload(self, self.inner.open_upload(key), key)

    def delete(self, key: str) -> None:
        self.denied.append(key)
        raise VaultDenied(f"{self.where} does not let these credentials delete", "Use others to prune.")

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        return 0

    def exists(self, key: str) -> bool:
        """Whether an object is there."""
        try:
            self.inner.read(key).close()
        except VaultError:
            return False
        return True


class _Upload(PassingUpload):
    def __init__(self, vault: AppendOnlyVault, inner: Upload, key: str) -> None:
        super().__init__(inner)
        self._vault, self._key = vault, key

    def commit(self) -> None:
        if not self._vault.replaces and self._vault.exists(self._key):
            raise VaultDenied(f"{self._vault.where} does not let these credentials replace an object", "")
        self.inner.commit()
