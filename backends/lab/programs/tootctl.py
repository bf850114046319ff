"""`bin/tootctl` of a lab host: `version` and `feeds build`, really carried out.

Called as `tootctl.py ROOT VERSION ARGUMENTS...`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_FEEDS = """
SELECT format('ZADD feed:home:%s %s %s', u.account_id, s.id, s.id) FROM users u
JOIN LATERAL (
  SELECT s.id FROM follows f JOIN statuses s ON s.account_id = f.target_account_id
  WHERE f.account_id = u.account_id ORDER BY s.id DESC LIMIT 800
) s ON true
"""


def settings(root: Path) -> dict[str, str]:
    """What `.env.production` says; the lab writes one `NAME=value` a line."""
    lines = (root / ".env.production").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: value.strip("'") for name, _, value in pairs}


def build_feeds(root: Path) -> int:
    """Fill every home feed from the database."""
    env = settings(root)
    rows = subprocess.run(
        [
            "psql",
            "-XqAt",
            "-h",
            env["DB_HOST"],
            "-p",
            env["DB_PORT"],
            "-U",
            env["DB_USER"],
            "-c",
            _FEEDS,
            env["DB_NAME"],
        ],
        env={**os.environ, "PGPASSWORD": env["DB_PASS"]},
        stdout=subprocess.PIPE,
        check=False,
    )
    if rows.returncode:
        return rows.returncode
    done = subprocess.run(
        ["redis-cli", "-h", env["REDIS_HOST"], "-p", env["REDIS_PORT"]],
        env={**os.environ, "REDISCLI_AUTH": env["REDIS_PASSWORD"]},
        input=rows.stdout,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    sys.stdout.write(f"Regenerated feeds for {len({line.split()[1] for line in rows.stdout.splitlines()})} accounts\n")
    return done.returncode


def main(root: Path, version: str, words: list[str]) -> int:
    """Carry out one command line and return its exit status."""
    if words[:1] in (["version"], ["--version"]):
        sys.stdout.write(f"{version}\n")
        return 0
    if words[:2] == ["feeds", "build"]:
        return build_feeds(root)
    sys.stderr.write(f'Could not find command "{" ".join(words)}".\n')
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
