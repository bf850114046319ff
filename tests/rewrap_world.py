"""Two vaults with snapshots for an old key, a configuration with a new one, and what must hold whatever happens."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backends.archive.keys import load_identities, new_identity, write_identity
from backends.archive.layout import HOSTS, MANIFEST_KEY
from backends.archive.manifest import Manifest, Seal
from backends.archive.reader import open_object, parse_sealed
from backends.archive.signing import Signer, load_signer, new_signing_key
from backends.archive.writer import begin_snapshot
from backends.catalog import record_check
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.model import Asset, JobResult
from backends.operations.rewrap import rewrap_host
from backends.operations.rewrap_look import origin
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.servers.backup import WatchedJob

BEGAN = datetime(2026, 11, 20, 3, 0, 0, 250_000, tzinfo=UTC)
PACK = "a" * 32
OTHER_PACK = "b" * 32


class Rewraps:
    """Everything of one test."""

    def __init__(self, place: Path, *, signed: bool = True) -> None:
        self.place = place
        self.paths = Paths(place / "config.toml", place / "state", place / "cache")
        self.vaults = {name: DirectoryVault(name, place / name) for name in ("near", "far")}
        self.old, self.new, self.recovery = (self._key(name) for name in ("old.age", "new.age", "recovery.age"))
        self.signer: Signer | None = None
        self.signers: dict[str, str] = {}
        if signed:
            self.signers = {"me": new_signing_key(place / "signing.pem")}
            self.signer = load_signer(place / "signing.pem")
        for vault in self.vaults.values():
            prepare(vault, [self.old])
        self.job = WatchedJob()

    def _key(self, name: str) -> str:
        identity, recipient = new_identity()
        write_identity(self.place / name, identity, None)
        return recipient

    def identities(self, *names: str) -> list[Any]:
        return [each for name in names for each in load_identities(self.place / name, lambda _prompt: None)]

    def config(self, **encryption: Any) -> Config:
        """After the rotation."""
        keys = {
            "recipients": [self.new, self.recovery],
            "identity": self.place / "new.age",
            "old_identities": [self.place / "old.age"],
            **({"signing_key": self.place / "signing.pem"} if self.signers else {}),
            **encryption,
        }
        vaults = {name: {"type": "directory", "path": vault.path} for name, vault in self.vaults.items()}
        return Config.model_validate(
            {"vaults": vaults, "hosts": {"social": {"address": "x"}}, "encryption": keys, "signers": self.signers}
        )

    def rewrap(self, *assets: Asset, config: Config | None = None) -> dict[Asset, JobResult]:
        wanted = assets or (Asset.SECRETS, Asset.MEDIA)
        jobs = dict.fromkeys(wanted, self.job)
        results = rewrap_host(config or self.config(), self.paths, "social", jobs, "20261123T000000Z-social-r")
        return {result.asset: result for result in results}

    def secrets(self, hours: int = 0, vaults: str = "near far", **options: Any) -> Manifest:
        """A snapshot of the secrets for the old key."""
        return self._snapshot(Asset.SECRETS, hours, vaults, **options)

    def media(self, hours: int = 0, vaults: str = "near far", before: Manifest | None = None) -> Manifest:
        """A snapshot of the media; it refers to the packs of the one before."""
        return self._snapshot(Asset.MEDIA, hours, vaults, before=before)

    def _snapshot(
        self,
        asset: Asset,
        hours: int,
        vaults: str,
        *,
        before: Manifest | None = None,
        recipients: Sequence[str] = (),
        sign: bool = True,
        facts: dict[str, Any] | None = None,
    ) -> Manifest:
        snapshot = begin_snapshot(
            [self.vaults[name] for name in vaults.split()],
            host="social",
            asset=asset,
            run=f"run-{hours}",
            recipients=recipients or [self.old],
            at=BEGAN + timedelta(hours=hours),
            sign=self.signer if sign else None,
        )
        if asset is Asset.SECRETS:
            snapshot.write("environment.tar", io.BytesIO(b"SECRET=%d" % hours), compress=False)
        else:
            if before is None:
                packs = f"{HOSTS}social/media/packs"
                snapshot.write_shared(f"{packs}/{PACK}.tar", io.BytesIO(b"pack" * 500), compress=False)
            else:
                snapshot.refer([entry for entry in before.objects if entry.key])
                packs = f"{HOSTS}social/media/packs"
                name = f"{hours:032x}"
                snapshot.write_shared(f"{packs}/{name}.tar", io.BytesIO(b"more %d" % hours), compress=False)
            snapshot.write("files.ndjson", io.BytesIO(b'{"n": %d}\n' % hours * 50), compress=True)
        return snapshot.commit(
            facts or {"made": hours}, warnings=["one was left out"] if hours == 1 else [], seconds=12
        )

    def check(self, manifest: Manifest, kind: Any, vaults: str = "near far", **details: Any) -> None:
        record_check([self.vaults[name] for name in vaults.split()], manifest.id, kind, BEGAN, True, details)

    def manifests(self, vault: Vault) -> Iterator[tuple[Manifest, Seal]]:
        for stored in vault.list(f"{HOSTS}social/"):
            if MANIFEST_KEY.fullmatch(stored.key):
                with vault.read(stored.key) as file:
                    yield parse_sealed(stored.key, file.read())

    def content(self, vault: Vault, manifest: Manifest, *keys: str) -> dict[str, bytes]:
        """What every object holds, opened with some of the identities."""
        identities = self.identities(*(keys or ("old.age", "new.age")))
        found = {}
        for entry in manifest.objects:
            with closing(open_object(vault, manifest, entry, identities)) as plain:
                found[entry.name] = plain.read()
        return found

    def contents(self) -> dict[str, dict[str, dict[str, bytes]]]:
        """By vault and origin, every content. Whatever is listed must open whole."""
        return {
            name: {origin(manifest): self.content(vault, manifest) for manifest, _ in self.manifests(vault)}
            for name, vault in self.vaults.items()
        }

    def require_rewrapped(self) -> None:
        """Every snapshot is for the new recipients, signed, and the new identity alone opens it."""
        for vault in self.vaults.values():
            for manifest, seal in self.manifests(vault):
                assert set(manifest.recipients) == {self.new, self.recovery}, manifest.id
                assert seal.signature == ("good" if self.signer else "none")
                assert self.content(vault, manifest, "new.age")
                assert self.content(vault, manifest, "recovery.age")

    def keys(self, name: str, part: str = "") -> set[str]:
        """The objects in a vault whose key holds some text; no leases."""
        return {stored.key for stored in self.vaults[name].list(HOSTS) if part in stored.key}
