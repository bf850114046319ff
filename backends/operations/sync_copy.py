"""Copying one snapshot from vault to vault: stored bytes as they are, checked on the way, the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from backends.archive.fanout import Fanout
from backends.archive.layout import MAX_MANIFEST, MAX_RECORD, manifest_key, snapshot_prefix
from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.reader import object_key, open_stored, parse_sealed
from backends.archive.signing import trust_of
from backends.archive.whole import Lacking, require_objects, sizes_of
from backends.catalog import record_check
from backends.catalog.records import parse_check
from backends.errors import AlreadyExists, Damaged, MastovaultError, NotFound, VaultError, VaultFormatTooNew
from backends.model import utc_now
from backends.operations.proof_vault import WatchedVault
from backends.operations.sync_plan import Ends, SyncItem
from backends.operations.trust_words import distrust
from backends.progress import Job
from backends.vault.base import Vault

_CHUNK = 1024 * 1024
_PATIENCE = 3
"""Reads in a row that a source may fail before nothing more is asked of it."""
_CARRIED = frozenset({"unchanged", "drilled"})
"""Checks that are true of the snapshot. A verification is of one vault's copy, and stays with it."""


class NoCopy(VaultError):
    """No source has a good copy of something; the other snapshots can still be copied."""


class _Doubtful(VaultError):
    """A manifest was not written by somebody who is trusted."""


class _Unread(Exception):
    """A source could not be read; carries why."""

    def __init__(self, why: VaultError) -> None:
        super().__init__(why.sentence)
        self.why = why


