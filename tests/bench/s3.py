"""S3 against rclone's own client: the same bytes to the same server, and 10 000 snapshots listed from it.

.venv/bin/python -m tests.bench.s3 [--mib 256 1024] [--rounds 3] [--snapshots 10000]
"""

from __future__ import annotations

import argparse
import filecmp
import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.config.schema import S3Vault as S3Config
from backends.embedded.processes import Processes
from backends.lab.bucket import BucketServer, software
from backends.vault.s3 import S3Vault

RATIO = 1.15
LISTING_SECONDS = 10.0
MEMORY = 150
_ACCESS, _SECRET = "MASTOVAULT_BENCH_S3_KEY", "MASTOVAULT_BENCH_S3_SECRET"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.s3", description=__doc__)
    parser.add_argument("--mib", type=int, nargs="*", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--snapshots", type=int, default=10_000)
    options = parser.parse_args(arguments)
    kept = True
    with tempfile.TemporaryDirectory(prefix="mastovault-bench-") as place, _server(Path(place)) as server:
        for mib in options.mib:
            kept &= _uploads(Path(place), server, mib, options.rounds)
        if options.snapshots:
            kept &= _listing(server, options.snapshots)
    return 0 if kept else 1


@contextmanager
def _server(place: Path) -> Iterator[BucketServer]:
    processes = Processes(f"bench-{secrets.token_hex(8)}")
    server = BucketServer(place / "s3", processes)
    os.environ[_ACCESS], os.environ[_SECRET] = server.access_key, server.secret_key
    try:
        server.start()
        yield server
    finally:
        server.stop()
        processes.close()


def _vault(server: BucketServer, bucket: str) -> S3Vault:
    server.make(bucket)
    config = S3Config(
        type="s3",
        bucket=bucket,
        prefix="mastodon",
        endpoint_url=server.endpoint_url,
        access_key_env=_ACCESS,
        secret_key_env=_SECRET,
    )
    return S3Vault("bench", config)


def _uploads(place: Path, server: BucketServer, mib: int, rounds: int) -> bool:
    """Both clients in turn; the median of the rounds counts."""
    source = place / "source"
    with source.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1024 * 1024))
    vault = _vault(server, "uploads")
    ours, theirs = [], []
    for number in range(rounds):
        theirs.append(_rclone(place, server, source, f"theirs-{number}"))
        ours.append(_ours(vault, source, f"ours-{number}"))
    if not filecmp.cmp(server.directory / "uploads/mastodon/ours-0", source, shallow=False):
        print("| upload to S3 | the object is not the source | | | |")  # noqa: T201
        return False
    for path in (server.directory / "uploads").rglob("*-*"):
        path.unlink()
    server.forget()
    mine, other = statistics.median(ours), statistics.median(theirs)
    peak = _peak()
    print(  # noqa: T201
        f"| upload of {mib} MiB to `rclone serve s3` | {mine:.2f} s | `rclone copyto` {other:.2f} s |"
        f" {mine / other:.2f} (at most {RATIO}) | {peak} MB |",
        flush=True,
    )
    return mine <= RATIO * other and peak <= MEMORY


def _ours(vault: S3Vault, source: Path, key: str) -> float:
    began = time.monotonic()
    with vault.open_upload(key) as upload, source.open("rb") as file:
        while data := file.read(256 * 1024):
            upload.write(data)
        upload.commit()
    return time.monotonic() - began


def _rclone(place: Path, server: BucketServer, source: Path, key: str) -> float:
    settings = place / "rclone.conf"
    settings.touch(mode=0o600)
    settings.write_text(
        f"[there]\ntype = s3\nprovider = Rclone\nendpoint = {server.endpoint_url}\n"
        f"access_key_id = {server.access_key}\nsecret_access_key = {server.secret_key}\n"
    )
    began = time.monotonic()
    subprocess.run(
        [str(software()), "copyto", str(source), f"there:uploads/mastodon/{key}"],
        env={"RCLONE_CONFIG": str(settings), "PATH": os.environ.get("PATH", os.defpath)},
        check=True,
    )
    return time.monotonic() - began


def _listing(server: BucketServer, count: int) -> bool:
    """List a vault of that many snapshots, three objects each, and read every manifest (2 KB)."""
    vault = _vault(server, "listing")
    for number in range(count):
        below = f"hosts/host{number % 10}/database/2026{number // 10:08d}Z-{number:08x}"
        path = server.directory / "listing/mastodon" / below
        path.mkdir(parents=True)
        (path / "manifest.json").write_bytes(secrets.token_hex(1000).encode())
        (path / "database.pgdump.zst.age").write_bytes(b"x")
        (path / "globals.sql.zst.age").write_bytes(b"x")
    server.forget()
    began, used = time.monotonic(), time.process_time()
    manifests = [found.key for found in vault.list() if found.key.endswith("/manifest.json")]
    listed = time.monotonic() - began
    read = sum(isinstance(data, bytes) and len(data) == 2000 for _, data in vault.read_many(manifests, 4000))
    seconds, used = time.monotonic() - began, time.process_time() - used
    vault.close()
    print(  # noqa: T201
        f"| list {count} snapshots from S3 and read their manifests | {seconds:.2f} s ({listed:.2f} s of it listing,"
        f" {used:.2f} s of CPU) | | at most {LISTING_SECONDS} s | {_peak()} MB |",
        flush=True,
    )
    return read == count and seconds <= LISTING_SECONDS


def _peak() -> int:
    """The most memory that this process ever had, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    raise SystemExit(main())
