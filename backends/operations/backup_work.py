"""What the jobs of one host's backup share, and how they get it: vaults that answer, the catalogue, the signing key."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from backends.archive.keys import normal_recipients
from backends.archive.manifest import Manifest
from backends.archive.signing import Signer, load_signer
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, KeyUnavailable, MastovaultError
from backends.model import Asset, JobResult, SnapshotInfo
from backends.operations.link import Link
from backends.progress import Job
from backends.vault.base import Vault
from backends.vault.format import prepare
from backends.vault.open import open_vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the jobs of one host share. `lacking` are the vaults that could not be opened or that hang, and why."""

    config: Config
    paths: Paths
    host: str
    run: str
    at: datetime | None
    link: Link
    opened: tuple[Vault, ...]
    lacking: dict[str, str]
    catalog: Catalog

    @property
    def vaults(self) -> tuple[Vault, ...]:
        """Those that can be used."""
        return tuple(vault for vault in self.opened if vault.name not in self.lacking)

    def leave(self, vault: Vault, why: str) -> None:
        """Ask nothing more of a vault that hangs; the cache is told why."""
        self.lacking[vault.name] = why
        note_away(self.catalog, vault, why)

    @property
    def recipients(self) -> list[str]:
        """Who can read the backups."""
        return normal_recipients(self.config.encryption.recipients)

    def close(self) -> None:
        """Let go of the host and the vaults."""
        self.link.close()
        for vault in self.vaults:
            vault.close()


def require_ready(config: Config, host: str) -> None:
    """Raise `ConfigurationError` when a backup of this host cannot even begin."""
    if host not in config.hosts:
        raise ConfigurationError(f"no host named {host} is configured", "`mastovault host list` shows them.")
    if not config.encryption.recipients:
        raise ConfigurationError("nobody could read the backups: there is no recipient", "Run `mastovault key new`.")
    if not config.vaults_of(host):
        raise ConfigurationError(
            "there is no vault to keep the backups in", "`mastovault vault add NAME PLACE` adds one."
        )


def begin(config: Config, paths: Paths, host: str, job: Job, run: str, at: datetime | None) -> Work:
    """Open the vaults of a host and bring the catalogue up to date.

    Raises:
        MastovaultError: no vault can be used; the last one's fault.
    """
    recipients = normal_recipients(config.encryption.recipients)
    catalog = Catalog(paths.cache_dir, config.signers)
    vaults: list[Vault] = []
    lacking: dict[str, str] = {}
    error: MastovaultError | None = None
    for name in config.vaults_of(host):
        try:
            vault = open_vault(name, config.vaults[name])
            prepare(vault, recipients)
            vaults.append(vault)
        except MastovaultError as failure:
            error = failure
            lacking[name] = failure.sentence
            job.log(f"the vault {name} cannot be used: {failure.sentence}")
    if not vaults and error is not None:
        raise error
    refresh(catalog, vaults, job)
    return Work(
        config=config,
        paths=paths,
        host=host,
        run=run,
        at=at,
        link=Link(host, config.hosts[host]),
        opened=tuple(vaults),
        lacking=lacking,
        catalog=catalog,
    )


def refresh(catalog: Catalog, vaults: Sequence[Vault], job: Job, results: Sequence[JobResult] = ()) -> bool:
    """Bring the cache up to date; returns whether that worked. A broken cache is no reason to make no backup.

    Args:
        catalog: the catalogue.
        vaults: what to look at.
        job: told why it did not work.
        results: what was just made: a listing may not show it yet.
    """
    try:
        for vault in vaults:
            made = [each.snapshot for each in results if each.snapshot and vault.name in each.vaults]
            catalog.refresh_vault(vault, made)
    except MastovaultError as error:
        job.log(f"note: {error.sentence}")
        return False
    return True


def note_away(catalog: Catalog, vault: Vault, why: str) -> None:
    """Note in the cache that a vault cannot be asked; a cache that cannot be used changes nothing."""
    with suppress(MastovaultError):
        catalog.note_vault(vault.name, vault.where, offsite=vault.offsite, error=why)


def signer(config: Config, job: Job) -> Signer | None:
    """What signs the manifest; without its key the job is warned, for a copy that nobody signed is better than none."""
    path = config.encryption.signing_key
    if path is None:
        return None
    try:
        return load_signer(path.expanduser())
    except KeyUnavailable as error:
        job.warn(f"the snapshot is not signed: {error.sentence}")
        return None


def previous(work: Work, asset: Asset, job: Job) -> Manifest | None:
    """The newest good manifest; for secrets none when a new copy is needed anyway.

    That is when a vault lacks it, or not all recipients can read it, or it is not signed as it would be now: an
    unchanged copy would then not be good enough.
    """
    try:
        good = (each for each in work.catalog.snapshots(work.host, asset) if _is_good(work, each))
        newest = next(good, None)
        manifest = work.catalog.manifest(newest.id) if newest else None
    except MastovaultError as error:
        job.log(f"note: what is there already is not known: {error.sentence}")
        return None
    if newest is None or manifest is None:
        return None
    if asset is Asset.SECRETS:
        everywhere = {vault.name for vault in work.vaults} <= set(newest.vaults)
        readable = set(manifest.recipients) == set(work.recipients)
        if not everywhere or not readable:
            return None
    return manifest


def _is_good(work: Work, snapshot: SnapshotInfo) -> bool:
    from backends.archive.signing import trust_of

    trusted = trust_of(snapshot.signature, snapshot.signer, work.config.signers).good
    return trusted and not snapshot.verify_failed
