"""Encrypting one snapshot anew: what is below age stays, the new one is committed, the old one goes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from backends.archive.layout import (
    CHECK_KEY,
    HOSTS,
    MANIFEST_KEY,
    MAX_MANIFEST,
    MAX_RECORD,
    manifest_key,
    snapshot_prefix,
)
from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.opening import unseal
from backends.archive.reader import object_key, open_stored, parse_manifest, read_sealed
from backends.archive.signing import Signer
from backends.archive.writer import begin_snapshot
from backends.catalog.records import Check, parse_check, record_check
from backends.errors import Damaged, KeyUnavailable, NotFound, VaultError
from backends.model import Trust, rfc3339, utc_now
from backends.operations.rewrap_look import FROM, origin, shared
from backends.progress import Job
from backends.vault.base import Vault

_LOOK = 16 * 1024 * 1024
"""Objects up to this size are read whole to tell a damaged header from a missing key."""
_STILL_TRUE = frozenset({"unchanged", "drilled"})
"""What was found of the content; a verification is of the stored bytes, which are others now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What encrypting anew needs.

    `guard` raises `VaultError` when this run may no longer write to a vault; `wrote` is told of a snapshot before its
    manifest is put, for those who come next where listings lag.
    """

    identities: Sequence[Any]
    recipients: Sequence[str]
    signer: Signer | None
    packs: dict[str, list[ObjectEntry]]
    job: Job
    guard: Callable[[Vault], None]
    wrote: Callable[[str], None]


def encrypt_anew(
    tools: Tools, source: Vault, old: str, trust: Trust, targets: Sequence[Vault]
) -> tuple[Manifest, list[str]]:
    """Write a snapshot again for the current recipients, from one vault's copy into every target.

    Args:
        tools: keys, job, guard.
        source: where the old one is read.
        old: its id.
        trust: of the old one. What nobody signed stays unsigned: a signature says who made it.
        targets: where the new one goes.

    Returns:
        The new manifest, and the names of the vaults that hold it.

    Raises:
        Damaged, NotFound: the copy in `source` is no good.
        KeyUnavailable: no identity opens it.
        VaultError: no target took it.
    """
    before, _ = read_sealed(source, old)
    signer = tools.signer if trust is not Trust.UNSIGNED else None
    snapshot = begin_snapshot(
        targets,
        host=before.host,
        asset=before.asset,
        run=before.run,
        recipients=tools.recipients,
        at=before.started_at,
        log=tools.job.log,
        sign=signer,
        guard=tools.guard,
    )
    place = f"{HOSTS}{before.host}/{before.asset}/packs/{secrets.token_hex(4)}"
    try:
        for entry in before.objects:
            known = _already(tools, entry, targets) if entry.key else None
            if known is not None:
                snapshot.refer([known])
                continue
            with closing(_Below(source, before, entry, tools)) as below:
                snapshot.carry(entry, below, f"{place}/{entry.name}" if entry.key else "")
        tools.job.check_cancelled()
        took = (before.finished_at - before.started_at).total_seconds()
        facts = {**before.facts, FROM: origin(before)}
        tools.wrote(snapshot.id)
        made = snapshot.commit(facts, warnings=before.warnings, seconds=took)
    except BaseException:
        snapshot.discard()
        raise
    for entry in shared(made.objects):
        if entry not in tools.packs.setdefault(entry.name, []):
            tools.packs[entry.name].append(entry)
    return made, list(snapshot.vaults)


def _already(tools: Tools, entry: ObjectEntry, targets: Sequence[Vault]) -> ObjectEntry | None:
    """The same shared object for the current recipients, when every target has it."""
    for known in tools.packs.get(entry.name, ()):
        same = (known.plain_bytes, known.plain_sha256) == (entry.plain_bytes, entry.plain_sha256)
        if same and entry.plain_sha256 and all(_holds(vault, known) for vault in targets):
            tools.job.advance(entry.bytes)
            return known
    return None


def _holds(vault: Vault, entry: ObjectEntry) -> bool:
    return any(stored.key == entry.key and stored.bytes == entry.bytes for stored in vault.list(entry.key))


class _Below:
    """What an object holds below age; checked against its manifest by its end."""

    def __init__(self, vault: Vault, manifest: Manifest, entry: ObjectEntry, tools: Tools) -> None:
        self._stored = open_stored(vault, manifest, entry)
        self._entry, self._tools = entry, tools
        self._opened = unseal(self._stored, tools.identities, ("age",))

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises `Damaged`, `KeyUnavailable`, `VaultError`, `Cancelled`."""
        self._tools.job.check_cancelled()
        try:
            data = self._opened.read(size)
        except KeyUnavailable:
            # a changed header looks like a missing key: say which it is, where that does not take long
            if self._entry.bytes <= _LOOK:
                self._stored.drain()
            raise
        if not data:
            self._stored.drain()
        self._tools.job.advance(len(data))
        return data

    def close(self) -> None:
        """End the thread that decrypts, and close the file."""
        self._opened.close()
        self._stored.close()


