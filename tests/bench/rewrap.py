"""Rewrapping through every fault: each call of a vault failing before and after, once and for good; 200 kills.

.venv/bin/python -m tests.bench.rewrap [--kills 200]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.rewrap_faults import calls_of_a_rewrap, killed_and_continued, require_survived


def main(arguments: list[str] | None = None) -> int:
    """Run all of them and print a row; a content that is lost ends it with an AssertionError."""
    parser = argparse.ArgumentParser(prog="tests.bench.rewrap", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args(arguments)
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rewrap-", dir=root) as place:
        memory = Path(place)
        calls = calls_of_a_rewrap(memory)
        for nth in range(1, calls + 1):
            for after in (False, True):
                for dead in (False, True):
                    require_survived(memory, nth, after=after, dead=dead)
        survived = killed_and_continued(memory, options.kills)
    took = time.monotonic() - began
    print(f"| rewrap through {4 * calls} faults and {survived} kills | nothing lost | | {took:.0f} s | |")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
