"""Backups of a process each, killed at a random moment; run as a program of its own, which alone may fork.

`python -m tests.integration.killed_backups DIRECTORY SEED KILLS` prints how often what was reached, or fails.
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from backends.archive.keys import new_identity
from backends.archive.layout import MANIFEST_KEY, manifest_key
from backends.archive.manifest import is_unchanged
from backends.archive.reader import object_key, read_manifest
from backends.archive.writer import begin_snapshot
from backends.model import Asset
from backends.operations.leases import hold_vaults
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare

_, RECIPIENT = new_identity()
DATA = random.Random(4).randbytes(60_000)
FRESH_EVERY = 40
"""Every so many kills the vaults are new: listing what has piled up would take most of the time."""
WHOLE_EVERY = 8
"""Every so many kills a run is left to end."""


def vaults(place: Path) -> list[DirectoryVault]:
    return [DirectoryVault("one", place / "one"), DirectoryVault("two", place / "two")]


def back_up(place: Path, run: str) -> None:
    """One backup into both vaults; must be whole in both."""
    ready = vaults(place)
    for vault in ready:
        prepare(vault, [RECIPIENT])
    with hold_vaults(ready, "social", Asset.MEDIA, run) as held:
        assert not held.lacking
        snapshot = begin_snapshot(
            held.vaults, host="social", asset=Asset.MEDIA, run=run, recipients=[RECIPIENT], guard=held.check
        )
        pack = f"hosts/social/media/packs/{snapshot.id[-8:]}.tar"
        snapshot.write_shared(pack, io.BytesIO(DATA), compress=False)
        snapshot.write("files.ndjson", io.BytesIO(DATA[:1000]), compress=True)
        held.wrote(snapshot.id)
        snapshot.commit({"files": 1})
        assert snapshot.vaults == ("one", "two"), snapshot.lacking


def _no_sync(file: object, /) -> None:
    pass


def child(place: Path, run: str) -> int:
    """Fork; the child backs up and ends with 0, or with 1 and its traceback."""
    pid = os.fork()
    if pid:
        return pid
    os.fsync = _no_sync  # type: ignore[assignment]  # what a killed process has written stays written
    try:
        back_up(place, run)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the child must end here
        traceback.print_exc()
        os._exit(1)


class Checker:
    """The rules of docs/format.md: what is listed is whole, byte for byte; each object is read once."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.reached: Counter[str] = Counter()
        self._unnamed: set[str] = set()
        self._known: dict[tuple[str, str], dict[str, int]] = {}

    def check(self) -> None:
        for vault in vaults(self.place):
            stored = {found.key: found.bytes for found in vault.list("hosts/")}
            named: dict[str, int] = {}
            for key in stored:
                if match := MANIFEST_KEY.fullmatch(key):
                    named |= self.manifest(vault, match["id"])
            assert named.items() <= stored.items(), "an object of a listed snapshot has gone, or changed"
            unnamed = {key for key in stored if key.endswith(".age") and key not in named}
            self.reached["with objects that no manifest names"] += bool(unnamed - self._unnamed)
            self._unnamed |= unnamed

    def manifest(self, vault: DirectoryVault, snapshot: str) -> dict[str, int]:
        """The objects of a snapshot, with their sizes."""
        if (vault.name, snapshot) not in self._known:
            with vault.read(manifest_key(snapshot)) as file:
                assert is_unchanged(file.read())
            manifest = read_manifest(vault, snapshot)
            for entry in manifest.objects:
                with vault.read(object_key(manifest, entry)) as file:
                    assert hashlib.sha256(file.read()).hexdigest() == entry.sha256, entry.name
            sizes = {object_key(manifest, entry): entry.bytes for entry in manifest.objects}
            self._known[vault.name, snapshot] = sizes
        return self._known[vault.name, snapshot]


def main(place: Path, seed: int, kills: int) -> Counter[str]:
    chance = random.Random(seed)
    reached: Counter[str] = Counter()
    for begin in range(0, kills, FRESH_EVERY):
        reached += some(place / str(begin), chance, min(FRESH_EVERY, kills - begin))
    return reached


def some(place: Path, chance: random.Random, kills: int) -> Counter[str]:
    """Kill so many runs into new vaults."""
    checker = Checker(place)
    began = time.monotonic()
    for number in range(3):
        assert os.waitpid(child(place, f"first-{number}"), 0)[1] == 0
    usual = (time.monotonic() - began) / 3
    for number in range(kills):
        pid = child(place, f"killed-{number}")
        time.sleep(chance.uniform(0.0, usual))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL), "a run failed after one that was killed"
        checker.reached["killed" if status else "ended before"] += 1
        checker.check()
        if number % WHOLE_EVERY == 0:
            assert os.waitpid(child(place, f"whole-{number}"), 0)[1] == 0, "a run failed after one that was killed"
            checker.check()
    return checker.reached


if __name__ == "__main__":
    gc.freeze()
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
