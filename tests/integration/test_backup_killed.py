"""kill -9 at 200 random moments of a backup: nothing torn is ever listed, and the next run succeeds at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from backends.archive.layout import MANIFEST_KEY
from backends.catalog import Catalog
from backends.vault.directory import DirectoryVault

ROOT = Path(__file__).parents[2]
KILLS = 200


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.killed_backups", str(tmp_path / "vaults"), "7", str(KILLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stdout)
    assert reached["killed"] + reached.get("ended before", 0) == KILLS
    assert reached["killed"] > KILLS / 4
    assert reached["with objects that no manifest names"] > KILLS / 20, "few kills were in the middle"
    catalog = Catalog(tmp_path / "cache")
    whole = 0
    for place in sorted((tmp_path / "vaults").iterdir()):
        for name in ("one", "two"):
            vault = DirectoryVault(f"{name}-{place.name}", place / name)
            listed = [stored.key for stored in vault.list("hosts/") if MANIFEST_KEY.fullmatch(stored.key)]
            status = catalog.refresh_vault(vault)
            assert (status.error, status.unreadable, status.snapshots) == ("", 0, len(listed))
            whole += len(listed)
    assert whole > KILLS / 8
