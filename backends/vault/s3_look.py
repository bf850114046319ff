"""What a bucket's settings are, in words."""

from __future__ import annotations

from typing import Literal

from backends.errors import NotFound, VaultDenied, VaultError
from backends.untrusted import clean
from backends.vault.base import VaultLook
from backends.vault.s3_bucket import Bucket
from backends.vault.s3_errors import NotSupported

_VERSIONING: dict[str, Literal["on", "suspended"]] = {"Enabled": "on", "Suspended": "suspended"}


def look_at(bucket: Bucket) -> VaultLook:
    """Versioning and the Object Lock that new objects get. Never raises."""
    notes: list[str] = []
    versioning: Literal["on", "off", "suspended", ""] = ""
    lock = ""
    try:
        status = bucket.call("GetBucketVersioning").get("Status")
        versioning = _VERSIONING.get(str(status), "off")
    except VaultError as error:
        _note(error, notes)
    try:
        lock = _lock(bucket)
    except VaultError as error:
        _note(error, notes)
    days = bucket.config.lock_days
    if days:
        lock = f"{bucket.config.lock_mode}, {days} days"
    return VaultLook(versioning=versioning, object_lock=lock, note="; ".join(dict.fromkeys(notes)))


def _lock(bucket: Bucket) -> str:
    """The bucket's default. Raises `VaultError`."""
    settings = bucket.call("GetObjectLockConfiguration").get("ObjectLockConfiguration", {})
    rule = settings.get("Rule", {}).get("DefaultRetention", {})
    if rule:
        many, unit = (rule["Days"], "days") if rule.get("Days") else (rule.get("Years", 0), "years")
        return clean(f"{str(rule.get('Mode', '')).lower()}, {many} {unit}", 60)
    return "possible, not by default" if settings.get("ObjectLockEnabled") == "Enabled" else ""


def _note(error: VaultError, notes: list[str]) -> None:
    """Keep what somebody should know; a provider that knows no such setting has none."""
    if isinstance(error, NotSupported | NotFound):
        return
    notes.append(error.sentence if isinstance(error, VaultDenied) else f"not known: {error.sentence}")
