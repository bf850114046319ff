"""Observations as JSON for the cache; all text in them is cleaned on the way in."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from backends.model import Asset, AssetObservation, HostObservation, HostState
from backends.untrusted import clean


def encode(seen: HostObservation) -> str:
    """One observation as JSON."""
    document = asdict(seen)
    document["asked_at"], document["since"] = seen.asked_at.isoformat(), seen.since.isoformat()
    cleaned: dict[str, Any] = _clean(document)
    return json.dumps(cleaned)


def decode(text: str) -> HostObservation:
    """What `encode` made."""
    document = json.loads(text)
    assets = tuple(
        AssetObservation(**(each | {"asset": Asset(each["asset"]), "warnings": tuple(each["warnings"])}))
        for each in document["assets"]
    )
    times = {name: datetime.fromisoformat(document[name]) for name in ("asked_at", "since")}
    return HostObservation(**(document | times | {"state": HostState(document["state"]), "assets": assets}))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {name: _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value
