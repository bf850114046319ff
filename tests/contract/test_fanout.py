"""Several vaults at once: the slowest sets the pace, one that fails or hangs is left behind."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from backends.archive import fanout
from backends.archive.fanout import Fanout
from backends.archive.keys import new_identity
from backends.archive.writer import begin_snapshot
from backends.errors import VaultError, VaultStalled
from backends.model import Asset
from backends.vault.base import Upload, Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.contract.faulty import FaultyVault
from tests.contract.passing import PassingUpload, PassingVault
from tests.sync_world import is_whole

_, RECIPIENT = new_identity()
PIECE = bytes(512 * 1024)
MANY = 40


class Gated(PassingVault):
    """Blocks in `write`, or in `commit`, until it is let go on."""

    def __init__(self, inner: Vault, at: str) -> None:
        super().__init__(inner)
        self.at = at
        self.gate = threading.Event()
        self.reached = threading.Event()
        self.written = 0
        self.over = threading.Event()
        """Set when its upload has come to its end."""

    def open_upload(self, key: str) -> Upload:
        return _GatedUpload(self, self.inner.open_upload(key))


class _GatedUpload(PassingUpload):
    def __init__(self, vault: Gated, inner: Upload) -> None:
        super().__init__(inner)
        self._vault = vault

    def write(self, data: bytes) -> None:
        self._pass("write")
        self.inner.write(data)
        self._vault.written += len(data)

    def commit(self) -> None:
        self._pass("commit")
        self.inner.commit()

    def abort(self) -> None:
        self.inner.abort()
        self._vault.over.set()

    def _pass(self, at: str) -> None:
        if at == self._vault.at:
            self._vault.reached.set()
            assert self._vault.gate.wait(20)


class Nowhere(PassingVault):
    """Takes everything at once and keeps nothing."""

    def open_upload(self, key: str) -> Upload:
        return _NowhereUpload(self.inner.open_upload(key))


class _NowhereUpload(PassingUpload):
    def write(self, data: bytes) -> None:
        pass


def directory(place: Path, name: str) -> DirectoryVault:
    vault = DirectoryVault(name, place / name)
    prepare(vault, [RECIPIENT])
    return vault


def test_the_slowest_sets_the_pace(tmp_path: Path) -> None:
    slow = Gated(directory(tmp_path, "slow"), "write")
    both = Fanout([slow, directory(tmp_path, "quick")], "object")
    handed = 0

    def feed() -> None:
        nonlocal handed
        for _ in range(MANY):
            both.write(PIECE)
            handed += len(PIECE)

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert slow.reached.wait(20)
    feeder.join(0.3)
    assert feeder.is_alive()
    assert handed <= 5 * 1024 * 1024, "what waits for a vault is bounded"
    slow.gate.set()
    feeder.join(20)
    both.commit()
    assert [lane.count for lane in both.lanes] == [MANY * len(PIECE)] * 2


def test_a_vault_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "STALL", 1.0)
    good = directory(tmp_path, "good")
    hanging = Gated(directory(tmp_path, "hanging"), "write")
    snapshot = begin_snapshot([hanging, good], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT])
    snapshot.write("database.pgdump", io.BytesIO(bytes(20 * 1024 * 1024)), compress=False)
    snapshot.commit({})
    assert snapshot.vaults == ("good",)
    assert isinstance(snapshot.lacking["hanging"], VaultStalled)
    assert "hangs" in snapshot.lacking["hanging"].sentence
    assert is_whole(good) == [snapshot.id]
    hanging.gate.set()
    assert hanging.over.wait(20), "it cleans up when it wakes up at last"
    assert list(hanging.list("hosts/")) == []


def test_a_vault_that_hangs_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "STALL_AT_END", 0.2)
    hanging = Gated(directory(tmp_path, "hanging"), "commit")
    alone = Fanout([hanging], "object")
    alone.write(PIECE)
    with pytest.raises(VaultStalled):
        alone.commit()
    alone.abort()
    hanging.gate.set()
    assert hanging.over.wait(20)
    assert [found.key for found in hanging.list() if found.key == "object"] == [], "nobody wants it any more"


def test_a_pause_of_the_source_is_no_hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "STALL", 0.3)
    alone = Fanout([Nowhere(directory(tmp_path, "one"))], "object")
    alone.write(b"few")
    threading.Event().wait(0.4)
    for _ in range(MANY):
        alone.write(PIECE)
    alone.commit()
    assert alone.lanes[0].error is None


@pytest.mark.parametrize("call", ["open_upload", "write", "commit"])
def test_one_that_fails_is_left_behind(tmp_path: Path, call: str) -> None:
    good = directory(tmp_path, "good")
    faulty = FaultyVault(directory(tmp_path, "bad"), call)
    both = Fanout([faulty, good], "object")
    for _ in range(MANY):
        both.write(PIECE)
    both.commit()
    assert [lane.error is None for lane in both.lanes] == [False, True]
    alone = Fanout([FaultyVault(directory(tmp_path, "bad"), call)], "other")

    def feed() -> None:
        for _ in range(MANY):
            alone.write(PIECE)
        alone.commit()

    with pytest.raises(VaultError):
        feed()
