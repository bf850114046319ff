"""Where a restore reads from: one snapshot, in whichever of its vaults gives good bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.reader import open_object
from backends.errors import AssetFailed, Damaged, MastovaultError, VaultError
from backends.model import Asset, Trust
from backends.vault.base import Vault


@dataclass(slots=True, kw_only=True)
class Source:
    """One snapshot to read. `vaults` hold it, the best first; `identities` open it."""

    manifest: Manifest
    vaults: list[Vault]
    identities: Sequence[Any]
    bad: dict[str, str] = field(default_factory=dict)
    """Vaults whose copy turned out to be no good, and why."""
    trust: Trust = Trust.UNCHECKED
    """Whether the writer of the manifest is one whom the configuration trusts."""
    signer: str = ""
    """The public key that the manifest names."""
    damage: str = ""
    """What the catalogue knows to be wrong with every copy of it; empty when one is good as far as anybody knows."""

    @property
    def asset(self) -> Asset:
        """Of which asset it is a snapshot."""
        return self.manifest.asset

    def entry(self, *names: str) -> ObjectEntry | None:
        """The object whose name is one of these or begins with one of them and a dot; None when there is none."""
        for entry in self.manifest.objects:
            if any(entry.name == name or entry.name.startswith(f"{name}.") for name in names):
                return entry
        return None

    def open(self, entry: ObjectEntry) -> BinaryIO:
        """A stream of an object's plain bytes; close it.

        A vault that lacks the object is passed over. `Damaged` while reading is not: the step that reads fails, the
        engine calls `give_up_copy`, and the step is done again from the next vault.

        Raises:
            KeyUnavailable, Damaged, VaultError: when opened or while reading; see `reader.open_object`.
        """
        last: MastovaultError | None = None
        for vault in list(self.vaults):
            try:
                return open_object(vault, self.manifest, entry, self.identities)
            except VaultError as error:
                last = error
                self.bad[vault.name] = error.sentence
        raise last or AssetFailed(f"no vault holds {self.manifest.id} any more", "Choose another snapshot.")

    def give_up_copy(self, error: Damaged) -> bool:
        """Read from the next vault from now on; False when there is none."""
        if len(self.vaults) < 2:
            return False
        self.bad[self.vaults.pop(0).name] = error.sentence
        return True
