"""A catalogue of 10 000 manifests: reading it from the vault, refreshing it, listing it.

.venv/bin/python -m tests.bench.catalog [--snapshots 10000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backends.archive.layout import manifest_key
from backends.archive.manifest import Manifest, ObjectEntry
from backends.catalog import Catalog
from backends.model import Asset
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare

TARGETS = {"rebuild": 10.0, "refresh": 1.0, "list": 0.3}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.catalog", description=__doc__)
    parser.add_argument("--snapshots", type=int, default=10_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        vault = DirectoryVault("v", Path(directory) / "vault")
        prepare(vault, ["age1x"])
        for number in range(options.snapshots):
            _snapshot(vault, number)
        catalog = Catalog(Path(directory) / "cache")
        taken = {
            "rebuild": _seconds(lambda: catalog.refresh_vault(vault)),
            "refresh": _seconds(lambda: catalog.refresh_vault(vault)),
            "list": _seconds(catalog.snapshots),
        }
        if len(catalog.snapshots()) != options.snapshots:
            return 1
    for what, bound in TARGETS.items():
        print(f"| {what} of {options.snapshots} snapshots | {taken[what]:.2f} s of CPU | | at most {bound} s | |")  # noqa: T201
    return 0 if all(taken[what] <= bound for what, bound in TARGETS.items()) else 1


def _seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _snapshot(vault: DirectoryVault, number: int) -> None:
    """A manifest as a database backup writes it, with the facts of a hundred tables; without syncing each."""
    at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    host, asset = f"host{number % 100}", tuple(Asset)[number // 100 % 4]
    manifest = Manifest(
        id=f"{host}/{asset}/{at:%Y%m%dT%H%M%SZ}-{number:08x}",
        host=host,
        asset=asset,
        run=f"run{number}",
        started_at=at,
        finished_at=at + timedelta(seconds=90),
        tool_version="0",
        recipients=["age1x"],
        objects=[
            ObjectEntry(name=name, bytes=1, sha256="0" * 64, codecs=["zstd", "age"], plain_bytes=1)
            for name in ("database.pgdump.zst.age", "globals.sql.zst.age")
        ],
        facts={"tables": {f"table{table}": {"rows": table, "bytes": table} for table in range(100)}},
    )
    path = vault.path / manifest_key(manifest.id)
    path.parent.mkdir(parents=True)
    path.write_text(manifest.model_dump_json(indent=2))
    for entry in manifest.objects:
        path.with_name(entry.name).write_bytes(b"x")


if __name__ == "__main__":
    raise SystemExit(main())
