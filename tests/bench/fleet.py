"""A fleet of a hundred hosts: asking all of them, and `status` from the cache.

.venv/bin/python -m tests.bench.fleet [--hosts 100] [--turns 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backends.lab.lab import Lab
from backends.runs.refresh import start_refresh

TARGET_REFRESH = 15.0
TARGET_STATUS = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.fleet", description=__doc__)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory) / "lab", hosts=options.hosts, rows=50) as lab:
        refreshed = [_refresh(lab) for _ in range(3)]
        status = [_status(lab) for _ in range(options.turns)]
    refresh, cpu = statistics.median(refreshed), statistics.median(status)
    print(f"| refresh of {options.hosts} hosts | {refresh:.1f} s | | at most {TARGET_REFRESH:.0f} s | |")  # noqa: T201
    print(f"| `status` of {options.hosts} hosts | {cpu:.2f} s of CPU | | at most {TARGET_STATUS} s | |")  # noqa: T201
    return 0 if refresh < TARGET_REFRESH and cpu < TARGET_STATUS else 1


def _refresh(lab: Lab) -> float:
    began = time.perf_counter()
    if start_refresh(lab.paths).wait() != 0:
        raise RuntimeError("the refresh failed")
    return time.perf_counter() - began


def _status(lab: Lab) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "tui", "status", "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **lab.paths.environment()},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
