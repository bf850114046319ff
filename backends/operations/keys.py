"""Trying the keys: whether what every vault holds can be opened, and whether the newest snapshots are for everybody."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from backends.archive.keys import normal_recipients, parse_recipients
from backends.archive.keys_known import Known, known_identities
from backends.archive.manifest import Manifest
from backends.archive.reader import open_object, read_manifest
from backends.archive.signing import load_signer, signer_name
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import Damaged, KeyUnavailable, MastovaultError, NotFound
from backends.model import Asset, Secret, SnapshotInfo
from backends.operations.fleet import refresh_vaults
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.open import open_vault

_WHOLE = 16 * 1024 * 1024
"""Objects up to this size are read to their end; of larger ones the beginning is."""
_TRIES = 3
"""Snapshots of a vault that are tried before its copies count as unreadable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultKeys:
    """How the keys did in one vault."""

    vault: str
    state: Literal["opened", "empty", "closed", "away"]
    """`closed`: what it holds opens with no key at hand. `away`: it could not be asked, or gave no good bytes."""
    snapshot: str = ""
    opened_by: str = ""
    """The recipient whose identity opened it."""
    source: str = ""
    """Where that identity is from."""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """A newest snapshot that some of the configured recipients cannot read."""

    host: str
    asset: Asset
    snapshot: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """An old identity, and how many snapshots only it opens."""

    source: str
    recipient: str
    snapshots: int
    newest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReport:
    """What `check_keys` found. `problems` are sentences on the keys themselves."""

    vaults: tuple[VaultKeys, ...]
    lacking: tuple[Lacking, ...] = ()
    needed: tuple[Needed, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    signer: str = ""
    """The name in `[signers]` under which this machine signs; empty when it does not, or nobody trusts it."""

    @property
    def opened(self) -> bool:
        """Whether what every vault holds opens, in so far as it could be asked."""
        return all(vault.state != "closed" for vault in self.vaults)

    @property
    def exit_code(self) -> int:
        """12 when a vault's objects do not open, 3 when something else is not as it should be."""
        if not self.opened:
            return KeyUnavailable.exit_code
        away = any(vault.state == "away" for vault in self.vaults)
        return 3 if away or self.lacking or self.problems else 0


def check_keys(
    config: Config,
    paths: Paths,
    ask: Callable[[str], Secret | None] | None = None,
    *,
    known: Sequence[Known] | None = None,
) -> KeyReport:
    """Open one object of every vault: of the smallest of the newest good snapshots.

    Args:
        config: the configuration.
        paths: where the cache is.
        ask: asks for the passphrase of an identity.
        known: the identities to try; those of the configuration when left out.

    Raises:
        KeyUnavailable: no identity can be opened at all.
        ConfigurationError: a recipient is none.
        CacheFailed: the cache cannot be used.
    """
    notes: list[str] = []
    wanted = normal_recipients(config.encryption.recipients)
    own = known is None
    tried = known_identities(config.encryption, ask, notes.append) if known is None else list(known)
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    held = catalog.snapshots()
    away = {status.name: status.error for status in catalog.vaults() if status.error}
    signer, problems = _signer(config)
    if own:
        problems = [*_own(tried, wanted), *problems]
    return KeyReport(
        vaults=tuple(_vault(config, name, away.get(name, ""), held, tried) for name in config.vaults),
        lacking=tuple(_lacking(catalog, config, held, wanted)),
        needed=tuple(needed(catalog, tried, held)) if own else (),
        problems=tuple(problems),
        notes=tuple(notes),
        signer=signer,
    )


def newest_good(held: Sequence[SnapshotInfo]) -> list[SnapshotInfo]:
    """Of every asset of every host the newest that did not fail its verification; `held` is newest first."""
    found: dict[tuple[str, Asset], SnapshotInfo] = {}
    for snapshot in held:
        if not snapshot.verify_failed:
            found.setdefault((snapshot.host, snapshot.asset), snapshot)
    return list(found.values())


def _vault(config: Config, name: str, error: str, held: Sequence[SnapshotInfo], tried: Sequence[Known]) -> VaultKeys:
    if error:
        return VaultKeys(vault=name, state="away", said=error)
    candidates = newest_good([snapshot for snapshot in held if name in snapshot.vaults])
    if not candidates:
        return VaultKeys(vault=name, state="empty", said="it holds no snapshot yet")
    said = ""
    try:
        with closing(open_vault(name, config.vaults[name])) as vault:
            for snapshot in sorted(candidates, key=lambda each: each.bytes)[:_TRIES]:
                try:
                    return _opened(vault, snapshot.id, tried)
                except (Damaged, NotFound) as failure:
                    said = f"{snapshot.id}: {failure.sentence}"
    except MastovaultError as failure:
        said = failure.sentence
    return VaultKeys(vault=name, state="away", said=said)


def _opened(vault: Vault, snapshot: str, tried: Sequence[Known]) -> VaultKeys:
    """Which identity opens a snapshot. Raises `Damaged`, `NotFound`, `VaultError`."""
    manifest = read_manifest(vault, snapshot)
    for known in tried:
        try:
            _open(vault, manifest, known)
        except KeyUnavailable:
            continue
        return VaultKeys(
            vault=vault.name, state="opened", snapshot=snapshot, opened_by=known.recipient, source=known.source
        )
    return VaultKeys(
        vault=vault.name,
        state="closed",
        snapshot=snapshot,
        said=f"no key at hand opens {snapshot}; it is for {clean(', '.join(manifest.recipients), 400)}",
    )


def _open(vault: Vault, manifest: Manifest, known: Known) -> None:
    if not manifest.objects:
        raise Damaged(f"{manifest.id} holds nothing")
    entry = min(manifest.objects, key=lambda each: each.bytes)
    with open_object(vault, manifest, entry, [known.identity]) as plain:
        if entry.bytes <= _WHOLE:
            while plain.read(_WHOLE // 16):
                pass
        else:
            plain.read(1)


def _lacking(catalog: Catalog, config: Config, held: Sequence[SnapshotInfo], wanted: Sequence[str]) -> list[Lacking]:
    found = []
    for snapshot in newest_good(held):
        if snapshot.host not in config.hosts:
            continue
        try:
            readers = set(catalog.manifest(snapshot.id).recipients)
        except MastovaultError:  # its vault is said to be damaged elsewhere
            continue
        if missing := tuple(each for each in wanted if each not in readers):
            found.append(Lacking(host=snapshot.host, asset=snapshot.asset, snapshot=snapshot.id, missing=missing))
    return found


def needed(catalog: Catalog, tried: Sequence[Known], held: Sequence[SnapshotInfo]) -> list[Needed]:
    """For every old identity, how many snapshots no current one opens. Reads every manifest in the cache."""
    old = [known for known in tried if known.old]
    if not old:
        return []
    current = {known.recipient for known in tried if not known.old}
    waiting: dict[str, list[str]] = {known.recipient: [] for known in old}
    for snapshot in held:
        try:
            readers = set(catalog.manifest(snapshot.id).recipients)
        except MastovaultError:
            continue
        if not readers & current:
            for recipient in readers & waiting.keys():
                waiting[recipient].append(snapshot.id)
    return [
        Needed(
            source=known.source,
            recipient=known.recipient,
            snapshots=len(waiting[known.recipient]),
            newest=waiting[known.recipient][0] if waiting[known.recipient] else "",
        )
        for known in old
    ]


def _own(tried: Sequence[Known], wanted: Sequence[str]) -> list[str]:
    """What is wrong between the identities and the recipients of new snapshots."""
    if not wanted:
        return ["there is no recipient, so nothing can be backed up"]
    if not {known.recipient for known in tried} & set(wanted):
        return ["none of the identities belongs to a configured recipient: new snapshots cannot be read with them"]
    _self_test(tried, wanted)
    return []


def _self_test(tried: Sequence[Known], wanted: Sequence[str]) -> None:
    """Encrypt something and decrypt it. Raises `KeyUnavailable` when that does not give it back."""
    from backends.archive import codec

    stored = io.BytesIO()

    def keep(data: bytes) -> None:
        stored.write(data)

    codec.seal(io.BytesIO(b"mastovault"), keep, parse_recipients(wanted), compress=True)
    stored.seek(0)
    with codec.unseal(stored, [known.identity for known in tried], ("zstd", "age")) as plain:
        if plain.read() != b"mastovault":
            raise KeyUnavailable(
                "the identity gives back other bytes than were encrypted", "Do not rely on this identity."
            )


def _signer(config: Config) -> tuple[str, list[str]]:
    """The name under which this machine signs, and what is wrong with that."""
    path, signers = config.encryption.signing_key, config.signers
    if path is None:
        if not signers:
            return "", []
        return "", ["signers are configured, but this machine has no signing key: what it writes is not trusted"]
    try:
        public = load_signer(path.expanduser()).public
    except KeyUnavailable as error:
        return "", [error.sentence]
    if public not in {each.strip() for each in signers.values()}:
        return "", ["this machine's signing key is not in [signers]: what it writes is not trusted"]
    return signer_name(public, signers), []
