"""A database restored from a staged dump, against pg_restore -j by hand on the same file; in turns, on this machine.

    .venv/bin/python -m tests.bench.restore [--gib 1] [--turns 3]

Both make the database and load it; ours watches its progress meanwhile. Staging, the comparison with the manifest and
the statistics come on top and are told for themselves, as is the downtime of the swap, with clients that come back.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from backends.connection.base import Connection
from backends.restore.database_load import load_dump
from backends.restore.database_staging import FILE, stage
from backends.restore.source import Source
from tests.servers.backup import WatchedJob, local_host
from tests.servers.database_restore import Driver, Snapshots
from tests.servers.postgres import Postgres

GIB = 1024**3
TARGET_RATIO = 1.10
TARGET_DOWNTIME = 10.0
_WORDS = 150
_BYTES_A_ROW = 1100
_CORES = min(8, os.cpu_count() or 1)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its row; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.restore", description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the tables")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    result = measure(options.gib, options.turns)
    print(row(result))  # noqa: T201
    return 0 if result["ratio"] <= TARGET_RATIO and result["swap"] < TARGET_DOWNTIME else 1


def row(result: dict[str, Any]) -> str:
    """The row of docs/performance.md."""
    ours, theirs = statistics.median(result["ours"]), statistics.median(result["by_hand"])
    return (
        f"| restore of a database of {result['gib']:.2f} GiB from a staged dump | {ours:.1f} s"
        f" | pg_restore -j{_CORES} by hand {theirs:.1f} s | ratio {result['ratio']:.2f}"
        f" (at most {TARGET_RATIO:.2f}); swap {result['swap']:.2f} s (below {TARGET_DOWNTIME:.0f}) |  |"
    )


class TimedJob(WatchedJob):
    """Knows when each step began."""

    def __init__(self) -> None:
        super().__init__()
        self.began: dict[str, float] = {}

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        super().step(name, total, unit)
        self.began[name] = time.perf_counter()


def measure(gib: float, turns: int) -> dict[str, Any]:
    """Load a database of that size, back it up, then time both ways in turns and one whole restore."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mastovault-bench-")))
        postgres = stack.enter_context(Postgres(directory / "pg"))
        host = stack.enter_context(local_host())
        postgres.load_mastodon(statuses=int(gib * GIB / _BYTES_A_ROW), words=_WORDS)
        size = int(
            postgres.sql("SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relkind = 'r'", "mastodon_production")
        )
        source = Snapshots(directory / "vault").take(host, postgres.installation())
        staged = Path(stage(host, postgres.place(), source, str(directory / "by-hand"), WatchedJob(), zstd=True))
        _say(f"{size / GIB:.2f} GiB of tables, a dump of {staged.stat().st_size / GIB:.2f} GiB")
        ours, theirs = [], []
        for turn in range(turns):
            for way in ("ours", "by hand") if turn % 2 else ("by hand", "ours"):
                postgres.sql("DROP DATABASE IF EXISTS bench WITH (FORCE)")
                postgres.sql("CHECKPOINT")
                if way == "ours":
                    ours.append(_ours(host, postgres, source, directory / "stage"))
                else:
                    theirs.append(_by_hand(postgres, staged))
            _say(f"turn {turn + 1}: ours {ours[-1]:.1f} s, by hand {theirs[-1]:.1f} s")
        staged.unlink()
        postgres.sql("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        swap = _whole(host, postgres, source)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {"gib": size / GIB, "ours": ours, "by_hand": theirs, "ratio": ratio, "swap": swap}


def _ours(host: Connection, postgres: Postgres, source: Source, staging: Path) -> float:
    """Seconds of one load without those of staging, which has no counterpart by hand."""
    job = TimedJob()
    began = time.perf_counter()
    load_dump(
        host,
        postgres.place("postgres"),
        database="bench",
        owner="mastodon",
        source=source,
        job=job,
        staging=str(staging),
    )
    whole = time.perf_counter() - began
    assert FILE in "".join(job.lines)
    return whole - (job.began["restoring"] - job.began["staging the dump"])


def _by_hand(postgres: Postgres, staged: Path) -> float:
    began = time.perf_counter()
    postgres.sql("CREATE DATABASE bench OWNER mastodon TEMPLATE template0")
    options = ["-n", "public", "--no-owner", "--exit-on-error", "--role=mastodon", f"-j{_CORES}", "-U", "mastodon"]
    postgres.client("pg_restore", *options, "-d", "bench", str(staged))
    return time.perf_counter() - began


def _whole(host: Connection, postgres: Postgres, source: Source) -> float:
    """One restore in place with clients in the live database; seconds from the end of sessions to the new name."""
    driver = Driver(host, postgres.installation(), source)
    with _busy(postgres):
        driver.run()
    _say("a whole restore: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in driver.took.items()))
    return driver.took["database.swap"]


@contextmanager
def _busy(postgres: Postgres) -> Iterator[None]:
    psql = f"{postgres.bin}/psql -XqAt -h 127.0.0.1 -p {postgres.port} -U mastodon -d mastodon_production"
    again = f"(while :; do {psql} -c 'SELECT pg_sleep(1)'; done) & "
    process = subprocess.Popen(
        ["sh", "-c", again * 8 + "wait"],
        env={**os.environ, "PGPASSWORD": postgres.password},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
