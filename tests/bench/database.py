"""A database backup over a real sshd, against the same by hand with ssh, zstd and age; in turns, on this machine.

    .venv/bin/python -m tests.bench.database [--gib 2] [--turns 3]

The whole of ours is timed as a process of its own: start of Python, login, discovery of the programs, session, roles,
dump, row counts, commit. Peak memory is that process's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from backends.archive.keys import new_identity
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.servers.need import need
from tests.servers.openssh import OpenSSH
from tests.servers.postgres import Postgres

GIB = 1024**3
MIB = 1024**2
TARGET_RATIO = 1.10
TARGET_MIB = 150
# About a kilobyte a row, as statuses have on real servers
_WORDS = 150
_BYTES_A_ROW = 1100


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its row; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.database", description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the tables")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    result = measure(options.gib, options.turns)
    print(row(result))  # noqa: T201
    return 0 if result["ratio"] <= TARGET_RATIO and result["mib"] <= TARGET_MIB else 1


def row(result: dict[str, Any]) -> str:
    """The row of docs/performance.md."""
    ours, theirs = result["ours"], result["by_hand"]
    return (
        f"| database of {result['gib']:.2f} GiB over SSH | {statistics.median(ours):.1f} s"
        f" | by hand {statistics.median(theirs):.1f} s | ratio {result['ratio']:.2f} (at most {TARGET_RATIO:.2f})"
        f" | peak memory {result['mib']:.0f} MiB (at most {TARGET_MIB}) |"
    )


def measure(gib: float, turns: int) -> dict[str, Any]:
    """Load a database of that size, then time both ways in turns."""
    (ssh, age, zstd) = need("ssh", "age", "zstd")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mastovault-bench-")))
        sshd = stack.enter_context(OpenSSH(directory / "sshd"))
        postgres = stack.enter_context(Postgres(directory / "pg"))
        postgres.load_mastodon(statuses=int(gib * GIB / _BYTES_A_ROW), words=_WORDS)
        size = int(
            postgres.sql("SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relkind = 'r'", "mastodon_production")
        )
        _, recipient = new_identity()
        hand = _by_hand(ssh, age, zstd, sshd, postgres, recipient, directory / "by-hand.age")
        ours: list[float] = []
        theirs: list[float] = []
        most = 0.0
        for turn in range(turns):
            vault = directory / f"vault-{turn}"
            prepare(DirectoryVault("bench", vault), [recipient])
            request = _request(sshd, postgres, vault, recipient)
            for way in ("ours", "by hand") if turn % 2 else ("by hand", "ours"):
                if way == "ours":
                    ours.append(_ours(request))
                else:
                    theirs.append(_timed(hand))
            most = max(most, _PEAKS[-1])
            stored = sum(path.stat().st_size for path in vault.rglob("database.*"))
            _say(
                f"turn {turn + 1}: ours {ours[-1]:.1f} s, {stored / MIB:.0f} MiB; by hand {theirs[-1]:.1f} s, "
                f"{(directory / 'by-hand.age').stat().st_size / MIB:.0f} MiB"
            )
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {"gib": size / GIB, "ours": ours, "by_hand": theirs, "ratio": ratio, "mib": most}


_PEAKS: list[float] = []


def _request(sshd: OpenSSH, postgres: Postgres, vault: Path, recipient: str) -> dict[str, Any]:
    return {
        "host": sshd.host_config().model_dump(mode="json", exclude_defaults=True),
        "port": postgres.port,
        "password": postgres.password,
        "bin_dir": str(postgres.bin),
        "vault": str(vault),
        "recipient": recipient,
    }


def _ours(request: dict[str, Any]) -> float:
    """Time one backup in a process of its own; its peak memory in MiB goes to `_PEAKS`."""
    began = time.perf_counter()
    argv = [sys.executable, "-m", "tests.bench.database_once"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("the backup failed")
    _PEAKS.append(usage.ru_maxrss / 1024)
    return time.perf_counter() - began


def _by_hand(
    ssh: str, age: str, zstd: str, sshd: OpenSSH, postgres: Postgres, recipient: str, target: Path
) -> list[str]:
    options = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={sshd.known_hosts} -i {sshd.client_key}"
    place = f"-h 127.0.0.1 -p {postgres.port} -U mastodon mastodon_production"
    dump = f"PGPASSWORD={postgres.password} {postgres.bin}/pg_dump -Fc -Z0 {place}"
    login = f"{ssh} -c aes128-gcm@openssh.com {options} -p {sshd.port} 127.0.0.1"
    return ["bash", "-o", "pipefail", "-c", f"{login} '{dump}' | {zstd} -q -3 -T0 | {age} -r {recipient} > {target}"]


def _timed(argv: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
