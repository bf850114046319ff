"""Encrypting old snapshots anew, for the recipients of now."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.layout import manifest_key, snapshot_prefix
from backends.archive.manifest import Manifest
from backends.archive.writer import begin_snapshot
from backends.catalog import Catalog
from backends.errors import VaultDenied
from backends.model import Asset, JobState, utc_now
from backends.operations import rewrap, rewrap_look, verify
from backends.operations.locks import hold
from backends.operations.rewrap_look import FROM
from backends.vault.base import VaultLook
from backends.vault.directory import DirectoryVault
from tests.contract.lagging import LaggingVault
from tests.rewrap_faults import calls_of_a_rewrap, killed_and_continued, require_survived
from tests.rewrap_world import BEGAN, OTHER_PACK, PACK, Rewraps
from tests.servers.backup import WatchedJob


@pytest.fixture
def world(tmp_path: Path) -> Rewraps:
    return Rewraps(tmp_path)


def all_of(world: Rewraps, name: str = "near") -> dict[str, Manifest]:
    """The manifests of a vault, by where they come from."""
    return {str(manifest.facts.get(FROM)): manifest for manifest, _ in world.manifests(world.vaults[name])}


def test_a_snapshot_keeps_all_but_its_key(world: Rewraps) -> None:
    before = [world.secrets(1), world.secrets(2)]
    contents = world.contents()
    results = world.rewrap()
    assert results[Asset.SECRETS].state is JobState.DONE, results
    assert results[Asset.SECRETS].detail == "2 snapshots encrypted anew"
    assert results[Asset.MEDIA].detail == "nothing to encrypt anew"
    assert world.contents() == contents
    world.require_rewrapped()
    for name in world.vaults:
        found = all_of(world, name)
        for old in before:
            new = found[old.id]
            assert new.id != old.id
            assert (new.run, new.started_at, new.finished_at) == (old.run, old.started_at, old.finished_at)
            assert new.facts == {**old.facts, FROM: old.id}
            assert (new.in_part, new.warnings) == (old.in_part, old.warnings)
            [entry], [was] = new.objects, old.objects
            assert (entry.name, entry.codecs, entry.plain_bytes) == (was.name, was.codecs, was.plain_bytes)
            assert entry.sha256 != was.sha256
            assert world.keys(name, snapshot_prefix(old.id)) == set()
    assert all_of(world, "near") == all_of(world, "far"), "copies stay copies of the same snapshot"
    assert world.rewrap()[Asset.SECRETS].detail == "nothing to encrypt anew"


def test_packs_are_encrypted_once_and_the_old_ones_go(world: Rewraps) -> None:
    first = world.media(1)
    world.media(2, before=first)
    contents = world.contents()
    result = world.rewrap()[Asset.MEDIA]
    assert (result.state, result.in_part) == (JobState.DONE, False), result
    assert world.contents() == contents
    world.require_rewrapped()
    packs = world.keys("near", "/packs/")
    assert len(packs) == 2, "one shared, one of its own"
    assert sorted(key.rpartition("/")[2] for key in packs) == sorted([f"{2:032x}.tar.age", f"{PACK}.tar.age"])
    assert packs == world.keys("far", "/packs/")
    [shared] = [key for key in packs if PACK in key]
    assert {entry.key for manifest in all_of(world).values() for entry in manifest.objects if PACK in entry.name} == {
        shared
    }


def test_an_old_pack_stays_while_a_snapshot_needs_it(world: Rewraps, tmp_path: Path) -> None:
    first = world.media(1)
    torn = world.media(2, before=first)
    index = snapshot_prefix(torn.id) + "files.ndjson.zst.age"
    for vault in world.vaults.values():
        path = vault.path / index
        path.write_bytes(path.read_bytes()[:-3])
    result = world.rewrap()[Asset.MEDIA]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert any(torn.id in text and "stays as it is" in text for text in result.warnings)
    assert sum(PACK in key for key in world.keys("near", "/packs/")) == 2, "the old one is still named"


def test_a_changed_manifest_keeps_every_pack_of_the_old_ones(world: Rewraps) -> None:
    first = world.media(1)
    changed = world.media(2, before=first)
    for vault in world.vaults.values():
        path = vault.path / manifest_key(changed.id)
        path.write_text(path.read_text().replace(PACK, OTHER_PACK))
    result = world.rewrap()[Asset.MEDIA]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    said = [text for text in result.warnings if "packs stay in near" in text]
    assert len(said) == 1
    assert changed.id in said[0]
    assert sum(PACK in key for key in world.keys("near", "/packs/")) == 2, "perhaps it needs the old one"


def test_what_was_found_of_the_content_is_carried_over(world: Rewraps) -> None:
    before = world.secrets(1)
    world.check(before, "drilled", restore_seconds=4.5, pair="opens")
    world.check(before, "unchanged")
    world.check(before, "verified", whole=True)
    world.rewrap()
    catalog = Catalog(world.paths.cache_dir)
    [info] = catalog.snapshots("social")
    assert (info.drilled_at, info.checked_at, info.verified_at) == (BEGAN, BEGAN, None)
    assert (info.opens_dump, info.drill_seconds) == (True, 4.5)
    assert set(info.vaults) == {"near", "far"}
    checks = catalog.checks(info.id)
    assert {(check.vault, check.kind) for check in checks} == {
        (vault, kind) for vault in world.vaults for kind in ("drilled", "unchanged")
    }
    assert {check.details.get(FROM) for check in checks} == {before.id}


def test_a_damaged_copy_is_healed_from_the_other(world: Rewraps) -> None:
    before = world.secrets(1)
    path = world.vaults["near"].path / snapshot_prefix(before.id) / "environment.tar.age"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert world.rewrap()[Asset.SECRETS].state is JobState.DONE
    world.require_rewrapped()
    assert all_of(world, "near") == all_of(world, "far")


def test_what_no_key_opens_stays(world: Rewraps) -> None:
    before = world.secrets(1)
    result = world.rewrap(config=world.config(old_identities=[]))[Asset.SECRETS]
    assert result.state is JobState.FAILED
    assert "no identity at hand opens" in str(result.error)
    assert world.keys("near", snapshot_prefix(before.id))
    missing = world.rewrap(config=world.config(identity=world.place / "gone", old_identities=[]))[Asset.SECRETS]
    assert (missing.state, missing.exit_code) == (JobState.FAILED, 12)


def test_what_a_stranger_wrote_is_not_signed_for_him(world: Rewraps, tmp_path: Path) -> None:
    forged = world.secrets(1, sign=False)
    ours = world.secrets(2)
    (tmp_path / "other").mkdir()
    other = Rewraps(tmp_path / "other")
    foreign = begin_snapshot(
        list(world.vaults.values()),
        host="social",
        asset=Asset.SECRETS,
        run="r",
        recipients=[world.old],
        at=BEGAN + timedelta(hours=3),
        sign=other.signer,
    )
    foreign.write("environment.tar", io.BytesIO(b"EVIL=1"), compress=False)
    strange = foreign.commit({})
    # It claims to be what ours was rewrapped to, so that ours would be deleted.
    trap = world.secrets(2, sign=False, recipients=[world.new, world.recovery], facts={FROM: ours.id})
    result = world.rewrap()[Asset.SECRETS]
    assert result.in_part
    assert any(strange.id in text and "foreign" in text for text in result.warnings)
    found = {manifest.id: (manifest, seal) for manifest, seal in world.manifests(world.vaults["near"])}
    assert strange.id in found
    assert trap.id in found
    assert forged.id not in found
    anew = {
        manifest.facts[FROM]: seal
        for manifest, seal in found.values()
        if manifest.id != trap.id and FROM in manifest.facts
    }
    assert anew[forged.id].signature == "none", "a signature says who made it"
    assert anew[ours.id].signature == "good"


def test_without_the_signing_key_nothing_is_begun(world: Rewraps) -> None:
    world.secrets(1)
    before = world.keys("near")
    result = world.rewrap(config=world.config(signing_key=None))[Asset.SECRETS]
    assert (result.state, result.exit_code) == (JobState.FAILED, 12)
    assert "there is no signing key here" in str(result.error)
    assert world.keys("near") == before


def test_without_signers_it_works_too(tmp_path: Path) -> None:
    world = Rewraps(tmp_path, signed=False)
    world.secrets(1)
    assert world.rewrap()[Asset.SECRETS].state is JobState.DONE
    world.require_rewrapped()


def test_an_asset_that_is_being_backed_up_waits(world: Rewraps) -> None:
    world.secrets(1)
    before = world.keys("near")
    with hold(world.paths.state_dir, "social", Asset.SECRETS, "another"):
        result = world.rewrap()[Asset.SECRETS]
    assert (result.state, result.exit_code) == (JobState.FAILED, 11)
    assert world.keys("near") == before


def test_cancelling_leaves_all_of_it(world: Rewraps) -> None:
    world.media(1)
    contents = world.contents()

    def interfere(step: str, done: int) -> None:
        if step.startswith("encrypting"):
            world.job.cancel()

    world.job = WatchedJob(interfere)
    assert world.rewrap()[Asset.MEDIA].state is JobState.CANCELLED
    assert world.contents() == contents
    world.job = WatchedJob()
    assert world.rewrap()[Asset.MEDIA].state is JobState.DONE
    world.require_rewrapped()


def test_a_vault_that_was_away_is_filled_and_then_cleaned(world: Rewraps) -> None:
    before = world.secrets(1)
    world.vaults["far"].path.rename(world.place / "unplugged")
    result = world.rewrap()[Asset.SECRETS]
    assert result.state is JobState.DONE
    world.vaults["far"].path.rename(world.place / "made by the lease")
    (world.place / "unplugged").rename(world.vaults["far"].path)
    result = world.rewrap()[Asset.SECRETS]
    assert any("`mastovault vault sync far` fills it" in text for text in (*result.warnings, str(result.error)))
    [new] = all_of(world, "near").values()
    for key in world.keys("near", snapshot_prefix(new.id)):  # as a sync would
        (world.vaults["far"].path / key).parent.mkdir(parents=True, exist_ok=True)
        (world.vaults["far"].path / key).write_bytes((world.vaults["near"].path / key).read_bytes())
    assert world.rewrap()[Asset.SECRETS].state is JobState.DONE
    world.require_rewrapped()
    assert world.keys("far", snapshot_prefix(before.id)) == set()


class Locked(DirectoryVault):
    """A vault whose objects may not be removed yet."""

    def look(self) -> VaultLook:
        return VaultLook(object_lock="governance, 1 day")

    def locked_until(self, key: str) -> datetime | None:
        return utc_now() + timedelta(days=1)


class AppendOnly(DirectoryVault):
    """A vault whose credentials may not delete snapshots."""

    def delete(self, key: str) -> None:
        if key.startswith("hosts/"):
            raise VaultDenied("these credentials may not delete")
        super().delete(key)


@pytest.mark.parametrize(("kind", "says"), [(Locked, "under an Object Lock until"), (AppendOnly, "may not delete")])
def test_what_cannot_be_deleted_stays_and_is_said(
    world: Rewraps, monkeypatch: pytest.MonkeyPatch, kind: type[DirectoryVault], says: str
) -> None:
    before = world.secrets(1)
    monkeypatch.setattr(verify, "open_vault", lambda name, its: kind(name, its.path))
    for _ in range(2):
        result = world.rewrap()[Asset.SECRETS]
        assert (result.state, result.in_part) == (JobState.DONE, True)
        assert any(before.id in text and says in text for text in result.warnings)
    assert {manifest.id for manifest, _ in world.manifests(world.vaults["near"])} > {before.id}
    assert len(list(world.manifests(world.vaults["near"]))) == 2, "it is not encrypted anew each time"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: what is tested many times needs no disk to have it."""
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="rewrap-", dir=root) as place:
        yield Path(place)


