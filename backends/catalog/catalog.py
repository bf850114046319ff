"""The catalogue: what all vaults hold, merged, and what the hosts were last seen to be."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.archive.layout import HOSTS, MANIFEST_KEY, manifest_key
from backends.archive.signing import trust_of
from backends.catalog import observed
from backends.catalog.checks import CheckInfo, Drill, Proof, checks_of, drills_of, proofs_of
from backends.catalog.merge import Row, merged, worth
from backends.catalog.refresh import forget, note_failure, refresh
from backends.catalog.status import VaultStatus, statuses
from backends.catalog.store import Store
from backends.catalog.usage import VaultUsage, together, usage_of
from backends.errors import NotFound
from backends.model import Asset, Attempt, HostObservation, JobState, SnapshotInfo, Trust, utc_now
from backends.untrusted import clean
from backends.vault.base import Vault

if TYPE_CHECKING:
    from backends.archive.manifest import Manifest

_CHECKED = """
SELECT s.id, s.host, s.asset, s.at, s.bytes, s.run, s.in_part, s.fingerprint, s.seconds, s.vault,
       c.unchanged, c.verified, c.refuted, c.cleared, s.signature, s.signer, t.why
FROM snapshots s LEFT JOIN (
    SELECT vault, id,
           max(CASE WHEN kind = 'unchanged' AND ok THEN at END) AS unchanged,
           max(CASE WHEN kind = 'verified' AND ok THEN at END) AS verified,
           max(CASE WHEN kind = 'verified' AND NOT ok THEN at END) AS refuted,
           max(CASE WHEN kind = 'verified' AND ok AND whole THEN at END) AS cleared
    FROM checks GROUP BY vault, id
) c ON c.vault = s.vault AND c.id = s.id
LEFT JOIN torn t ON t.vault = s.vault AND t.key = s.key
"""
_REFUTED = "WHERE why IS NOT NULL OR (refuted IS NOT NULL AND (cleared IS NULL OR cleared <= refuted))"
_NEWEST_FIRST = " ORDER BY s.at DESC, s.id DESC, s.vault"
_RECENT = """
WITH merged AS (SELECT id, host, asset, max(at) AS at, max({trusted}) AS trusted FROM snapshots GROUP BY id),
     ranked AS (
         SELECT id, row_number() OVER (PARTITION BY host, asset, trusted ORDER BY at DESC, id DESC) AS place FROM merged
     )
