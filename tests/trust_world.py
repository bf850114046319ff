"""Two vaults with the same signed backups, and what somebody could do who can write to them."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import tomlkit

from backends.archive.layout import manifest_key
from backends.archive.manifest import Manifest
from backends.archive.reader import object_key, read_sealed
from backends.archive.signing import Signer, load_signer, new_signing_key
from backends.archive.writer import begin_snapshot
from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.model import Asset, SnapshotInfo
from backends.operations.fleet import refresh_vaults
from backends.vault.directory import DirectoryVault

FIXTURE = Path(__file__).parent / "fixtures" / "vault-1"
PUBLIC = (FIXTURE / "test-key-signer.pub").read_text().strip()
_SHA256, _SIGNED = 83, 253


class TwoVaults:
    """Copies of the format fixture: `local` and `offsite`. The signer of its second night is trusted."""

    def __init__(self, place: Path, *, trusting: bool = True) -> None:
        self.paths = Paths(place / "config.toml", place / "state", place / "cache")
        self.vaults = {name: DirectoryVault(name, place / name) for name in ("local", "offsite")}
        for vault in self.vaults.values():
            shutil.copytree(FIXTURE / "vault", vault.path)
        shutil.copy(FIXTURE / "test-key-identity.txt", place / "identity.txt")
        (place / "identity.txt").chmod(0o600)
        new_signing_key(place / "attacker.pem")
        self.attacker: Signer = load_signer(place / "attacker.pem")
        document = {
            "encryption": {"identity": str(place / "identity.txt")},
            "vaults": {name: {"type": "directory", "path": str(each.path)} for name, each in self.vaults.items()},
            "signers": {"backup-host": PUBLIC} if trusting else {},
            "hosts": {"social": {"address": "nobody@127.0.0.1:1"}},
        }
        self.paths.config_file.write_text(tomlkit.dumps(document))

    @property
    def config(self) -> Config:
        return load(self.paths.config_file)

    @property
    def catalog(self) -> Catalog:
        """Up to date."""
        made = Catalog(self.paths.cache_dir, self.config.signers)
        refresh_vaults(self.config, made)
        return made

    def signed(self, asset: Asset) -> str:
        """The id of the signed snapshot, before anybody touched it."""
        [place] = (FIXTURE / "vault/hosts/social" / asset).glob("20261102T*")
        return f"social/{asset}/{place.name}"

    def info(self, snapshot: str) -> SnapshotInfo:
        return next(each for each in self.catalog.snapshots() if each.id == snapshot)

    def manifest_file(self, snapshot: str, vault: str) -> Path:
        return self.vaults[vault].path / manifest_key(snapshot)

    def object_files(self, snapshot: str, vault: str = "local") -> list[Path]:
        held = self.vaults[vault]
        manifest, _ = read_sealed(held, snapshot)
        return [held.path / object_key(manifest, entry) for entry in manifest.objects]

    def tamper(self, how: str, snapshot: str, vaults: Sequence[str] = ("local", "offsite")) -> None:
        """Change the manifest of a snapshot, as `how` names it in `TAMPERED`."""
        for vault in vaults:
            path = self.manifest_file(snapshot, vault)
            path.write_bytes(self._tampered(how, path.read_bytes()))

    def _tampered(self, how: str, data: bytes) -> bytes:
        body, signed = data[:-_SIGNED], data[-_SIGNED:-_SHA256]
        other = body.replace(b'"run": "2026', b'"run": "2025')
        assert other != body
        if how == "stripped":
            return with_digest(body)
        if how == "stripped and changed":
            return with_digest(other)
        if how == "signed by another key":
            return with_digest(other + self._signature(other))
        if how == "changed, digest anew":
            return with_digest(other + signed)
        if how == "changed":
            return other + data[-_SIGNED:]
        if how == "another's signature":
            foreign = self.manifest_file(self.signed(Asset.REDIS), "local").read_bytes()[-_SIGNED:-_SHA256]
            return with_digest(body + foreign)
        raise ValueError(how)

    def _signature(self, body: bytes) -> bytes:
        made = base64.b64encode(self.attacker.sign(body))
        return b',\n  "signed_by": "%s",\n  "signature": "%s"' % (self.attacker.public.encode(), made)

    def plant(self, asset: Asset, at: datetime, *, run: str = "planted", sign: Signer | None = None) -> Manifest:
        """A newer snapshot, well formed and encrypted to the right recipient, which everybody knows."""
        vault = self.vaults["local"]
        manifest, _ = read_sealed(vault, self.signed(asset))
        snapshot = begin_snapshot(
            [vault], host="social", asset=asset, run=run, recipients=manifest.recipients, at=at, sign=sign
        )
        snapshot.write("environment.tar", io.BytesIO(b"planted"), compress=False)
        return snapshot.commit(manifest.facts)


TAMPERED = {
    "stripped": "unsigned",
    "stripped and changed": "unsigned",
    "signed by another key": "foreign",
    "changed, digest anew": "changed",
    "changed": "changed",
    "another's signature": "changed",
}
"""What can be done to a manifest, and the word for what it then is."""


def with_digest(body: bytes) -> bytes:
    """A manifest that ends in its own SHA-256, whoever wrote it."""
    return body + b',\n  "sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()
