"""The cache of the catalogue: disposable, private, safe for many at once, quick."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest

from backends.archive.layout import snapshot_prefix
from backends.archive.manifest import Manifest
from backends.catalog import Catalog
from backends.catalog.store import CacheFailed
from backends.vault.directory import DirectoryVault
from tests.unit.test_catalog import NOW, SEEN, back_up, catalog, damage, second, vault

__all__ = ["catalog", "second", "vault"]


@pytest.mark.parametrize("content", [b"", b"this is no database at all" * 100, None])
def test_a_broken_cache_is_made_anew(
    vault: DirectoryVault, catalog: Catalog, tmp_path: Path, content: bytes | None
) -> None:
    back_up(vault)
    catalog.refresh_vault(vault)
    place = tmp_path / "cache" / "catalog.sqlite"
    for suffix in ("-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    if content is None:
        shutil.rmtree(tmp_path / "cache")
    else:
        place.write_bytes(content)
    assert catalog.snapshots() == []
    assert catalog.refresh_vault(vault).snapshots == 1
    assert len(Catalog(tmp_path / "cache").snapshots()) == 1


def test_a_cache_that_is_damaged_inside(vault: DirectoryVault, catalog: Catalog, tmp_path: Path) -> None:
    for hour in range(40):
        back_up(vault, at=NOW + timedelta(hours=hour))
    catalog.refresh_vault(vault)
    place = tmp_path / "cache" / "catalog.sqlite"
    with sqlite3.connect(place) as cache:
        cache.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    data = bytearray(place.read_bytes())
    data[4096:] = b"\xaa" * (len(data) - 4096)
    place.write_bytes(bytes(data))
    with pytest.raises(CacheFailed):
        catalog.snapshots()
    assert catalog.refresh_vault(vault).snapshots == 40


def test_a_cache_of_another_version_is_made_anew(vault: DirectoryVault, catalog: Catalog, tmp_path: Path) -> None:
    back_up(vault)
    catalog.refresh_vault(vault)
    with sqlite3.connect(tmp_path / "cache" / "catalog.sqlite") as cache:
        cache.execute("PRAGMA user_version = 99")
        cache.execute("CREATE TABLE strange (x)")
    cache.close()
    newer = Catalog(tmp_path / "cache")
    assert newer.snapshots() == []
    assert newer.refresh_vault(vault).snapshots == 1


def test_the_cache_is_for_its_owner_only(vault: DirectoryVault, catalog: Catalog, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        catalog.refresh_vault(vault)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    for path in (tmp_path / "cache").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_cache_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheFailed, match="cannot be used") as caught:
        Catalog(tmp_path / "file" / "cache").snapshots()
    assert "MASTOVAULT_CACHE_DIR" in caught.value.next_step


def test_many_use_it_at_once(vault: DirectoryVault, second: DirectoryVault, tmp_path: Path) -> None:
    """Two screens and a run: each with a catalogue of its own on the same cache, which is new."""
    for hour in range(10):
        back_up(vault, second, at=NOW + timedelta(hours=hour))
    errors: list[BaseException] = []

    def use(number: int) -> None:
        try:
            mine = Catalog(tmp_path / "cache")
            for _ in range(5):
                mine.refresh_vault((vault, second)[number % 2])
                mine.save_observation(SEEN)
                mine.snapshots()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = Catalog(tmp_path / "cache").snapshots()
    assert len(found) == 10
    assert all(each.vaults == ("one", "two") for each in found)


def test_it_is_quick_with_many(vault: DirectoryVault, catalog: Catalog) -> None:
    """A tenth of the 10 000 of docs/performance.md; counted in CPU, not in time, for busy machines."""
    text = _manifest_text(back_up(vault))
    for number in range(1000):
        at = NOW - timedelta(hours=number)
        snapshot_id = f"host{number % 7}/database/{at:%Y%m%dT%H%M%SZ}-{number:08x}"
        changes = {"id": snapshot_id, "host": f"host{number % 7}", "started_at": at.isoformat()}
        document = json.loads(text) | changes | {"finished_at": (at + timedelta(seconds=5)).isoformat()}
        damage(vault, snapshot_prefix(snapshot_id) + "manifest.json", json.dumps(document).encode())
    before = os.times()
    assert catalog.refresh_vault(vault).snapshots == 1001
    read = os.times()
    assert len(catalog.snapshots()) == 1001
    listed = os.times()
    assert read.user - before.user < 3
    assert listed.user - read.user < 0.3


def _manifest_text(manifest: Manifest) -> str:
    return manifest.model_dump_json()


def test_several_who_make_it_at_once(tmp_path: Path) -> None:
    """SQLite waits for nobody who changes the journal of a new file."""

    def look(place: Path) -> int:
        start.wait()
        return len(Catalog(place).vaults())

    with ThreadPoolExecutor(6) as pool:
        for number in range(12):
            start = Barrier(6)
            assert list(pool.map(look, [tmp_path / str(number)] * 6)) == [0] * 6
