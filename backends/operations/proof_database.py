"""Proving a dump: loaded into a throwaway database, compared with its manifest, opened with the secrets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.archive.manifest import Manifest
from backends.model import Secret
from backends.operations.proof_place import DrillPlace
from backends.progress import Job
from backends.restore.database_check import compare
from backends.restore.database_load import load_dump
from backends.restore.source import Source
from backends.untrusted import clean


@dataclass(slots=True, kw_only=True)
class DatabaseProof:
    """What became of a dump."""

    differences: tuple[str, ...] = ()
    tables: int = 0
    """Whose rows were counted and compared."""
    rows: int = 0
    estimated: int = 0
    """Tables whose rows the manifest only estimates, so that they were not compared."""
    load_seconds: float = 0.0
    compare_seconds: float = 0.0
    newest_post: str = ""
    indexes: int = 0
    unique_indexes: int = 0
    server: str = ""

    @property
    def restore_seconds(self) -> float:
        """What a restore takes: loading and comparing."""
        return self.load_seconds + self.compare_seconds

    @property
    def details(self) -> dict[str, Any]:
        """For the record of the check."""
        return {
            "restore_seconds": round(self.restore_seconds, 3),
            "load_seconds": round(self.load_seconds, 3),
            "compare_seconds": round(self.compare_seconds, 3),
            "tables": self.tables,
            "rows": self.rows,
            "estimated_tables": self.estimated,
            "indexes": self.indexes,
            "unique_indexes": self.unique_indexes,
            "newest_status": self.newest_post,
            "server": self.server,
            "differences": list(self.differences),
        }


def prove_database(place: DrillPlace, source: Source, job: Job) -> DatabaseProof:
    """Load a dump and compare it; it stays loaded.

    Raises:
        Unsound: it does not load.
        AssetFailed: this place cannot load it, which says nothing about the dump.
        Damaged, VaultError, KeyUnavailable, ConnectionFailed, Cancelled: as they are.
    """
    began = time.monotonic()
    load_dump(
        place.connection,
        place.admin,
        database=place.name,
        owner=place.owner,
        source=source,
        job=job,
        staging=place.staging,
    )
    loaded = time.monotonic()
    differences = compare(place.connection, place.database, source.manifest, job)
    proof = _counted(source.manifest)
    proof.differences = differences
    proof.load_seconds, proof.compare_seconds = loaded - began, time.monotonic() - loaded
    proof.server = place.said
    return proof


def _counted(manifest: Manifest) -> DatabaseProof:
    """What the comparison was about, by the manifest."""
    facts = manifest.facts
    known = facts.get("tables")
    tables = [each for each in known.values() if isinstance(each, dict)] if isinstance(known, dict) else []
    exact = [each for each in tables if each.get("exact")]
    newest = facts.get("newest_status")
    return DatabaseProof(
        tables=len(exact),
        rows=sum(_number(each, "rows") for each in exact),
        estimated=len(tables) - len(exact),
        newest_post=clean(str(newest.get("created_at", "")), 40) if isinstance(newest, dict) else "",
        indexes=_number(facts, "indexes"),
        unique_indexes=_number(facts, "unique_indexes"),
    )


def prove_pair(place: DrillPlace, environment: Mapping[str, Secret]) -> tuple[str, str]:
    """Whether these secrets open the loaded database: `opens`, `locked` or `nothing_encrypted`, and a sentence."""
    from backends.restore.pair import check_pair

    found = check_pair(place.connection, place.database, environment)
    return found.state, found.what


def _number(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and value > 0 else 0