@pytest.mark.parametrize(("after", "dead"), [(False, True), (True, False)], ids=["gone-for-good", "answer-lost"])
def test_a_fault_at_each_call_of_a_vault(memory: Path, after: bool, dead: bool) -> None:
    # Every 20th call, and others in each variant; the bench visits all of them.
    for nth in range(1 + 10 * after, calls_of_a_rewrap(memory) + 1, 20):
        require_survived(memory, nth, after=after, dead=dead)


def test_killed_at_any_moment(memory: Path) -> None:
    assert killed_and_continued(memory, rounds=3) == 3


def test_listings_that_lag_behind(world: Rewraps, monkeypatch: pytest.MonkeyPatch) -> None:
    world.check(world.secrets(1), "drilled")
    world.media(2, before=world.media(1))
    contents = world.contents()
    lagging = {name: LaggingVault(vault, 3600, prefix="hosts/") for name, vault in world.vaults.items()}
    monkeypatch.setattr(verify, "open_vault", lambda name, its: lagging[name])
    for _ in range(2):
        results = world.rewrap()
        assert {result.state for result in results.values()} == {JobState.DONE}, results
        assert world.contents() == contents
    monkeypatch.undo()
    world.rewrap()
    assert world.contents() == contents
    world.require_rewrapped()


def test_a_bug_in_one_asset_does_not_end_the_other(world: Rewraps, monkeypatch: pytest.MonkeyPatch) -> None:
    world.secrets(1)
    world.media(1)
    real = rewrap_look.look

    def look(vaults: object, host: str, asset: Asset, *rest: object, **more: object) -> object:
        if asset is Asset.SECRETS:
            raise RuntimeError("hunter2")
        return real(vaults, host, asset, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rewrap, "look", look)
    results = world.rewrap()
    assert results[Asset.SECRETS].state is JobState.FAILED
    assert "hunter2" not in str(results[Asset.SECRETS].error)
    assert results[Asset.MEDIA].state is JobState.DONE
