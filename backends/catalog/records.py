"""The small records beside snapshots, kept in the vaults so that everybody sees the same history (docs/format.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from backends.archive.layout import MAX_RECORD, check_key_of, manifest_key, record_key
from backends.errors import Damaged, NotFound, VaultError
from backends.model import Asset, Attempt, JobState, rfc3339
from backends.untrusted import DEFAULT_LIMIT, clean
from backends.vault.base import Vault

FORMAT = 1
CheckKind = Literal["unchanged", "verified", "drilled"]
_KINDS = frozenset({"unchanged", "verified", "drilled"})
_MAX_NUMBER = 1 << 60
_MAX_SECONDS = 1e9
_DEEP = 6


class Check(NamedTuple):
    """What one check found; `details` are cleaned."""

    kind: str
    at: datetime
    ok: bool
    details: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether everything was looked at, not a sample of it."""
        return self.details.get("whole") is not False

    @property
    def seconds(self) -> float | None:
        """How long restoring took, in a drill."""
        found = self.details.get("restore_seconds")
        return float(found) if isinstance(found, int | float) and 0 <= found < _MAX_SECONDS else None

    @property
    def opens(self) -> bool | None:
        """Whether the secrets opened the database, in a drill; None when that was not to be seen."""
        return {"opens": True, "locked": False}.get(str(self.details.get("pair")))


def record_attempt(vaults: Sequence[Vault], attempt: Attempt) -> dict[str, VaultError]:
    """Write how an attempt ended into every vault.

    Returns:
        The vaults that did not take it, by name, and why; it never raises for a vault's fault.
    """
    document = {
        "format": FORMAT,
        "host": attempt.host,
        "asset": attempt.asset.value,
        "run": attempt.run,
        "at": _exact(attempt.at),
        "seconds": round(attempt.seconds, 3),
        "state": attempt.state.value,
        "snapshot": attempt.snapshot,
        "bytes": attempt.bytes,
        "error": clean(attempt.error) if attempt.error else None,
        "in_part": attempt.in_part,
    }
    return _put(vaults, record_key(attempt.host, attempt.at), document)


def record_check(
    vaults: Sequence[Vault],
    snapshot_id: str,
    kind: CheckKind,
    at: datetime,
    ok: bool,
    details: Mapping[str, Any],
) -> dict[str, VaultError]:
    """Write what a check of a snapshot found into every one of the vaults that holds it.

    Returns:
        The vaults that did not take it, by name, and why; it never raises for a vault's fault.
    """
    document = {
        "format": FORMAT,
        "snapshot": snapshot_id,
        "kind": kind,
        "at": _exact(at),
        "ok": ok,
        "details": dict(details),
    }
    missing: dict[str, VaultError] = {}
    holding = []
    for vault in vaults:
        try:
            vault.read(manifest_key(snapshot_id)).close()
        except NotFound:
            continue
        except VaultError as error:
            missing[vault.name] = error
        else:
            holding.append(vault)
    return missing | _put(holding, check_key_of(snapshot_id, at), document)


def parse_check(data: bytes, snapshot_id: str) -> Check:
    """The record of a check of that snapshot. Raises `Damaged`."""
    try:
        document = _document(data)
        kind, ok = document["kind"], document["ok"]
        if document["snapshot"] != snapshot_id or kind not in _KINDS or type(ok) is not bool:
            raise ValueError("not what it says")
        details = document.get("details")
        return Check(kind, _time(document["at"]), ok, _tidy(details) if isinstance(details, dict) else {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Damaged(f"a check of {snapshot_id} cannot be understood") from error


def parse_attempt(data: bytes, host: str) -> Attempt:
    """The record of an attempt on that host. Raises `Damaged`."""
    try:
        document = _document(data)
        seconds, size, error, snapshot = (document[name] for name in ("seconds", "bytes", "error", "snapshot"))
        if document["host"] != host or type(size) is not int or not 0 <= size < _MAX_NUMBER:
            raise ValueError("not what it says")
        return Attempt(
            host=host,
            asset=Asset(document["asset"]),
            run=_text(document["run"], 80),
            at=_time(document["at"]),
            seconds=min(max(float(seconds), 0.0), 1e9),
            state=JobState(document["state"]),
            snapshot=None if snapshot is None else _text(snapshot, 200),
            bytes=size,
            error=None if error is None else _text(error, DEFAULT_LIMIT),
            in_part=document["in_part"] is True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Damaged(f"a run record of {host} cannot be understood") from error


def _put(vaults: Sequence[Vault], key: str, document: Mapping[str, Any]) -> dict[str, VaultError]:
    data = json.dumps(document, indent=2).encode() + b"\n"
    missing: dict[str, VaultError] = {}
    if len(data) > MAX_RECORD:
        raise ValueError("a record is longer than its readers accept")
    for vault in vaults:
        try:
            vault.put_new(key, data)
        except VaultError as error:
            missing[vault.name] = error
    return missing


def _document(data: bytes) -> dict[str, Any]:
    document = json.loads(data, parse_constant=_no_number)
    if not isinstance(document, dict) or type(document["format"]) is not int or document["format"] > FORMAT:
        raise ValueError("of another format")
    return document


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _tidy(value: Any, depth: int = 0) -> Any:
    """A JSON value with all text in it cleaned; what is nested absurdly deep is left out."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict | list) and depth >= _DEEP:
        return None
    if isinstance(value, dict):
        return {clean(name, 100): _tidy(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_tidy(each, depth + 1) for each in value]
    return value


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return clean(value, limit)


def _exact(moment: datetime) -> str:
    """RFC 3339 with microseconds, so that records keep their order."""
    return rfc3339(moment)[:-1] + moment.astimezone(UTC).strftime(".%fZ")


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC)
