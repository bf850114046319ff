"""A catalogue of 10 000 manifests: reading it from a directory and from a bucket, refreshing it, listing it.

.venv/bin/python -m tests.bench.catalog [--snapshots 10000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backends.archive.layout import manifest_key
from backends.archive.manifest import Manifest, ObjectEntry
from backends.catalog import Catalog, VaultStatus
from backends.config.schema import Config
from backends.config.schema import S3Vault as S3Config
from backends.embedded.processes import Processes
from backends.lab.bucket import BucketServer
from backends.model import Asset
from backends.operations.storage import copies, storage
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from backends.vault.s3 import S3Vault

TARGETS = {
    "rebuild from a directory": 10.0,
    "refresh from a directory": 1.0,
    "rebuild from S3": 10.0,
    "refresh from S3": 5.0,
    "list": 0.3,
    "storage and copies": 1.0,
}
"""Seconds: of processor time for the directory, of the clock for what waits for a server (rclone serve s3)."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.catalog", description=__doc__)
    parser.add_argument("--snapshots", type=int, default=10_000)
    options = parser.parse_args(arguments)
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory, _server(Path(directory)) as (bucket, remote):
        vault = DirectoryVault("v", bucket)
        prepare(vault, ["age1x"])
        for number in range(options.snapshots):
            _snapshot(vault, number)
        catalog = Catalog(Path(directory) / "cache")
        taken["rebuild from a directory"] = _seconds(lambda: catalog.refresh_vault(vault))
        taken["refresh from a directory"] = _seconds(lambda: catalog.refresh_vault(vault))
        taken["list"] = _seconds(catalog.snapshots)
        if len(catalog.snapshots()) != options.snapshots:
            return 1
        far = Catalog(Path(directory) / "far")
        for what in ("rebuild from S3", "refresh from S3"):
            taken[what] = _seconds(lambda: _whole(far.refresh_vault(remote)), time.perf_counter)
        if len(far.snapshots()) != options.snapshots:
            return 1
        taken["storage and copies"] = _seconds(lambda: _screen(catalog, bucket))
    for what, bound in TARGETS.items():
        print(f"| {what} of {options.snapshots} snapshots | {taken[what]:.2f} s | | at most {bound} s | |")  # noqa: T201
    return 0 if all(taken[what] <= bound for what, bound in TARGETS.items()) else 1


def _seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    before = clock()
    work()
    return clock() - before


def _whole(status: VaultStatus) -> None:
    if status.error:
        raise RuntimeError(status.error)


def _screen(catalog: Catalog, bucket: Path) -> None:
    vaults = {"v": {"type": "directory", "path": str(bucket)}}
    config = Config.model_validate({"vaults": vaults, "hosts": {"host1": {"address": "local"}}})
    storage(config, catalog, datetime.now(UTC))
    copies(config, catalog, "host1")


@contextmanager
def _server(directory: Path) -> Iterator[tuple[Path, Vault]]:
    """The directory of a bucket, and the vault in it as its S3 server shows it."""
    processes = Processes("bench")
    server = BucketServer(directory / "buckets", processes)
    path = server.make("bench")
    os.environ.update(BENCH_KEY=server.access_key, BENCH_SECRET=server.secret_key)
    config = S3Config(
        type="s3",
        bucket="bench",
        endpoint_url=server.endpoint_url,
        access_key_env="BENCH_KEY",
        secret_key_env="BENCH_SECRET",
    )
    try:
        server.start()
        yield path, S3Vault("far", config)
    finally:
        server.stop()
        processes.close()


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
