"""A whole backup into two vaults, of which one has a bad day: the other one has it all, and nothing torn is listed."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.keys import new_identity
from backends.archive.layout import MANIFEST_KEY
from backends.archive.reader import object_key, open_stored, read_manifest
from backends.archive.writer import begin_snapshot
from backends.catalog import record_attempt
from backends.errors import LeaseLost, Locked, VaultError, VaultFull
from backends.model import Asset, Attempt, JobState
from backends.operations.leases import hold_vaults
from backends.vault.base import Upload, Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from backends.vault.lease import take_lease
from tests.contract.append_only import AppendOnlyVault
from tests.contract.faulty import ANY, FaultyVault
from tests.contract.lagging import LaggingVault
from tests.contract.passing import PassingUpload, PassingVault
from tests.contract.skewed import SkewedVault

_, RECIPIENT = new_identity()
DATA = os.urandom(300_000)
DAYS = timedelta(days=2)


@dataclass
class Result:
    """How a backup ended."""

    snapshot: str
    vaults: tuple[str, ...]
    lacking: dict[str, str] = field(default_factory=dict)


def directory(place: Path, name: str) -> DirectoryVault:
    return DirectoryVault(name, place / name)


def back_up(
    *vaults: Vault, run: str = "r1", data: bytes = DATA, meanwhile: Callable[[], None] = lambda: None
) -> Result:
    """What the operation does with its vaults: prepare, take the leases, write, commit, record, let go."""
    lacking: dict[str, str] = {}
    ready = []
    for vault in vaults:
        try:
            prepare(vault, [RECIPIENT])
            ready.append(vault)
        except VaultError as error:
            lacking[vault.name] = error.sentence
    with hold_vaults(ready, "social", Asset.MEDIA, run) as held:
        snapshot = begin_snapshot(
            held.vaults, host="social", asset=Asset.MEDIA, run=run, recipients=[RECIPIENT], guard=held.check
        )
        try:
            pack = f"hosts/social/media/packs/{snapshot.id[-8:]}.tar"
            snapshot.write_shared(pack, io.BytesIO(data), compress=False)
            snapshot.write("files.ndjson", io.BytesIO(data[:1000]), compress=True)
            meanwhile()
            held.wrote(snapshot.id)
            snapshot.commit({"files": 1})
        except BaseException:
            snapshot.discard()
            raise
    attempt = Attempt(host="social", asset=Asset.MEDIA, run=run, at=datetime.now(UTC), seconds=1.0, state=JobState.DONE)
    record_attempt(ready, attempt)
    dropped = {name: error.sentence for name, error in snapshot.lacking.items()}
    return Result(snapshot.id, snapshot.vaults, {**lacking, **held.lacking, **dropped})


def listed(vault: Vault) -> list[str]:
    """The snapshots that a vault lists; every one must be whole."""
    found = [match["id"] for stored in vault.list("hosts/") if (match := MANIFEST_KEY.fullmatch(stored.key))]
    for snapshot in found:
        manifest = read_manifest(vault, snapshot)
        assert len(manifest.objects) == 2
        for entry in manifest.objects:
            open_stored(vault, manifest, entry).drain()
    return found


def leftovers(vault: Vault) -> list[str]:
    """Objects that no manifest names."""
    kept = set()
    for snapshot in listed(vault):
        manifest = read_manifest(vault, snapshot)
        kept |= {object_key(manifest, entry) for entry in manifest.objects}
    stored = [found.key for found in vault.list("hosts/") if found.key.endswith(".age")]
    return [key for key in stored if key not in kept]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("exclusive", [True, False], ids=["slots", "claims"])
def test_every_call_of_one_vault_fails(
    tmp_path: Path, after: bool, for_good: bool, exclusive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DirectoryVault, "exclusive", lambda self: exclusive)
    monkeypatch.setattr("backends.vault.lease_claim._SETTLE", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for nth in range(1, 100, 1 if exclusive else 3):  # each call of the one way, a third of the other's
        place = tmp_path / str(nth)
        good, inner = directory(place, "good"), directory(place, "bad")
        bad = FaultyVault(inner, ANY, nth, after=after, for_good=for_good)
        result = back_up(bad, good, data=DATA[:20_000])
        assert "good" in result.vaults
        assert listed(good) == [result.snapshot]
        assert leftovers(good) == []
        if "bad" in result.vaults:
            assert listed(inner) == [result.snapshot]
        else:
            assert "bad" in result.lacking
            # it went away with the manifest in it and could not be asked to give it back: then it is whole
            assert listed(inner) in ([], [result.snapshot]) if for_good else listed(inner) == []
        again = back_up(inner, good, run="r2", data=DATA[:20_000])
        assert again.vaults == ("bad", "good")
        assert not again.lacking
        assert again.snapshot in listed(inner)
        if not bad.broken:
            assert nth > 20
            assert not result.lacking
            assert result.vaults == ("bad", "good")
            return
    raise AssertionError("never ran through")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_every_call_of_the_only_vault_fails(
    tmp_path: Path, after: bool, for_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for nth in range(1, 100):
        inner = directory(tmp_path / str(nth), "only")
        bad = FaultyVault(inner, ANY, nth, after=after, for_good=for_good)
        made = ""
        try:
            made = back_up(bad, data=DATA[:20_000]).snapshot
        except (VaultError, Locked) as error:
            failed: Exception | None = error
        else:
            failed = None
        found = listed(inner)
        assert found == [made] if failed is None else len(found) <= int(for_good)
        assert back_up(inner, run="r2", data=DATA[:20_000]).snapshot in listed(inner)
        if not bad.broken:
            return
    raise AssertionError("never ran through")


def test_a_disk_is_full_in_the_middle(tmp_path: Path) -> None:
    class Full(PassingVault):
        left = 150_000

        def open_upload(self, key: str) -> Upload:
            vault = self

            class Writing(PassingUpload):
                def write(self, data: bytes) -> None:
                    vault.left -= len(data)
                    if vault.left < 0:
                        raise VaultFull(f"no room left in {vault.where}", "Make room there, or prune old snapshots.")
                    super().write(data)

            return Writing(self.inner.open_upload(key))

    good, inner = directory(tmp_path, "good"), directory(tmp_path, "bad")
    result = back_up(Full(inner), good)
    assert result.vaults == ("good",)
    assert "no room left" in result.lacking["bad"]
    assert listed(good) == [result.snapshot]
    assert listed(inner) == leftovers(inner) == []
    assert back_up(inner, good, run="r2").vaults == ("bad", "good")


@pytest.mark.parametrize("prefix", ["hosts/", "leases/", ""])
def test_listings_that_lag_fail_no_backup(tmp_path: Path, prefix: str) -> None:
    inner = directory(tmp_path, "one")
    vault = LaggingVault(inner, 3600.0, prefix=prefix)
    for number in range(3):
        result = back_up(vault, run=f"r{number}")
        assert result.vaults == ("one",)
        assert not result.lacking
    assert len(listed(inner)) == 3
    assert listed(vault) == [] or prefix == "leases/"
    lease = take_lease(vault, "social/media/write", run="r3", doing="pruned")
    assert len(lease.previous) == 3, "what the last runs wrote is known, listed or not"
    with pytest.raises(Locked):
        back_up(vault)
    lease.release()


@pytest.mark.parametrize("shift", [DAYS, -DAYS])
def test_a_clock_that_is_two_days_wrong_fails_no_backup(tmp_path: Path, shift: timedelta) -> None:
    inner = directory(tmp_path, "one")
    vault = SkewedVault(inner, shift)
    first = back_up(vault).snapshot
    lease = take_lease(vault, "social/media/write", run="r2", doing="pruned")
    assert abs(lease.now() - datetime.now(UTC) - shift) < timedelta(seconds=5)
    writing = inner.open_upload("hosts/social/media/packs/running.tar.age")
    writing.write(b"x")
    assert vault.clean_leftovers(lease.now() - timedelta(days=1)) == 0, "another machine is writing this"
    writing.abort()
    lease.release()
    second = back_up(vault, run="r3").snapshot
    assert sorted(listed(inner)) == sorted([first, second])


def test_credentials_that_may_only_add_go_on(tmp_path: Path) -> None:
    inner = directory(tmp_path, "one")
    vault = AppendOnlyVault(inner)
    made = [back_up(vault, run=f"r{number}").snapshot for number in range(3)]
    assert sorted(listed(inner)) == sorted(made)
    with pytest.raises(RuntimeError):
        back_up(vault, meanwhile=fail)
    assert sorted(listed(inner)) == sorted(made), "what could not be removed is listed nowhere"
    assert len(leftovers(inner)) == 2
    assert back_up(vault).vaults == ("one",)


def fail() -> None:
    raise RuntimeError


def test_a_run_that_was_overtaken_drops_the_vault(tmp_path: Path) -> None:
    good, bad = directory(tmp_path, "good"), directory(tmp_path, "bad")

    result = back_up(bad, good, meanwhile=lambda: overtake(bad))
    assert result.vaults == ("good",)
    assert "took over" in result.lacking["bad"]
    assert listed(bad) == leftovers(bad) == []
    with pytest.raises(LeaseLost):
        back_up(good, meanwhile=lambda: overtake(good))
    assert len(listed(good)) == 1


def overtake(vault: Vault) -> None:
    prefix = "leases/social/media/write/slots/"
    top = max(stored.key for stored in vault.list(prefix))
    vault.put_new(f"{prefix}{int(top[-17:-5]) + 1:012}.json", b"somebody else")


def test_the_second_of_two_runs_is_told(tmp_path: Path) -> None:
    vaults = [directory(tmp_path, "one"), directory(tmp_path, "two")]
    inside, go = threading.Event(), threading.Event()
    done: list[Result] = []

    def wait() -> None:
        inside.set()
        assert go.wait(20)

    first = threading.Thread(target=lambda: done.append(back_up(*vaults, meanwhile=wait)))
    first.start()
    assert inside.wait(20)
    with pytest.raises(Locked, match="run r1"):
        back_up(*vaults, run="r2")
    go.set()
    first.join()
    assert done[0].vaults == ("one", "two")
    assert not done[0].lacking