def carry_checks(vault: Vault, old: str, new: str) -> None:
    """Record with the new snapshot what was found of the old one's content. Safe to do twice. Raises `VaultError`."""
    known = {(check.kind, check.at) for check in _checks(vault, new)}
    for check in _checks(vault, old):
        if check.kind in _STILL_TRUE and (check.kind, check.at) not in known:
            details = {**check.details, FROM: old}
            missing = record_check([vault], new, check.kind, check.at, check.ok, details)  # type: ignore[arg-type]
            if missing:
                raise missing[vault.name]


def _checks(vault: Vault, snapshot: str) -> Iterator[Check]:
    """Every check beside a snapshot that can be understood. Raises `VaultError` when one cannot be read."""
    keys = [each.key for each in vault.list(f"{snapshot_prefix(snapshot)}checks/") if CHECK_KEY.fullmatch(each.key)]
    for _key, data in vault.read_many(keys, MAX_RECORD):
        if isinstance(data, VaultError):
            raise data
        try:
            yield parse_check(data, snapshot)
        except Damaged:
            continue


def remove(vault: Vault, snapshot: str, guard: Callable[[Vault], None]) -> tuple[str, list[str]]:
    """Remove an old snapshot from a vault, its manifest first, so that nothing torn is ever listed.

    Returns:
        Why it stays (empty when it is gone), and the keys of the shared objects that it named.

    Raises:
        VaultError: the vault did not remove it, or lost our lease.
    """
    try:
        manifest, _ = read_sealed(vault, snapshot)
        until = vault.locked_until(manifest_key(snapshot))
    except NotFound:
        return "", []
    if until is not None and until > utc_now():
        return f"it is under an Object Lock until {rfc3339(until)}", []
    guard(vault)
    vault.delete(manifest_key(snapshot))
    for stored in list(vault.list(snapshot_prefix(snapshot))):
        vault.delete(stored.key)
    packs = f"{HOSTS}{manifest.host}/{manifest.asset}/packs/"
    keys = [object_key(manifest, entry) for entry in shared(manifest.objects)]
    return "", [key for key in keys if key.startswith(packs)]


def is_whole(vault: Vault, snapshot: str) -> bool:
    """Whether a vault lists every object of a snapshot with its length. Raises `VaultError`."""
    manifest, _ = read_sealed(vault, snapshot)
    wanted = {object_key(manifest, entry): entry.bytes for entry in manifest.objects}
    listed: dict[str, int] = {}
    for above in {key.rpartition("/")[0] + "/" for key in wanted}:
        listed |= {stored.key: stored.bytes for stored in vault.list(above) if stored.key in wanted}
    return listed == wanted


def remove_unshared(vault: Vault, host: str, keys: Sequence[str], also: Sequence[str] = ()) -> int:
    """Remove those shared objects that no manifest of the host names any more; returns how many.

    Args:
        vault: where.
        host: whose objects they are.
        keys: the candidates.
        also: ids of snapshots that are there although a listing may not show them yet.

    Raises:
        VaultError: a manifest could not be read, so that nobody can tell what is still needed: nothing is removed.
    """
    if not keys:
        return 0
    manifests = {each.key for each in vault.list(f"{HOSTS}{host}/") if MANIFEST_KEY.fullmatch(each.key)}
    needed: set[str] = set()
    for key, data in vault.read_many(sorted(manifests | {manifest_key(each) for each in also}), MAX_MANIFEST):
        if isinstance(data, NotFound):
            continue
        if isinstance(data, VaultError):
            raise data
        needed |= _named(key, data)
    gone = [key for key in dict.fromkeys(keys) if key not in needed]
    for key in gone:
        vault.delete(key)
    return len(gone)


def _named(key: str, data: bytes) -> set[str]:
    return {entry.key for entry in shared(parse_manifest(key, data).objects)}
