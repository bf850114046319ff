"""`make bench`: every benchmark, one after the other; exits 1 when a target is missed."""

from __future__ import annotations

import importlib

BENCHES = ("database", "restore", "window", "fleet", "catalog", "media", "s3", "sftp", "vaults", "rewrap", "ui")


def main() -> int:
    """Run them all and print the table of docs/performance.md."""
    missed = []
    print("| what | Mastovault | against | ratio or bound | memory |\n|---|---|---|---|---|", flush=True)  # noqa: T201
    for name in BENCHES:
        if importlib.import_module(f"tests.bench.{name}").main([]) != 0:
            missed.append(name)
    print(f"\ntargets missed: {', '.join(missed) or 'none'}")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