@dataclass(slots=True)
class Copier:
    """Copies snapshots of one asset into the target, one after the other."""

    ends: Ends
    job: Job
    run: str
    stored: dict[str, int]
    """Lengths of the objects that the target has, by key."""
    guard: Callable[[], None]
    """Raises `VaultError` when this run may not write there any more."""
    announce: Callable[[str], None]
    """Told of a snapshot before its manifest is put."""
    damaged: set[str]
    """Filled with the names of vaults in which damage was found."""
    everything: bool = False
    copied_bytes: int = 0
    """Copied so far."""
    problems: list[str] = field(default_factory=list)
    """What was found amiss on the way, though another copy helped."""
    _failures: dict[str, int] = field(default_factory=dict)

    def copy(self, item: SyncItem) -> None:
        """Copy one snapshot.

        Raises:
            NoCopy: no source has a good copy of all of it.
            VaultError: the target does not take it. What was copied stays, for the next sync to go on with.
            Cancelled: the operator asked to stop.
        """
        sources = [self.ends.sources[name] for name in item.sources if name in self.ends.sources]
        data, manifest = self._manifest(item, sources)
        replaced = 0
        for entry in manifest.objects:
            replaced += self._object(manifest, entry, sources, again=item.repair)
        self._commit(manifest, data)
        self._carry_checks(manifest.id, sources)
        if replaced and item.repair:
            self._note_repair(manifest, replaced)

    def _manifest(self, item: SyncItem, sources: list[Vault]) -> tuple[bytes, Manifest]:
        """The exact bytes of a good manifest. Raises `NoCopy`."""
        key = manifest_key(item.snapshot.id)
        signers = self.ends.config.signers
        why: MastovaultError = NotFound(f"no vault holds {item.snapshot.id} any more", "Refresh.")
        for vault in list(sources):
            try:
                with _reading():
                    with closing(WatchedVault(vault, self.job).read(key)) as stored:
                        data = stored.read(MAX_MANIFEST + 1)
                    manifest, seal = parse_sealed(key, data)
                if seal.signature == "bad":
                    raise _Unread(_Doubtful(f"the manifest of {manifest.id} was changed after it was written"))
                doubt = distrust(trust_of(seal.signature, seal.signer, signers), seal.signer, signers)
                if doubt and not self.everything:
                    raise _Unread(_Doubtful(f"{manifest.id} {doubt}"))
            except _Unread as error:
                why = error.why
                self._blame(vault, item.snapshot.id, error.why, sources)
            else:
                self.job.advance(-len(data))  # only objects count
                return data, manifest
        raise NoCopy(f"no good manifest of {item.snapshot.id} is left: {why.sentence}", "Verify the other copies.")

    def _object(self, manifest: Manifest, entry: ObjectEntry, sources: list[Vault], *, again: bool) -> bool:
        """Copy one object unless the target has it; returns whether it did. Raises `NoCopy`, `VaultError`."""
        try:
            key = object_key(manifest, entry)
        except Damaged as error:
            raise NoCopy(error.sentence, error.next_step) from None
        if self.stored.get(key) == entry.bytes and not (again and not self._is_good(manifest, entry)):
            return False
        why: MastovaultError = NotFound(f"no vault is left that holds {entry.name}", "Refresh.")
        for vault in list(sources):
            before = self.copied_bytes
            try:
                self._stream(vault, manifest, entry, key)
            except _Unread as error:
                why = error.why
                self.job.advance(before - self.copied_bytes)
                self.copied_bytes = before
                self._blame(vault, manifest.id, error.why, sources)
            else:
                self.stored[key] = entry.bytes
                return True
        raise NoCopy(f"no good copy of {manifest.id} is left: {why.sentence}", "Verify it, and back up again.")

    def _stream(self, vault: Vault, manifest: Manifest, entry: ObjectEntry, key: str) -> None:
        fanout = Fanout([self.ends.target], key)
        try:
            with _reading():
                source = open_stored(_Counted(vault, self), manifest, entry)
            with closing(source):
                while True:
                    with _reading():
                        data = source.read(_CHUNK)
                    if not data:
                        break
                    fanout.write(data)
            fanout.commit()
        except BaseException:
            fanout.abort()
            raise

    def _is_good(self, manifest: Manifest, entry: ObjectEntry) -> bool:
        """Whether the target's own object is what the manifest says. Raises `VaultError` when it cannot be asked."""
        try:
            with closing(
                open_stored(WatchedVault(self.ends.target, cast(Job, _Silent(self.job))), manifest, entry)
            ) as stored:
                stored.drain()
        except (Damaged, NotFound):
            return False
        return True

    def _commit(self, manifest: Manifest, data: bytes) -> None:
        """Put the manifest, when all objects are there and this run may still write. Raises `VaultError`."""
        target, key = self.ends.target, manifest_key(manifest.id)
        self._check(manifest)
        self.guard()
        self.announce(manifest.id)
        try:
            target.put_new(key, data)
        except AlreadyExists:
            with target.read(key) as stored:
                same = stored.read(MAX_MANIFEST + 1) == data
            if not same:
                raise VaultError(
                    f"{target.name} holds another manifest of {manifest.id}", "Find out who writes to that vault."
                ) from None
            return
        try:
            # whoever took over the lease meanwhile may have removed shared objects that only this manifest names
            self.guard()
            self._check(manifest)
        except VaultError:
            with suppress(VaultError):
                target.delete(key)
            raise

    def _check(self, manifest: Manifest) -> None:
        """Compare what the target holds with what it should hold. Raises `VaultError`."""
        try:
            require_objects(self.ends.target, sizes_of(manifest))
        except Lacking as error:
            self.stored.pop(error.key, None)
            raise

    def _carry_checks(self, snapshot_id: str, sources: list[Vault]) -> None:
        """Copy the records of what was found out about the snapshot. Nothing hangs on it."""
        prefix = f"{snapshot_prefix(snapshot_id)}checks/"
        with suppress(VaultError):
            there = {found.key for found in self.ends.target.list(prefix)}
            for vault in sources:
                keys = [found.key for found in vault.list(prefix) if found.key not in there]
                for key, data in vault.read_many(keys, MAX_RECORD):
                    if not isinstance(data, VaultError) and self._is_carried(data, snapshot_id):
                        with suppress(AlreadyExists):
                            self.ends.target.put_new(key, data)
                        there.add(key)

    def _is_carried(self, data: bytes, snapshot_id: str) -> bool:
        try:
            return len(data) <= MAX_RECORD and parse_check(data, snapshot_id).kind in _CARRIED
        except Damaged:
            return False

    def _blame(self, vault: Vault, snapshot_id: str, error: VaultError, sources: list[Vault]) -> None:
        """Go on without a source: for this snapshot, or for good when it fails again and again."""
        sources.remove(vault)
        self.job.check_cancelled()
        said = f"the copy of {snapshot_id} in {vault.name} was not copied: {error.sentence}"
        self.problems.append(said)
        self.job.log(said)
        if isinstance(error, Damaged):
            self._failures[vault.name] = 0
            self.damaged.add(vault.name)
            details = {"run": self.run, "vault": vault.name, "whole": False, "problems": [error.sentence], "by": "sync"}
            for refused in record_check([vault], snapshot_id, "verified", utc_now(), False, details).values():
                self.job.log(f"the vault {vault.name} did not take the record of this: {refused.sentence}")
        elif not isinstance(error, NotFound | VaultFormatTooNew | _Doubtful):
            self._failures[vault.name] = self._failures.get(vault.name, 0) + 1
            if self._failures[vault.name] >= _PATIENCE:
                self.ends.sources.pop(vault.name, None)
                self.ends.away[vault.name] = error.sentence

    def _note_repair(self, manifest: Manifest, count: int) -> None:
        """Clear the damage that was known of the target's copy: every object of it was just read or copied."""
        target = self.ends.target
        details = {"run": self.run, "vault": target.name, "whole": True, "objects": count, "by": "sync"}
        record_check([target], manifest.id, "verified", utc_now(), True, details)
        self.job.log(f"{count} of the objects of {manifest.id} in {target.name} were damaged and are good again")


class _Counted(WatchedVault):
    """As a watched vault; the copier knows, too, how much was read."""

    def __init__(self, inner: Vault, copier: Copier) -> None:
        super().__init__(inner, cast(Job, _Counting(copier)))


class _Silent:
    """A job that is only asked whether to stop."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __getattr__(self, name: str) -> object:
        return getattr(self._job, name)

    def advance(self, amount: int) -> None:
        """Count nothing."""


class _Counting(_Silent):
    def __init__(self, copier: Copier) -> None:
        super().__init__(copier.job)
        self._copier = copier

    def advance(self, amount: int) -> None:
        """Count for the job and for the copier."""
        self._copier.copied_bytes += amount
        self._job.advance(amount)


@contextmanager
def _reading() -> Iterator[None]:
    """What a source fails with is told apart from what the target fails with."""
    try:
        yield
    except VaultError as error:
        raise _Unread(error) from error
