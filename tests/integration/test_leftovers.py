"""What a killed run left in a vault: removed when it is nobody's, and kept when it is somebody's."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backends.archive.keys import new_identity
from backends.archive.layout import snapshot_prefix
from backends.archive.writer import Snapshot, begin_snapshot
from backends.config.schema import Config, VaultConfig
from backends.config.schema import DirectoryVault as DirectoryConfig
from backends.errors import Locked
from backends.model import Asset, utc_now
from backends.runs import leftovers
from backends.runs.leftovers import clean_vault, reach
from backends.vault import lease_owner, lease_record
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from backends.vault.lease import lease_holder, take_lease
from backends.vault.lease_owner import LIVE, Owner, this_process
from tests.contract.append_only import AppendOnlyVault
from tests.contract.skewed import SkewedVault

_, RECIPIENT = new_identity()
PACK = "hosts/social/media/packs/0123456789.tar"
NAME = "social/media/write"


@pytest.fixture
def vault(tmp_path: Path) -> DirectoryVault:
    made = DirectoryVault("v", tmp_path / "v")
    prepare(made, [RECIPIENT])
    return made


def begin(vault: Vault) -> Snapshot:
    return begin_snapshot([vault], host="social", asset=Asset.MEDIA, run="r", recipients=[RECIPIENT])


def killed(vault: Vault) -> list[str]:
    """What a run has begun that was killed before its commit."""
    snapshot = begin(vault)
    snapshot.write_shared(PACK, io.BytesIO(b"pack"), compress=False)
    snapshot.write("files.ndjson", io.BytesIO(b"{}"), compress=True)
    left = vault.open_upload(snapshot_prefix(snapshot.id) + "more.age")
    left.write(b"x")
    return [snapshot.id, PACK]


def clean(vault: Vault, begun: list[str]) -> bool:
    return clean_vault(vault, "social", [Asset.MEDIA], {Asset.MEDIA: begun}, "later")


def objects(vault: Vault) -> list[str]:
    return [stored.key for stored in vault.list("hosts/")]


def test_what_nobody_refers_to_is_removed(vault: DirectoryVault) -> None:
    begun = killed(vault)
    assert len(objects(vault)) == 2
    assert clean(vault, begun)
    assert objects(vault) == []
    assert not list((vault.path / "hosts").rglob("*"))
    assert lease_holder(vault, NAME) is None


@pytest.mark.parametrize("shift", [timedelta(days=2), timedelta(days=-2)])
def test_packs_that_another_snapshot_refers_to_stay(vault: DirectoryVault, shift: timedelta) -> None:
    skewed = SkewedVault(vault, shift)
    first = begin(skewed)
    entry = first.write_shared(PACK, io.BytesIO(b"pack"), compress=False)
    other = begin(skewed)
    other.refer([entry])
    other.write("files.ndjson", io.BytesIO(b"{}"), compress=True)
    other.commit({})
    assert clean(skewed, [first.id, PACK])
    assert f"{PACK}.age" in objects(vault)
    assert len(objects(vault)) == 3


def test_what_was_committed_stays(vault: DirectoryVault) -> None:
    snapshot = begin(vault)
    snapshot.write_shared(PACK, io.BytesIO(b"pack"), compress=False)
    snapshot.commit({})
    before = objects(vault)
    assert clean(vault, [snapshot.id, PACK])
    assert objects(vault) == before


def test_another_machine_that_is_at_work_is_left_alone(vault: DirectoryVault, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = killed(vault)
    before = objects(vault)
    for name in (NAME, "social/media/sync"):
        lease = take_lease(vault, name, run="other", doing="synced")
        assert not clean(vault, begun)
        assert objects(vault) == before
        lease.check()
        lease.release()
    assert clean(vault, begun)
    assert objects(vault) == []


def test_the_lease_of_a_dead_process_of_this_machine_is_ended(
    vault: DirectoryVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = this_process()
    with monkeypatch.context() as patch:
        patch.setattr(lease_record, "this_process", lambda: replace(me, pid=2**22 + 3))
        take_lease(vault, NAME, run="dead", doing="backed up")
    elsewhere = Owner(user="ann", host="other", machine="other", pid=1, started=1)
    with monkeypatch.context() as patch:
        patch.setattr(lease_owner, "this_process", lambda: elsewhere)
        with pytest.raises(Locked, match="run dead"):
            take_lease(vault, NAME, run="other", doing="backed up")
    assert clean_vault(vault, "social", [Asset.MEDIA], {}, "later")
    with monkeypatch.context() as patch:
        patch.setattr(lease_owner, "this_process", lambda: elsewhere)
        take_lease(vault, NAME, run="other", doing="backed up").release()
    LIVE.clear()


def test_credentials_that_may_only_add_are_no_reason_to_try_for_ever(vault: DirectoryVault) -> None:
    begun = killed(vault)
    assert clean(AppendOnlyVault(vault), begun)
    assert len(objects(vault)) == 2


def test_a_running_upload_of_another_machine_survives_a_wrong_clock(
    vault: DirectoryVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's clock is two days ahead of the vault's."""
    begun = killed(vault)
    running = vault.open_upload("hosts/social/media/packs/other.tar.age")
    running.write(b"x")
    monkeypatch.setattr(leftovers, "utc_now", lambda: utc_now() + timedelta(days=2))
    assert clean(vault, begun)
    running.commit()
    assert objects(vault) == ["hosts/social/media/packs/other.tar.age"]


def test_a_vault_that_hangs_is_waited_for_within_bounds(
    vault: DirectoryVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()

    def opened(name: str, config: object) -> Vault:
        if name == "hangs":
            end.wait(20)
        if name == "broken":
            raise Locked("whatever")
        return vault if name == "good" else DirectoryVault(name, tmp_path / name)

    monkeypatch.setattr(leftovers, "open_vault", opened)
    names = ["good", "hangs", "broken", "new"]
    vaults: dict[str, VaultConfig] = {name: DirectoryConfig(type="directory", path=tmp_path / name) for name in names}
    began = time.monotonic()
    reached = reach(Config(vaults=vaults), names, 0.2)
    assert time.monotonic() - began < 5
    end.set()
    assert set(reached.vaults) == {"good", "new"}
    assert reached.prepared == {"good"}
    assert reached.of(["hangs", "good"]) == [vault]
    reached.close()