"""
_TRIES = """
SELECT host, asset, at, state, error FROM (
    SELECT host, asset, at, state, error,
           row_number() OVER (PARTITION BY host, asset ORDER BY at DESC, key DESC) AS place
    FROM (SELECT * FROM attempts GROUP BY key)
    WHERE state IN ('done', 'failed')
) WHERE place <= ? ORDER BY host, asset, place
"""
_ATTEMPTS = "SELECT host, asset, run, at, seconds, state, snapshot, bytes, error, in_part FROM attempts"

Pair = tuple[str, Asset]


class Catalog:
    """The cache of all vaults in a directory. Safe for several threads and processes at once, and disposable.

    Every method raises `CacheFailed` when the directory cannot be used.

    Args:
        cache_dir: where the cache is, or will be.
        signers: whom the configuration trusts, by name. Without them no signature is judged.
    """

    def __init__(self, cache_dir: Path, signers: Mapping[str, str] | None = None) -> None:
        self._store = Store(cache_dir)
        self._signers = dict(signers or {})

    def trusting(self, signers: Mapping[str, str]) -> Catalog:
        """The same catalogue, as somebody sees it who trusts these signers."""
        return Catalog(self._store.directory, signers)

    def trust(self, snapshot: SnapshotInfo) -> Trust:
        """What the signature of a snapshot's manifest is worth to whoever trusts these signers."""
        return trust_of(snapshot.signature, snapshot.signer, self._signers)

    def refresh_vault(
        self, vault: Vault, also: Collection[str] = (), beat: Callable[[], None] = lambda: None
    ) -> VaultStatus:
        """Read what is new in a vault. One that is away keeps what was last known of it, and says why.

        Args:
            vault: the vault.
            also: ids of snapshots that were just committed to it: a listing may lag behind.
            beat: told now and then that it goes on.
        """
        refresh(self._store, vault, also, beat)
        return next(status for status in self.vaults() if status.name == vault.name)

    def usage(self, vault: str | None = None, now: datetime | None = None) -> VaultUsage:
        """What a vault holds and how that grew, as last seen; without a name of all vaults together."""
        at = now or utc_now()
        with self._store.reading() as cache:
            names = [name for (name,) in cache.execute("SELECT name FROM vaults")] if vault is None else [vault]
            each = [usage_of(cache, name, at) for name in names]
        return together(each) if vault is None else each[0]

    def note_vault(self, name: str, where: str, *, offsite: bool, error: str) -> None:
        """Remember why a vault cannot be looked at."""
        with self._store.writing() as cache:
            note_failure(cache, name, where, offsite=offsite, error=error)

    def keep_vaults(self, names: Collection[str]) -> None:
        """Forget every other vault: it is not configured any more."""
        with self._store.reading() as cache:
            known = {name for (name,) in cache.execute("SELECT name FROM vaults")}
        if gone := known - set(names):
            with self._store.writing() as cache:
                for name in gone:
                    forget(cache, name)

    def vaults(self) -> list[VaultStatus]:
        """Every vault that was looked at, by name."""
        with self._store.reading() as cache:
            return statuses(cache)

    def snapshots(self, host: str | None = None, asset: Asset | None = None) -> list[SnapshotInfo]:
        """Snapshots over all vaults, newest first; of a vault's damaged copies only those that have no good one."""
        where, values = _where(host, asset, "s.")
        with self._store.reading() as cache:
            return self._merge(cache.execute(_CHECKED + where + _NEWEST_FIRST, values), drills_of(cache))

    def _merge(self, rows: Iterable[tuple[Any, ...]], drills: Mapping[str, list[Drill]]) -> list[SnapshotInfo]:
        """One value per snapshot from the rows of the vaults that hold it."""
        held: dict[str, list[Row]] = {}
        for row in rows:
            held.setdefault(row[0], []).append(Row(*row))
        return [merged(copies, drills.get(name, []), self._signers) for name, copies in held.items()]

    def recent(self, count: int) -> dict[Pair, list[SnapshotInfo]]:
        """The newest `count` snapshots of every asset of every host, newest first.

        Those that are not trusted come on top of them, as many: nobody hides the others by writing some.
        """
        # as `trust_of`, for what it calls good
        trusted = "signature != 'bad'"
        if self._signers:
            trusted = f"signature = 'good' AND signer IN ({', '.join('?' * len(self._signers))})"
        query = f"{_RECENT.format(trusted=trusted)}{_CHECKED} JOIN ranked ON ranked.id = s.id WHERE place <= ?"
        values = (*(key.strip() for key in self._signers.values()), count)
        grouped: dict[Pair, list[SnapshotInfo]] = {}
        with self._store.reading() as cache:
            for snapshot in self._merge(cache.execute(query + _NEWEST_FIRST, values), drills_of(cache)):
                grouped.setdefault((snapshot.host, snapshot.asset), []).append(snapshot)
        return grouped

    def damaged(self) -> dict[str, int]:
        """By vault, how many copies in it failed their last verification, or lack something."""
        with self._store.reading() as cache:
            rows = cache.execute(f"SELECT vault, count(*) FROM ({_CHECKED}) {_REFUTED} GROUP BY vault").fetchall()  # noqa: S608
        return dict(rows)

    def unread(self, host: str) -> list[tuple[str, str, str]]:
        """Manifests of a host that could not be read or understood: the vault, the snapshot's id, and why."""
        query = "SELECT vault, key, why FROM unreadable WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key DESC, vault"
        with self._store.reading() as cache:
            found = [(*row, MANIFEST_KEY.fullmatch(row[1])) for row in cache.execute(query, (f"{HOSTS}{host}/",))]
        return [(vault, match["id"], why) for vault, _, why, match in found if match]

    def proofs(self) -> dict[Pair, Proof]:
        """How the drills of every asset went, whichever of its snapshots they were of."""
        with self._store.reading() as cache:
            return proofs_of(drills_of(cache))

    def checks(self, snapshot_id: str) -> list[CheckInfo]:
        """Everything that was ever found out about a snapshot, newest first; a drill stands here once per vault."""
        with self._store.reading() as cache:
            return checks_of(cache, snapshot_id)

    def recent_attempts(self, count: int) -> dict[Pair, list[tuple[datetime, bool, str]]]:
        """The last `count` attempts of every asset that ended, newest first: when, whether it was good, its error."""
        grouped: dict[Pair, list[tuple[datetime, bool, str]]] = {}
        with self._store.reading() as cache:
            for host, asset, at, state, error in cache.execute(_TRIES, (count,)):
                one = (datetime.fromtimestamp(at, UTC), state == JobState.DONE.value, error or "")
                grouped.setdefault((host, Asset(asset)), []).append(one)
        return grouped

    def attempts(self, host: str | None = None, asset: Asset | None = None, limit: int = 100) -> list[Attempt]:
        """Every try to back up, newest first, failures too."""
        where, values = _where(host, asset, "")
        query = _ATTEMPTS + where + " GROUP BY key ORDER BY at DESC, key DESC LIMIT ?"
        with self._store.reading() as cache:
            rows = cache.execute(query, (*values, limit)).fetchall()
        return [
            Attempt(
                host=row[0],
                asset=Asset(row[1]),
                run=row[2],
                at=datetime.fromtimestamp(row[3], UTC),
                seconds=row[4],
                state=JobState(row[5]),
                snapshot=row[6],
                bytes=row[7],
                error=row[8],
                in_part=bool(row[9]),
            )
            for row in rows
        ]

    def attempts_beyond(self, source: str, target: str, host: str, asset: Asset) -> list[str]:
        """Keys of the records of attempts that one vault holds and another does not, newest first."""
        query = (
            "SELECT key FROM attempts WHERE vault = ? AND host = ? AND asset = ?"
            " AND key NOT IN (SELECT key FROM attempts WHERE vault = ?) ORDER BY at DESC"
        )
        with self._store.reading() as cache:
            return [key for (key,) in cache.execute(query, (source, host, asset.value, target))]

    def manifest(self, snapshot_id: str) -> Manifest:
        """The whole manifest of a snapshot, the most trusted one of its vaults. Raises `NotFound`."""
        from backends.archive.reader import parse_sealed

        key = manifest_key(snapshot_id)
        with self._store.reading() as cache:
            rows = cache.execute(
                "SELECT m.data, s.signature, s.signer FROM manifests m JOIN snapshots s USING (vault, key)"
                " WHERE m.key = ? ORDER BY m.vault",
                (key,),
            ).fetchall()
        if not rows:
            raise NotFound(f"the snapshot {clean(snapshot_id, 120)} is not known", "`mastovault list` shows them.")
        best = min(rows, key=lambda row: worth(row[1], row[2], self._signers))
        return parse_sealed(key, zlib.decompress(best[0]))[0]

    def newest_trusted(self, host: str, asset: Asset) -> SnapshotInfo | None:
        """The newest snapshot that is not known to be damaged, of those whose writer is trusted."""
        found = self.snapshots(host, asset)
        return next((each for each in found if not each.verify_failed and self.trust(each).good), None)

    def newest_manifest(self, host: str, asset: Asset) -> Manifest | None:
        """The manifest of the newest snapshot that is not known to be damaged, of those whose writer is trusted."""
        newest = self.newest_trusted(host, asset)
        return self.manifest(newest.id) if newest else None

    def save_observation(self, seen: HostObservation) -> None:
        """Remember how a host was seen, unless a later look is known already."""
        with self._store.writing() as cache:
            cache.execute(
                "INSERT INTO observations VALUES (?, ?, ?) ON CONFLICT (host) DO UPDATE "
                "SET asked_at = excluded.asked_at, document = excluded.document WHERE excluded.asked_at >= asked_at",
                (seen.host, seen.asked_at.timestamp(), observed.encode(seen)),
            )

    def observations(self) -> list[HostObservation]:
        """How every host was last seen, by name."""
        with self._store.reading() as cache:
            rows = cache.execute("SELECT document FROM observations ORDER BY host").fetchall()
        return [observed.decode(document) for (document,) in rows]


def _where(host: str | None, asset: Asset | None, table: str) -> tuple[str, tuple[str, ...]]:
    wanted = [("host", host), ("asset", asset.value if asset else None)]
    given = [(column, value) for column, value in wanted if value is not None]
    clauses = " AND ".join(f"{table}{column} = ?" for column, _ in given)
    return (f" WHERE {clauses}" if given else ""), tuple(value for _, value in given)
