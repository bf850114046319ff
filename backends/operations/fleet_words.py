"""What the state column of the fleet says, in a few words: the one thing that matters most about a row."""

from __future__ import annotations

from datetime import UTC, datetime

from backends.catalog import Proof
from backends.model import Asset, AssetObservation, HostObservation, HostState, SnapshotInfo
from backends.risk import AssetFacts, span

NOTHING_YET = "nothing here yet"
"""What is seen of every asset of a machine that waits to be restored onto."""
EMPTY = "empty, can be restored onto"
_AWAY = {
    HostState.OFFLINE: "OFFLINE",
    HostState.LOGIN_FAILED: "LOGIN FAILED",
    HostState.HOST_KEY_CHANGED: "HOST KEY CHANGED",
    HostState.HOST_KEY_UNKNOWN: "host key not accepted",
    HostState.NO_MASTODON: "no Mastodon found",
    HostState.FAILED: "FAILED",
}


def state_text(
    facts: AssetFacts,
    newest: SnapshotInfo | None,
    seen: HostObservation | None,
    looked: AssetObservation | None,
    now: datetime,
    *,
    vaults_answer: bool,
) -> str:
    """The words for one row; `vaults_answer` says whether what is known of its copies is of now."""
    if seen is None or seen.state is HostState.UNASKED:
        return "not asked yet"
    if seen.state is not HostState.ONLINE:
        return f"{_AWAY[seen.state]} since {clock(seen.since, now)}"
    if facts.provider:
        return f"kept by {facts.provider}"
    if not vaults_answer:
        return "vault not readable"
    if looked is not None and not looked.present:
        return "not found on the host" if newest is None else "no longer found on the host"
    return _trouble(facts) or _fine(facts, newest, now)


def proof_words(snapshot: SnapshotInfo | None, now: datetime) -> str:
    """What the drills of one snapshot showed: `restore takes 3 m 10 s, proven 6 d ago`."""
    if snapshot is None:
        return ""
    # Which of two drills is the later one is not asked: a snapshot whose last one failed has none that counts.
    failed_at = now if snapshot.drill_failed else None
    proof = Proof(proven_at=snapshot.drilled_at, seconds=snapshot.drill_seconds, failed_at=failed_at)
    return drill_words(proof, now)


def drill_words(proof: Proof, now: datetime) -> str:
    """What the drills of an asset showed."""
    if proof.failed_at is not None:
        return "the last drill FAILED"
    if proof.proven_at is None:
        return "never proven by a drill"
    ago = f"proven {took((now - proof.proven_at).total_seconds(), parts=1)} ago"
    return ago if proof.seconds is None else f"restore takes {took(proof.seconds)}, {ago}"


def took(seconds: float, *, parts: int = 2) -> str:
    """A duration in words of one or two parts: `3 m 10 s`, `2 h 05 m`, `6 d`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    place = next(number for number, (_, size) in enumerate(units) if whole >= size)
    (sign, size), (next_sign, next_size) = units[place], units[place + 1]
    first, rest = divmod(whole, size)
    return f"{first} {sign}" if parts == 1 else f"{first} {sign} {rest // next_size:02d} {next_sign}"


def clock(moment: datetime, now: datetime) -> str:
    """`05:12` for today, `11-20 05:12` for another day; UTC."""
    at, today = moment.astimezone(UTC), now.astimezone(UTC)
    return at.strftime("%H:%M" if at.date() == today.date() else "%m-%d %H:%M")


def _trouble(facts: AssetFacts) -> str:
    failed = "last run FAILED" if facts.failed_runs == 1 else f"last {facts.failed_runs} runs FAILED"
    if facts.age_seconds is None and facts.untrusted:
        return "no TRUSTED snapshot"
    if facts.age_seconds is None:
        return f"never backed up, {failed}" if facts.failed_runs else "never backed up"
    if facts.verify_failed:
        return "DAMAGED" if facts.torn else "verification FAILED"
    if facts.differs:
        return "changed since the copy"
    if facts.opens_dump is False:
        return "does not open the dump" if facts.asset is Asset.SECRETS else "not opened by the secrets"
    if facts.drill_failed:
        return "drill FAILED"
    if facts.failed_runs:
        return failed
    if facts.untrusted:
        return "newest copy NOT TRUSTED"
    if facts.goal_seconds is not None and facts.age_seconds > facts.goal_seconds:
        return f"overdue {span(facts.age_seconds - facts.goal_seconds)}"
    return ""


def _fine(facts: AssetFacts, newest: SnapshotInfo | None, now: datetime) -> str:
    if newest is None or facts.age_seconds is None:
        return ""
    part = "in part, " if newest.in_part else ""
    if facts.asset is Asset.SECRETS and facts.goal_seconds is None:
        known = "unchanged" if newest.fingerprint else "kept"
        return f"{part}{known}, checked {span(facts.age_seconds)} ago"
    if not part and newest.verified_at is not None:
        return f"verified {span((now - newest.verified_at).total_seconds())} ago"
    left = (facts.goal_seconds or 0.0) - facts.age_seconds
    return f"{part}due in {span(left)}"
