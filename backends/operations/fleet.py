"""The fleet as the screens show it: every asset of every host with its age, risk and reasons.

Made from the cache alone, so that it is there at once; `refresh_vaults` brings the cache up to date.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import TypedDict

from backends.archive.signing import trust_of
from backends.catalog import Catalog, Proof, VaultStatus
from backends.config.schema import Config
from backends.model import (
    Asset,
    AssetObservation,
    AssetStatus,
    HostObservation,
    HostState,
    Level,
    SnapshotInfo,
    Trust,
)
from backends.operations.custody import custody_of
from backends.operations.fleet_refresh import refresh_vaults
from backends.operations.fleet_words import EMPTY, NOTHING_YET, drill_words, state_text
from backends.operations.storage import vault_status
from backends.operations.trust_words import distrust
from backends.risk import AssetFacts, assess

__all__ = ["Fleet", "VaultStatus", "load_fleet", "refresh_vaults"]

_HISTORY = 6
"""Snapshots that are looked at: the newest, and those that tell its usual size."""
_TRIES = 20
_UNKNOWN_RANKS_AS = 39.5
"""Sorts what is not known above everything that is known to be MED or better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All rows, worst first, with the hosts and vaults behind them."""

    generated_at: datetime
    assets: tuple[AssetStatus, ...]
    hosts: tuple[HostObservation, ...]
    vaults: tuple[VaultStatus, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """Everything the cache says, read once."""

    now: datetime
    config: Config
    vaults: dict[str, VaultStatus]
    hosts: dict[str, HostObservation]
    snapshots: dict[tuple[str, Asset], list[SnapshotInfo]]
    proofs: dict[tuple[str, Asset], Proof]
    attempts: dict[tuple[str, Asset], list[tuple[datetime, bool, str]]]


class _Places(TypedDict):
    copies: int
    offsite: bool
    same_machine: bool


def load_fleet(config: Config, catalog: Catalog, now: datetime) -> Fleet:
    """Every asset of every configured host, worst first. Reads the cache only. Raises `CacheFailed`."""
    catalog = catalog.trusting(config.signers)
    seen = {status.name: status for status in catalog.vaults()}
    known = _Known(
        now=now,
        config=config,
        vaults={name: vault_status(name, its, seen.get(name)) for name, its in config.vaults.items()},
        hosts={host.host: host for host in catalog.observations() if host.host in config.hosts},
        snapshots=catalog.recent(_HISTORY),
        proofs=catalog.proofs(),
        attempts=catalog.recent_attempts(_TRIES),
    )
    rows = [_row(known, host, asset) for host, its in config.hosts.items() for asset in its.assets]
    return Fleet(
        generated_at=now,
        assets=tuple(sorted(rows, key=_urgency)),
        hosts=tuple(known.hosts.values()),
        vaults=tuple(known.vaults.values()),
    )


def _urgency(row: AssetStatus) -> tuple[float, int, str]:
    score = max(float(row.score), _UNKNOWN_RANKS_AS) if row.level is Level.UNKN else float(row.score)
    return -score, -row.asset.impact, row.host


def _row(known: _Known, host: str, asset: Asset) -> AssetStatus:
    listed = [
        snapshot
        for snapshot in known.snapshots.get((host, asset), [])
        if any(name in known.vaults for name in snapshot.vaults)
    ]
    history = [snapshot for snapshot in listed if _trust(known, snapshot).good]
    newest = history[0] if history else None
    seen = known.hosts.get(host)
    looked = _observation(seen, asset)
    if _is_empty(known, host, seen):
        return _nothing_to_lose(known, host, asset)
    facts = replace(_facts(known, host, asset, history, looked), untrusted=_untrusted(known, listed))
    assessment = min(
        (assess(each) for each in (facts, *_fallbacks(known, host, facts, history, looked))),
        key=lambda each: each.score,
    )
    return AssetStatus(
        host=host,
        asset=asset,
        level=assessment.level,
        score=assessment.score,
        state=state_text(facts, newest, seen, looked, known.now, vaults_answer=_vaults_answer(known, host, newest)),
        reasons=assessment.reasons,
        goal_seconds=facts.goal_seconds,
        newest=newest,
        stale=_is_stale(known, host, newest, seen, kept=_kept(looked)),
        proof=drill_words(known.proofs.get((host, asset), Proof()), known.now),
    )


def _trust(known: _Known, snapshot: SnapshotInfo) -> Trust:
    return trust_of(snapshot.signature, snapshot.signer, known.config.signers)


def _untrusted(known: _Known, newest_first: list[SnapshotInfo]) -> str:
    """What is wrong with a snapshot that is newer than the newest trusted one, or with a copy of that one."""
    if not newest_first:
        return ""
    newest = newest_first[0]
    if why := distrust(_trust(known, newest), newest.signer, known.config.signers):
        return f"the newest snapshot {why}"
    if newest.altered:
        return f"another manifest of the newest snapshot is in {' and '.join(newest.altered)}"
    return ""


def _nothing_to_lose(known: _Known, host: str, asset: Asset) -> AssetStatus:
    goal = known.config.goal(host, asset)
    return AssetStatus(
        host=host,
        asset=asset,
        level=Level.OK,
        score=0,
        state=EMPTY,
        reasons=(),
        goal_seconds=None if goal is None else goal.total_seconds(),
        newest=None,
    )


def _facts(
    known: _Known, host: str, asset: Asset, history: list[SnapshotInfo], looked: AssetObservation | None
) -> AssetFacts:
    newest = history[0] if history else None
    goal = known.config.goal(host, asset)
    seen = known.hosts.get(host)
    fails = _failures(known, host, asset, newest)
    custody = custody_of(known.config.encryption, known.now)
    proof = known.proofs.get((host, asset), Proof())
    return AssetFacts(
        asset=asset,
        age_seconds=_age(known.now, newest, seen, looked),
        goal_seconds=None if goal is None else goal.total_seconds(),
        differs=_differs(newest, looked),
        verify_failed=newest is not None and newest.verify_failed,
        torn=newest.torn if newest is not None and newest.verify_failed else "",
        **_places(known, newest, seen),
        failed_runs=len(fails),
        failure=fails[0] if fails else "",
        bytes=newest.bytes if newest else None,
        usual_bytes=int(median(each.bytes for each in history[1:])) if len(history) > 1 else None,
        opens_dump=newest.opens_dump if newest else None,
        drill_failed=newest is not None and newest.drill_failed,
        last_drill_failed=proof.failed_at is not None,
        drilled_seconds=None if proof.proven_at is None else max(0.0, (known.now - proof.proven_at).total_seconds()),
        custody_confirmed=custody.confirmed,
        custody_seconds=custody.seconds,
        healthy_standby=looked is not None and looked.healthy_standby,
        provider=(looked.provider or "") if looked is not None else "",
        asked=_host_answers(seen, looked) and (_kept(looked) or _vaults_answer(known, host, newest)),
    )


def _fallbacks(
    known: _Known, host: str, facts: AssetFacts, history: list[SnapshotInfo], looked: AssetObservation | None
) -> list[AssetFacts]:
    """The same with the age and the places of older snapshots.

    Without them one more snapshot that a vault elsewhere did not take would be riskier than none.
    """
    seen = known.hosts.get(host)
    found = []
    for older in history[1:]:
        if older.verify_failed or older.fingerprint != history[0].fingerprint:
            continue
        age = _age(known.now, older, seen, looked)
        found.append(replace(facts, age_seconds=age, **_places(known, older, seen)))
    return found


def _places(known: _Known, snapshot: SnapshotInfo | None, seen: HostObservation | None) -> _Places:
    copies = [known.vaults[name] for name in snapshot.vaults if name in known.vaults] if snapshot else []
    return {
        "copies": len(copies),
        "offsite": any(vault.offsite for vault in copies),
        "same_machine": bool(copies) and all(_on_machine(vault, seen) for vault in copies),
    }


def _age(
    now: datetime, newest: SnapshotInfo | None, seen: HostObservation | None, looked: AssetObservation | None
) -> float | None:
    """Seconds since the copy was last known to be what the host holds."""
    if newest is None:
        return None
    good = [newest.at]
    if newest.checked_at:
        good.append(newest.checked_at)
    if seen and looked and looked.fingerprint and looked.fingerprint == newest.fingerprint:
        good.append(seen.asked_at)
    return max(0.0, (now - max(good)).total_seconds())


def _differs(newest: SnapshotInfo | None, looked: AssetObservation | None) -> bool:
    """Whether the host was seen to hold other secrets than the copy; False while that is not known."""
    return bool(
        newest and newest.fingerprint and looked and looked.fingerprint and looked.fingerprint != newest.fingerprint
    )


def _failures(known: _Known, host: str, asset: Asset, newest: SnapshotInfo | None) -> list[str]:
    """What the attempts said that failed since the last good one, newest first."""
    said = []
    for at, good, error in known.attempts.get((host, asset), []):
        if good or (newest is not None and at < newest.at):
            break
        said.append(error)
    return said


def _observation(seen: HostObservation | None, asset: Asset) -> AssetObservation | None:
    return next((each for each in seen.assets if each.asset is asset), None) if seen else None


def _host_answers(seen: HostObservation | None, looked: AssetObservation | None) -> bool:
    return seen is not None and seen.state is HostState.ONLINE and (looked is None or looked.present)


def _is_empty(known: _Known, host: str, seen: HostObservation | None) -> bool:
    """Whether a host was seen to hold nothing, and no database or secrets are known of it: nothing can be lost."""
    if seen is None or seen.state is not HostState.ONLINE or not seen.assets:
        return False
    nothing = all(not each.present and each.detail == NOTHING_YET for each in seen.assets)
    return nothing and not any(known.snapshots.get((host, asset)) for asset in (Asset.DATABASE, Asset.SECRETS))


def _kept(looked: AssetObservation | None) -> bool:
    """Whether an object storage keeps it, so that the vaults do not matter."""
    return looked is not None and bool(looked.provider)


def _is_stale(
    known: _Known, host: str, newest: SnapshotInfo | None, seen: HostObservation | None, *, kept: bool
) -> bool:
    """Whether a row shows what was last known of a host or a vault that is away."""
    if seen is None or seen.state is HostState.UNASKED:
        return False
    return seen.state is not HostState.ONLINE or not (kept or _vaults_answer(known, host, newest))


def _vaults_answer(known: _Known, host: str, newest: SnapshotInfo | None) -> bool:
    """Whether what is known of the newest snapshot is of now: a vault that holds it answered, or all did."""
    answering = {name for name, vault in known.vaults.items() if vault.read_at and not vault.error}
    if newest is not None and answering.intersection(newest.vaults):
        return True
    return all(name in answering for name in known.config.vaults_of(host))


def _on_machine(vault: VaultStatus, seen: HostObservation | None) -> bool:
    return bool(seen and seen.machine_id and vault.machine_id == seen.machine_id and not vault.offsite)
