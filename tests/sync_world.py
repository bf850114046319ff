"""Some vaults with snapshots in them, and a configuration that knows them, to sync between."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backends.archive.keys import new_identity
from backends.archive.layout import HOSTS
from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.reader import object_key, open_stored, parse_manifest
from backends.archive.signing import Signer
from backends.archive.writer import begin_snapshot
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.model import Asset, JobResult
from backends.operations.sync import sync_host
from backends.progress import Job, QuietJob
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare

_, RECIPIENT = new_identity()
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
HOST = "social"


class SyncWorld:
    """Directory vaults `one`, `two`, `target` (and what is added), a host and a cache."""

    def __init__(self, place: Path, names: Sequence[str] = ("one", "two", "target"), **settings: object) -> None:
        self.place = place
        self.paths = Paths(place / "config.toml", place / "state", place / "cache")
        tables: dict[str, object] = {name: {"type": "directory", "path": str(place / name)} for name in names}
        document = {
            "encryption": {"recipients": [RECIPIENT]},
            "vaults": tables,
            "hosts": {HOST: {"address": "local"}},
            "retention": {"last": 100},
            **settings,
        }
        self.config = Config.model_validate(document)
        self.vaults: dict[str, Vault] = {name: self.directory(name) for name in names}

    def directory(self, name: str) -> DirectoryVault:
        """One of the vaults, as it is."""
        return DirectoryVault(name, self.place / name)

    def catalog(self) -> Catalog:
        """The cache."""
        return Catalog(self.paths.cache_dir, self.config.signers)

    def back_up(
        self,
        *names: str,
        asset: Asset = Asset.DATABASE,
        age: float = 0.0,
        data: bytes = b"data" * 5000,
        shared: Sequence[str] = (),
        refer: Sequence[ObjectEntry] = (),
        sign: Signer | None = None,
        warnings: Sequence[str] = (),
        run: str = "r1",
    ) -> Manifest:
        """A snapshot in some of the vaults, so many days old; `shared` are the names of packs."""
        vaults: list[Vault] = [self.vaults[name] for name in names]
        for vault in vaults:
            prepare(vault, [RECIPIENT])
        snapshot = begin_snapshot(
            vaults,
            host=HOST,
            asset=asset,
            run=run,
            recipients=[RECIPIENT],
            at=NOW - timedelta(days=age),
            sign=sign,
        )
        snapshot.write("object", io.BytesIO(data), compress=False)
        for name in shared:
            snapshot.write_shared(f"hosts/{HOST}/media/packs/{name}.tar", io.BytesIO(data), compress=False)
        snapshot.refer(refer)
        return snapshot.commit({"rows": 3}, warnings=warnings)

    def sync(
        self,
        target: str = "target",
        source: str | None = None,
        *,
        assets: Sequence[Asset] = (Asset.DATABASE,),
        job: Job | None = None,
        everything: bool = False,
        config: Config | None = None,
    ) -> JobResult:
        """Fill a vault; returns the result of the first asset."""
        jobs: Mapping[Asset, Job] = {asset: job or QuietJob() for asset in assets}
        results = sync_host(
            config or self.config,
            self.paths,
            HOST,
            jobs,
            "20261123T000000Z-social-0000",
            source=source,
            target=target,
            everything=everything,
        )
        assert [result.asset for result in results] == [asset for asset in Asset if asset in assets]
        return results[0]

    def content(self, name: str) -> dict[str, bytes]:
        """Everything below `hosts/` in a vault, by key, but for records of checks that stay in their vault."""
        root = self.place / name
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted((root / HOSTS).rglob("*"))
            if path.is_file() and "/checks/" not in str(path)
        }


def is_whole(vault: Vault) -> list[str]:
    """The snapshots that a vault lists; every object of each of them must be what its manifest says."""
    found = []
    for key in [stored.key for stored in vault.list(HOSTS) if stored.key.endswith("/manifest.json")]:
        with vault.read(key) as file:
            manifest = parse_manifest(key, file.read())
        for entry in manifest.objects:
            open_stored(vault, manifest, entry).drain()
            assert object_key(manifest, entry)
        found.append(manifest.id)
    return found
