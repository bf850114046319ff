"""Whether a snapshot may be relied on, in words, and as a finding that keeps it from being restored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from backends.archive.signing import signer_name, trust_of
from backends.config.schema import Config
from backends.errors import AssetFailed
from backends.model import SnapshotInfo, Trust
from backends.restore.plan import Finding
from backends.restore.source import Source


def trust_note(info: SnapshotInfo, config: Config) -> str:
    """Who wrote a snapshot, for a list: `signed by backup-host`, `not checked`, `NOT SIGNED`, and what was altered."""
    trust = trust_of(info.signature, info.signer, config.signers)
    words = _NOTES.get(trust) or f"signed by {signer_name(info.signer, config.signers)}"
    if trust is Trust.FOREIGN:
        words = f"{words}, which is NOT TRUSTED"
    return "; ".join([words, *([f"another manifest in {', '.join(info.altered)}"] if info.altered else [])])


_NOTES = {
    Trust.UNCHECKED: "not checked",
    Trust.UNSIGNED: "NOT SIGNED",
    Trust.CHANGED: "CHANGED after it was written",
}


def warning(info: SnapshotInfo, config: Config) -> str:
    """As `trust_note`, but empty when there is nothing to worry about."""
    good = trust_of(info.signature, info.signer, config.signers).good
    return "" if good and not info.altered else trust_note(info, config)


def distrust(trust: Trust, signer: str, signers: Mapping[str, str]) -> str:
    """Why something may not be relied on, to stand after its name; empty when it may."""
    return {
        Trust.UNSIGNED: "is not signed: nobody can tell who wrote it",
        Trust.FOREIGN: f"is signed by {signer_name(signer, signers)}, whom the configuration does not trust",
        Trust.CHANGED: "was changed after it was written",
    }.get(trust, "")


def way_out(trust: Trust) -> str:
    """What can be done about it."""
    if trust is Trust.FOREIGN:
        return "If you know whose key that is, add it below [signers]; if not, find out who writes to the vault."
    return "Choose another snapshot or vault, and find out who writes there."


def trust_findings(found: Iterable[Source], signers: Mapping[str, str]) -> list[Finding]:
    """What keeps snapshots from being restored whose writer is not trusted; each has its own word."""
    return [
        Finding(
            level="block",
            text=f"{source.manifest.id} {distrust(source.trust, source.signer, signers)}",
            way_out=way_out(source.trust),
            asset=source.asset,
            accept=source.trust.value,
        )
        for source in found
        if not source.trust.good
    ]


def require_trusted(found: Iterable[Source], signers: Mapping[str, str], accept: Collection[str]) -> None:
    """Raise `AssetFailed` for a snapshot whose writer is not trusted, unless its word was typed."""
    for finding in trust_findings(found, signers):
        if finding.accept not in accept:
            host = finding.text.partition("/")[0]
            raise AssetFailed(finding.text, f"{finding.way_out} Or type {host}/{finding.accept} to go on all the same.")
