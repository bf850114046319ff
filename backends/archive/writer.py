"""Writing one snapshot: objects first, to every vault at once; the manifest last. See `snapshot.SnapshotWriter`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from backends.archive.codec import Sealed, seal
from backends.archive.fanout import Fanout
from backends.archive.keys import normal_recipients, parse_recipients
from backends.archive.layout import MAX_MANIFEST, manifest_key, new_snapshot_id, snapshot_prefix
from backends.archive.manifest import FORMAT, Manifest, ObjectEntry, written
from backends.archive.signing import Signer
from backends.archive.snapshot import Source
from backends.archive.whole import require_objects
from backends.errors import KeyUnavailable, VaultError, VaultStalled
from backends.model import Asset, utc_now
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.format import read_format
from backends.vault.names import PART, check_key

Guard = Callable[[Vault], None]
Stalled = Callable[[Vault, VaultStalled], None]
_SUFFIXES = {"zstd": ".zst", "age": ".age"}


def begin_snapshot(
    vaults: Sequence[Vault],
    *,
    host: str,
    asset: Asset,
    run: str,
    recipients: Sequence[str],
    at: datetime | None = None,
    log: Callable[[str], None] | None = None,
    sign: Signer | None = None,
    guard: Guard | None = None,
    stalled: Stalled | None = None,
) -> Snapshot:
    """Begin a snapshot in every one of the vaults; nothing of it is visible before its `commit`.

    Args:
        vaults: where it goes; one that fails drops out (`Snapshot.lacking`), the last one's failure is raised.
        host: the host's name in the configuration.
        asset: what is saved.
        run: the id of the run that saves it.
        recipients: who can read it, `age1...`.
        at: when it begins; now, unless history is being made.
        log: told when a vault drops out.
        sign: signs the manifest.
        guard: asked of each vault right before its manifest is put, and again afterwards, whether this run may still
            write there; raises `VaultError` when not, and that vault drops out.
        stalled: told of a vault that drops out because it hangs: whatever is asked of it next may hang, too.

    Raises:
        VaultError: no vault can take it; `VaultFormatTooNew` when that is why.
        KeyUnavailable: there is no recipient.
    """
    if not recipients:
        raise KeyUnavailable("there is nobody to encrypt to", "`mastovault key new` makes a key.")
    snapshot = Snapshot(
        vaults,
        host=host,
        asset=asset,
        run=run,
        recipients=normal_recipients(recipients),
        at=at,
        log=log,
        sign=sign,
        guard=guard,
        stalled=stalled,
    )
    snapshot.look_at_vaults()
    return snapshot


class Snapshot:
    """One snapshot being written; a `SnapshotWriter`."""

    def __init__(
        self,
        vaults: Sequence[Vault],
        *,
        host: str,
        asset: Asset,
        run: str,
        recipients: Sequence[str],
        at: datetime | None,
        log: Callable[[str], None] | None,
        sign: Signer | None,
        guard: Guard | None,
        stalled: Stalled | None,
    ) -> None:
        self._started_at = (at or utc_now()).astimezone(UTC)
        self._began = time.monotonic()
        self._id = new_snapshot_id(host, asset, self._started_at)
        self._host, self._asset, self._run = host, asset, run
        self._recipients = list(recipients)
        self._keys = parse_recipients(recipients)
        self._log = log or _ignore
        self._sign, self._guard, self._stalled = sign, guard or _allow, stalled
        self._live = list(vaults)
        self._written: dict[str, list[str]] = {vault.name: [] for vault in vaults}
        self._announced: set[str] = set()
        """Vaults that may hold the manifest."""
        self._entries: list[ObjectEntry] = []
        self._referred: list[ObjectEntry] = []
        self._finished = False
        self.lacking: dict[str, VaultError] = {}
        """The vaults that dropped out, by name, and why."""

    @property
    def id(self) -> str:
        """`<host>/<asset>/<time>-<id>`."""
        return self._id

    @property
    def vaults(self) -> tuple[str, ...]:
        """Names of the vaults that took everything so far; after `commit`, of those that hold the snapshot."""
        return tuple(vault.name for vault in self._live)

    def look_at_vaults(self) -> None:
        """Let vaults drop out that are away or of a newer format. Raises `VaultError` when none is left."""
        for vault in list(self._live):
            try:
                read_format(vault)
            except VaultError as error:
                self._drop(vault, error)
        self._some_left()

    def write(
        self, name: str, source: Source, *, compress: bool, already: tuple[Literal["zstd"], ...] = ()
    ) -> ObjectEntry:
        """Store `source` beside the manifest. See `SnapshotWriter.write`.

        Raises:
            VaultError: no vault is left that takes it. What `source` raises comes through.
        """
        codecs = _codecs(already, compress=compress)
        full = _with_suffixes(name, codecs)
        if not PART.fullmatch(full):
            raise ValueError(f"{full!r} is no object name")
        # manifests are readable without a key: no digest by which guessed passwords could be tried. And what the host
        # compressed was never seen plain here
        told = not already and self._asset is not Asset.SECRETS and not name.startswith("globals")
        sealed = self._store(snapshot_prefix(self._id) + full, source, compress=compress, plain_digest=told)
        return self._add(full, "", codecs, sealed)

    def write_shared(self, key: str, source: Source, *, compress: bool) -> ObjectEntry:
        """As `write`, under a key of its own; `key` is without the codecs' suffixes."""
        codecs = _codecs((), compress=compress)
        full = check_key(_with_suffixes(key, codecs))
        sealed = self._store(full, source, compress=compress, plain_digest=True)
        return self._add(full.rpartition("/")[2], full, codecs, sealed)

    def refer(self, entries: Sequence[ObjectEntry]) -> None:
        """Count existing shared objects as part of this snapshot; `commit` looks whether each vault has them."""
        for entry in entries:
            check_key(entry.key)
        self._referred += entries

    def carry(self, entry: ObjectEntry, source: Source, key: str = "") -> ObjectEntry:
        """Store anew what an object of another snapshot held below age; all else that its entry says stays.

        A shared object gets a key of its own that ends in the entry's name; without `key` it is beside the manifest.
        """
        place = check_key(key) if key else snapshot_prefix(self._id) + entry.name
        sealed = self._store(place, source, compress=False, plain_digest=False)
        carried = entry.model_copy(update={"key": key, "bytes": sealed.bytes, "sha256": sealed.sha256})
        self._entries.append(carried)
        return carried

    def commit(
        self, facts: Mapping[str, Any], *, warnings: Sequence[str] = (), seconds: float | None = None
    ) -> Manifest:
        """Check what each vault took, then write the manifest to each that took all.

        Args:
            facts: what the asset knows of itself.
            warnings: what was left out.
            seconds: how long the backup took, where that is not the time since it was begun here.

        Raises:
            VaultError: no vault is left; nothing is listed anywhere.
        """
        if self._finished:
            raise RuntimeError("this snapshot is finished")
        took = time.monotonic() - self._began if seconds is None else seconds
        manifest = Manifest(
            format=FORMAT,
            id=self._id,
            host=self._host,
            asset=self._asset,
            run=self._run,
            started_at=self._started_at,
            finished_at=self._started_at + timedelta(seconds=took),
            tool_version=_tool_version(),
            recipients=self._recipients,
            objects=self._entries + self._referred,
            facts=dict(facts),
            in_part=bool(warnings),
            warnings=[clean(text) for text in warnings],
        )
        data = written(manifest, self._sign)
        if len(data) > MAX_MANIFEST:
            raise VaultError("the manifest of this snapshot is too long", "Report this as a bug.")
        for vault in list(self._live):
            try:
                self._check(vault)
                self._guard(vault)
                self._announced.add(vault.name)
                vault.put_new(manifest_key(self._id), data)
                # who took over our lease meanwhile may have removed shared objects that only this manifest names
                self._guard(vault)
                self._check(vault)
            except VaultError as error:
                self._drop(vault, error)
        self._some_left()
        self._finished = True
        return manifest

    def discard(self) -> None:
        """Remove everything that was written. Never raises; does nothing after `commit`."""
        if self._finished:
            return
        self._finished = True
        for vault in self._live:
            self._remove(vault)
        self._live = []

    def _store(self, key: str, source: Source, *, compress: bool, plain_digest: bool) -> Sealed:
        if self._finished:
            raise RuntimeError("this snapshot is finished")
        self._some_left()
        for vault in self._live:
            self._written[vault.name].append(key)
        fanout = Fanout(self._live, key)
        try:
            sealed = seal(source, fanout.write, self._keys, compress=compress, plain_digest=plain_digest)
            fanout.commit()
        except BaseException:
            fanout.abort()
            self._drop_failed(fanout)
            raise
        for lane in fanout.lanes:
            if lane.error is None and lane.count != sealed.bytes:
                lane.error = VaultError(f"the vault {lane.vault.name} took too few bytes", "Report this as a bug.")
        self._drop_failed(fanout)
        self._some_left()
        return sealed

    def _add(self, name: str, key: str, codecs: list[Literal["zstd", "age"]], sealed: Sealed) -> ObjectEntry:
        entry = ObjectEntry(
            name=name,
            key=key,
            bytes=sealed.bytes,
            sha256=sealed.sha256,
            codecs=codecs,
            plain_bytes=sealed.plain_bytes,
            plain_sha256=sealed.plain_sha256,
        )
        self._entries.append(entry)
        return entry

    def _check(self, vault: Vault) -> None:
        """Compare what a vault holds with what it should hold. Raises `VaultError`."""
        prefix = snapshot_prefix(self._id)
        entries = self._entries + self._referred
        require_objects(vault, {entry.key or prefix + entry.name: entry.bytes for entry in entries})

    def _drop_failed(self, fanout: Fanout) -> None:
        for lane in fanout.lanes:
            if lane.error is not None:
                self._drop(lane.vault, lane.error)

    def _drop(self, vault: Vault, error: VaultError) -> None:
        """Go on without a vault, and remove from it what it took."""
        if vault not in self._live:
            return
        self._live.remove(vault)
        self.lacking[vault.name] = error
        self._log(f"the vault {vault.name} will lack this snapshot: {error.sentence}")
        if not isinstance(error, VaultStalled):
            self._remove(vault)
        elif self._stalled is not None:  # removing would hang, too: what is there is a leftover
            self._stalled(vault, error)

    def _remove(self, vault: Vault) -> None:
        """Manifest first: while it may be there, the objects stay, so that nothing torn is ever listed."""
        try:
            if vault.name in self._announced:
                vault.delete(manifest_key(self._id))
        except Exception as error:  # noqa: BLE001 - discard never raises
            self._log(f"what was written to the vault {vault.name} stays there: {type(error).__name__}")
            return
        for key in self._written[vault.name]:
            with suppress(Exception):  # what stays is a leftover, which prune removes
                vault.delete(key)

    def _some_left(self) -> None:
        if self._live:
            return
        if self.lacking:
            raise list(self.lacking.values())[-1]
        raise VaultError("there is no vault to write to", "`mastovault vault add NAME DIRECTORY` adds one.")


def _ignore(line: str) -> None:
    pass


def _allow(vault: Vault) -> None:
    pass


def _codecs(already: tuple[Literal["zstd"], ...], *, compress: bool) -> list[Literal["zstd", "age"]]:
    return [*already, *(["zstd"] if compress else []), "age"]  # type: ignore[list-item]


def _with_suffixes(name: str, codecs: Sequence[str]) -> str:
    for codec in codecs:
        suffix = _SUFFIXES[codec]
        name = name if name.endswith(suffix) else name + suffix
    return name


def _tool_version() -> str:
    try:
        return version("mastovault")
    except PackageNotFoundError:
        return "unknown"
