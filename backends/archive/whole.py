"""Whether a vault holds the objects that a manifest names."""

from __future__ import annotations

from collections.abc import Mapping

from backends.archive.manifest import Manifest
from backends.archive.reader import object_key
from backends.errors import NotFound, VaultError
from backends.vault.base import Vault


class Lacking(VaultError):
    """A vault lacks an object, or holds it with another length."""

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(sentence, "Look at what happens to files there.")
        self.key = key


def sizes_of(manifest: Manifest) -> dict[str, int]:
    """Bytes of every object that a manifest names, by its key."""
    return {object_key(manifest, entry): entry.bytes for entry in manifest.objects}


def require_objects(vault: Vault, wanted: Mapping[str, int]) -> None:
    """Compare what a vault lists with what it should hold; what it does not list is asked for by its key.

    Args:
        vault: which.
        wanted: bytes of each object, by its key.

    Raises:
        Lacking: one is not there, or not as long.
        VaultError: the vault cannot be asked.
    """
    listed: dict[str, int] = {}
    for above in {key.rpartition("/")[0] + "/" for key in wanted}:
        listed |= {stored.key: stored.bytes for stored in vault.list(above) if stored.key in wanted}
    for key, size in wanted.items():
        found = listed[key] if key in listed else _by_key(vault, key)
        if found not in (size, None):
            raise Lacking(key, f"the vault {vault.name} holds {found} bytes of {key} instead of {size}")


def _by_key(vault: Vault, key: str) -> int | None:
    """The size of what a listing that lags does not show yet, where it can be told. Raises `VaultError`."""
    try:
        return vault.size(key)
    except NotFound:
        raise Lacking(key, f"the vault {vault.name} lacks {key}") from None
