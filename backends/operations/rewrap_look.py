"""What there is to encrypt anew: the snapshots of one asset in every vault, and which of them others can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from backends.archive.layout import HOSTS, MANIFEST_KEY, MAX_MANIFEST, SNAPSHOT_ID
from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.reader import parse_sealed
from backends.archive.signing import trust_of
from backends.errors import NotFound, VaultError
from backends.model import Asset, Trust
from backends.untrusted import clean
from backends.vault.base import Vault

FROM = "rewrapped_from"
"""The fact that names the snapshot which a content was first stored as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One snapshot in one vault."""

    vault: Vault
    id: str
    at: datetime
    bytes: int
    trust: Trust


@dataclass(slots=True)
class Family:
    """One content under whatever keys: the snapshot that was made first, and those that it was encrypted anew to."""

    at: datetime
    old: list[Copy] = field(default_factory=list)
    """For other recipients than the current ones."""
    new: list[Copy] = field(default_factory=list)
    """For the current recipients."""

    def holds_new(self, vault: Vault) -> str:
        """The id of the snapshot for the current recipients in a vault; empty without one."""
        return next((copy.id for copy in self.new if copy.vault is vault), "")


@dataclass(slots=True)
class Seen:
    """What was found of one asset in all vaults."""

    families: list[Family] = field(default_factory=list)
    """Newest first."""
    left: list[str] = field(default_factory=list)
    """Why some of it could not be looked at."""
    packs: dict[str, list[ObjectEntry]] = field(default_factory=dict)
    """Shared objects of snapshots for the current recipients, by name: others need not encrypt them again."""

    @property
    def waiting(self) -> list[Family]:
        """Those with something to do."""
        return [family for family in self.families if family.old]


def look(
    vaults: Sequence[Vault],
    host: str,
    asset: Asset,
    recipients: Sequence[str],
    signers: Mapping[str, str],
    *,
    tick: Callable[[], None] = lambda: None,
) -> Seen:
    """Read every manifest of an asset. A vault that is away is said in `Seen.left`; it never raises for its fault.

    Args:
        vaults: where to look.
        host: whose asset.
        asset: which.
        recipients: the current ones, in their one spelling.
        signers: whom the configuration trusts. Of what others wrote nothing is taken over.
        tick: called for each manifest; may raise.
    """
    seen = Seen()
    families: dict[str, Family] = {}
    for vault in vaults:
        try:
            keys = [each.key for each in vault.list(f"{HOSTS}{host}/{asset}/") if MANIFEST_KEY.fullmatch(each.key)]
            for key, data in vault.read_many(keys, MAX_MANIFEST):
                tick()
                _note(seen, families, vault, key, data, set(recipients), signers)
        except VaultError as error:
            seen.left.append(f"the vault {vault.name} cannot be used: {error.sentence}")
    seen.families = sorted(families.values(), key=lambda family: family.at, reverse=True)
    return seen


def _note(
    seen: Seen,
    families: dict[str, Family],
    vault: Vault,
    key: str,
    data: bytes | VaultError,
    wanted: set[str],
    signers: Mapping[str, str],
) -> None:
    try:
        if isinstance(data, NotFound):
            return  # removed since, or listed still
        if isinstance(data, VaultError):
            raise data
        manifest, seal = parse_sealed(key, data)
    except VaultError as error:
        seen.left.append(f"{clean(key, 200)} in {vault.name} stays as it is: {error.sentence}")
        return
    trust = trust_of(seal.signature, seal.signer, signers)
    copy = Copy(vault=vault, id=manifest.id, at=manifest.started_at, bytes=manifest.bytes, trust=trust)
    current = set(manifest.recipients) == wanted
    if current and not trust.good:
        return  # nobody knows what is in it: it replaces nothing, and is not replaced
    if trust in {Trust.FOREIGN, Trust.CHANGED}:
        # Signed anew it would pass for ours.
        seen.left.append(f"{manifest.id} in {vault.name} stays as it is: its signature is {trust}")
        return
    family = families.setdefault(origin(manifest), Family(manifest.started_at))
    (family.new if current else family.old).append(copy)
    if current:
        for entry in shared(manifest.objects):
            seen.packs.setdefault(entry.name, []).append(entry)


def origin(manifest: Manifest) -> str:
    """The id under which this content was first stored."""
    named = manifest.facts.get(FROM)
    same = (
        isinstance(named, str) and SNAPSHOT_ID.fullmatch(named) and named.split("/")[:2] == manifest.id.split("/")[:2]
    )
    return str(named) if same else manifest.id


def shared(entries: Iterable[ObjectEntry]) -> list[ObjectEntry]:
    """The objects that stand under a key of their own, where other snapshots refer to them."""
    return [entry for entry in entries if entry.key]
