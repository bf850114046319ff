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
    MAX_RECORD,
    manifest_key,
    snapshot_prefix,
)
from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.opening import unseal
from backends.archive.reader import object_key, open_stored, read_sealed
from backends.archive.signing import Signer
from backends.archive.whole import require_objects, sizes_of
from backends.archive.writer import begin_snapshot
from backends.catalog.records import Check, parse_check, record_check
from backends.errors import Damaged, KeyUnavailable, NotFound, VaultError, VaultStalled
from backends.model import Trust, rfc3339
from backends.operations.removal import Remover
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
    manifest is put, for those who come next where listings lag. `stalled` is told of a vault that hangs.
    """

    identities: Sequence[Any]
    recipients: Sequence[str]
    signer: Signer | None
    packs: dict[str, list[ObjectEntry]]
    job: Job
    guard: Callable[[Vault], None]
    wrote: Callable[[str], None]
    stalled: Callable[[Vault, VaultStalled], None]


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
        stalled=tools.stalled,
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


def remove(remover: Remover, snapshot: str) -> tuple[str, dict[str, int]]:
    """Remove an old snapshot from a vault.

    Returns:
        Why it stays (empty when it is gone), and the bytes of the shared objects that it named, by key.

    Raises:
        VaultError: the vault did not remove it, or lost our lease.
    """
    try:
        manifest, _ = read_sealed(remover.vault, snapshot)
        until = remover.locks.until(manifest_key(snapshot), remover.now)
    except NotFound:
        return "", {}
    if until is not None:
        return f"it is under an Object Lock until {rfc3339(until)}", {}
    remover.remove_snapshot(snapshot)
    packs = f"{HOSTS}{manifest.host}/{manifest.asset}/packs/"
    keys = {object_key(manifest, entry): entry.bytes for entry in shared(manifest.objects)}
    return "", {key: size for key, size in keys.items() if key.startswith(packs)}


def require_whole(vault: Vault, snapshot: str) -> None:
    """Look whether a vault holds every object of a snapshot with its length. Raises `Lacking`, `VaultError`."""
    manifest, _ = read_sealed(vault, snapshot)
    require_objects(vault, sizes_of(manifest))
