"""An early word on whether secrets and dump belong together, from the settings that were backed up beside the dump.

The proof comes when the database is there (`secrets.pair`); this spares loading it for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from backends.archive.layout import MANIFEST_KEY, time_of
from backends.archive.manifest import Manifest
from backends.archive.reader import read_manifest
from backends.errors import MastovaultError
from backends.mastodon.fingerprint import digest_key, key_digests
from backends.mastodon.key_check import ENCRYPTION_KEYS
from backends.model import Asset, Secret
from backends.restore.base import Target
from backends.restore.plan import Finding
from backends.restore.secrets_source import environment_of
from backends.restore.source import Source
from backends.untrusted import clean

PAIR, DOMAIN = "pair", "domain"
"""The words that override secrets that do not open the dump, and a dump of another domain."""
_OLD_KEY = "OTP_SECRET"


def companion(database: Source) -> tuple[Source, Manifest] | None:
    """The settings that were in force when a dump was made: of its run, else the newest before it; None without any.

    Raises:
        MastovaultError: the vaults cannot be asked.
    """
    wanted = database.manifest
    at = time_of(wanted.id)
    for vault in database.vaults:
        prefix = f"hosts/{wanted.host}/{Asset.SECRETS}/"
        keys = (MANIFEST_KEY.fullmatch(stored.key) for stored in vault.list(prefix))
        names = sorted((match["id"] for match in keys if match), key=time_of, reverse=True)
        # Assets of one run are begun within seconds of each other, in any order.
        near = [name for name in names if abs((time_of(name) - at).total_seconds()) < 3600]
        older = next((name for name in names if time_of(name) <= at), None)
        for name in (*near, *([older] if older else ())):
            manifest = read_manifest(vault, name)
            if manifest.run == wanted.run or name == older:
                return Source(manifest=manifest, vaults=[vault], identities=database.identities), manifest
    return None


def early_findings(database: Source, serving: Mapping[str, Secret], target: Target, *, domain: bool) -> list[Finding]:
    """What can be said before anything is loaded; faults of the vaults are no findings, for the proof comes later.

    Args:
        database: the dump.
        serving: the settings that will serve it.
        target: where.
        domain: compare LOCAL_DOMAIN as well (where the settings are not restored with it).
    """
    try:
        found = companion(database)
    except MastovaultError:
        return []
    if found is None:
        return []
    source, manifest = found
    findings: list[Finding] = []
    try:
        then: Mapping[str, Secret] | None = environment_of(source).values
    except MastovaultError:
        then = None
    differs = _differ_by_digest(manifest, serving) if then is None else differing_keys(then, serving)
    if differs:
        text = (
            f"the secrets that will serve the database are not those it was backed up with ({', '.join(differs)} "
            f"differ from {clean(manifest.id, 120)}): its encrypted values could not be read"
        )
        findings.append(
            Finding(
                level="block",
                text=text,
                way_out=f"Restore the settings {manifest.id} with it.",
                asset=Asset.SECRETS,
                accept=PAIR,
            )
        )
    elif differs is not None:
        text = "the secrets that will serve the database are those it was backed up with"
        findings.append(Finding(level="ok", text=text, asset=Asset.SECRETS))
    if domain and then is not None:
        findings += _domain(then, target)
    return findings


def differing_keys(then: Mapping[str, Secret], serving: Mapping[str, Secret]) -> list[str] | None:
    """Names of the keys with which Mastodon encrypts that are not what they were; None when there were none."""
    names = [name for name in ENCRYPTION_KEYS if then.get(name)] or [_OLD_KEY] * bool(then.get(_OLD_KEY))
    if not names:
        return None
    return [name for name in names if serving.get(name) != then[name]]


def _differ_by_digest(manifest: Manifest, serving: Mapping[str, Secret]) -> list[str] | None:
    """As `differing_keys`, from the keyed digests alone; None when they say nothing."""
    digests = manifest.facts.get("key_digests")
    key = digest_key(serving)
    if key is None or not isinstance(digests, dict) or manifest.facts.get("fingerprint_key") != key.source:
        return None
    mine = key_digests(key, {name: serving[name] for name in (*ENCRYPTION_KEYS, key.source) if name in serving})
    if mine[key.source] != digests.get(key.source):
        return None  # made under another key, so all of them differ
    names = [name for name in ENCRYPTION_KEYS if name in digests]
    return [name for name in names if mine.get(name) != digests[name]] if names else None


def _domain(then: Mapping[str, Secret], target: Target) -> list[Finding]:
    was = clean(then.get("LOCAL_DOMAIN", Secret("")).reveal().strip(), 253)
    now = target.installation.domain
    if target.bare or not was or not now or was == now:
        return []
    return [
        Finding(
            level="block",
            text=f"the dump is of {was}, and this Mastodon is {now} (LOCAL_DOMAIN): it would be another server",
            way_out=f"Restore to a host of {was}, with its settings.",
            asset=Asset.DATABASE,
            accept=DOMAIN,
        )
    ]
