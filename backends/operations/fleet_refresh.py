"""Looking at every vault at once: what is new in each comes into the cache."""

from __future__ import annotations

import threading
import time

from backends.catalog import Catalog
from backends.config.schema import Config, VaultConfig
from backends.errors import MastovaultError
from backends.operations.storage import vault_status

PATIENCE = 45.0
"""Seconds without progress after which a vault that is looked at counts as away."""


def refresh_vaults(config: Config, catalog: Catalog, patience: float = PATIENCE) -> None:
    """Read what is new in every configured vault into the cache, all at once; one that is away is noted there.

    Args:
        config: the configuration.
        catalog: the cache.
        patience: seconds without any progress after which a vault counts as away and is waited for no longer.

    Raises:
        CacheFailed: the cache cannot be used.
    """
    looks = [_Look(name, its, catalog) for name, its in config.vaults.items()]
    for look in looks:
        look.start()
    for look in looks:
        look.wait(patience)
    catalog.keep_vaults(config.vaults)


class _Look:
    """A look at one vault, in a thread of its own, so that one that hangs holds nobody up."""

    def __init__(self, name: str, config: VaultConfig, catalog: Catalog) -> None:
        self._name, self._config, self._catalog = name, config, catalog
        self._alive = time.monotonic()
        self._where = ""
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"look at {name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self, patience: float) -> None:
        """Wait until it is done, or nothing was heard for so many seconds. Raises what it failed with."""
        while self._thread.is_alive() and (left := self._alive + patience - time.monotonic()) > 0:
            self._thread.join(left)
        if self._thread.is_alive():
            self._note(f"it has not answered for {patience:.0f} seconds")
        elif self._failed is not None:
            raise self._failed

    def _work(self) -> None:
        from backends.vault.open import open_vault

        try:
            vault = open_vault(self._name, self._config)
        except MastovaultError as error:
            self._note(error.sentence)
            return
        self._where = vault.where
        try:
            self._catalog.refresh_vault(vault, beat=self._beat)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._failed = error
        finally:
            vault.close()

    def _beat(self) -> None:
        self._alive = time.monotonic()

    def _note(self, error: str) -> None:
        status = vault_status(self._name, self._config, None)
        self._catalog.note_vault(self._name, self._where or status.where, offsite=status.offsite, error=error)
