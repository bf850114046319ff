"""The catalogue: read from real vaults, merged, cached, and never trusting what it reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from backends.archive.keys import new_identity
from backends.archive.layout import record_key, snapshot_prefix
from backends.archive.manifest import Manifest
from backends.archive.writer import begin_snapshot
from backends.catalog import Catalog, Proof, record_attempt, record_check
from backends.errors import NotFound
from backends.model import Asset, AssetObservation, Attempt, HostObservation, HostState, JobState
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import KEY, prepare
from tests.contract.faulty import FaultyVault

_, RECIPIENT = new_identity()
NOW = datetime(2026, 11, 22, 14, 2, 11, 250000, tzinfo=UTC)


@pytest.fixture
def vault(tmp_path: Path) -> DirectoryVault:
    made = DirectoryVault("one", tmp_path / "one")
    prepare(made, [RECIPIENT])
    return made


@pytest.fixture
def second(tmp_path: Path) -> DirectoryVault:
    made = DirectoryVault("two", tmp_path / "two", offsite=True)
    prepare(made, [RECIPIENT])
    return made


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "cache")


def back_up(
    *vaults: Vault,
    host: str = "social",
    asset: Asset = Asset.DATABASE,
    at: datetime = NOW,
    data: bytes = b"x",
    fingerprint: str | None = None,
) -> Manifest:
    snapshot = begin_snapshot(vaults, host=host, asset=asset, run="run-1", recipients=[RECIPIENT], at=at)
    snapshot.write("object", io.BytesIO(data), compress=False)
    return snapshot.commit({"fingerprint": fingerprint} if fingerprint else {"rows": 3})


def attempt(state: JobState = JobState.FAILED, *, at: datetime = NOW, error: str | None = "no space") -> Attempt:
    return Attempt(
        host="social", asset=Asset.DATABASE, run="run-1", at=at, seconds=1.5, state=state, bytes=7, error=error
    )


def damage(vault: DirectoryVault, key: str, data: bytes) -> None:
    path = vault.path / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_what_was_committed_is_listed_once(vault: DirectoryVault, second: DirectoryVault, catalog: Catalog) -> None:
    both = back_up(vault, second)
    mine = back_up(vault, at=NOW + timedelta(hours=1), asset=Asset.SECRETS, fingerprint="abc")
    assert catalog.snapshots() == []
    status = catalog.refresh_vault(vault)
    catalog.refresh_vault(second)
    assert (status.name, status.error, status.snapshots, status.unreadable) == ("one", "", 2, 0)
    assert status.bytes == sum(found.bytes for found in vault.list("hosts/"))
    newest, older = catalog.snapshots()
    assert (newest.id, newest.vaults, newest.fingerprint) == (mine.id, ("one",), "abc")
    assert (older.id, older.vaults, older.fingerprint) == (both.id, ("one", "two"), None)
    assert (older.at, older.bytes, older.run) == (NOW, both.bytes, "run-1")
    assert catalog.manifest(both.id) == both
    assert catalog.newest_manifest("social", Asset.DATABASE) == both
    assert catalog.newest_manifest("social", Asset.MEDIA) is None
    assert [each.id for each in catalog.snapshots("social", Asset.SECRETS)] == [mine.id]
    assert catalog.snapshots("other") == []
    with pytest.raises(NotFound):
        catalog.manifest("social/database/20200101T000000Z-00000000")


def test_only_what_is_new_is_read(vault: DirectoryVault, catalog: Catalog) -> None:
    back_up(vault)
    catalog.refresh_vault(vault)

    reads: list[str] = []

    class Counting(FaultyVault):
        def read(self, key: str) -> BinaryIO:
            reads.append(key)
            return self.inner.read(key)

    counting = Counting(vault, "")
    catalog.refresh_vault(counting)
    assert reads == [KEY]
    made = back_up(vault, at=NOW + timedelta(hours=1))
    reads.clear()
    catalog.refresh_vault(counting)
    assert reads == [KEY, snapshot_prefix(made.id) + "manifest.json"]


def test_what_was_pruned_vanishes(vault: DirectoryVault, second: DirectoryVault, catalog: Catalog) -> None:
    made = back_up(vault, second)
    record_check([vault], made.id, "verified", NOW, True, {})
    for each in (vault, second):
        catalog.refresh_vault(each)
    for found in list(vault.list(snapshot_prefix(made.id))):
        vault.delete(found.key)
    assert catalog.refresh_vault(vault).snapshots == 0
    (left,) = catalog.snapshots()
    assert left.vaults == ("two",)
    assert left.verified_at is None


def test_torn_snapshots_are_not_listed(vault: DirectoryVault, catalog: Catalog) -> None:
    snapshot = begin_snapshot([vault], host="social", asset=Asset.MEDIA, run="r", recipients=[RECIPIENT])
    snapshot.write("files.ndjson", io.BytesIO(b"{}"), compress=True)
    status = catalog.refresh_vault(vault)
    assert (status.snapshots, status.unreadable) == (0, 0)
    assert catalog.snapshots() == []


def test_checks_are_seen_beside_their_snapshot(vault: DirectoryVault, second: DirectoryVault, catalog: Catalog) -> None:
    made = back_up(vault, second, asset=Asset.SECRETS)
    later = [NOW + timedelta(hours=hour) for hour in range(6)]
    assert record_check([vault, second], made.id, "unchanged", later[1], True, {}) == {}
    record_check([vault], made.id, "unchanged", later[2], True, {})
    record_check([second], made.id, "verified", later[3], True, {"objects": 1})
    record_check([vault], made.id, "drilled", later[4], True, {})
    record_check([vault], made.id, "drilled", later[5], False, {})
    for each in (vault, second):
        catalog.refresh_vault(each)
    (seen,) = catalog.snapshots()
    assert (seen.checked_at, seen.verified_at, seen.drilled_at) == (later[2], later[3], later[4])
    assert not seen.verify_failed
    assert (seen.drill_failed, seen.drill_seconds, seen.opens_dump) == (True, None, None)
    assert catalog.proofs() == {("social", Asset.SECRETS): Proof(proven_at=later[4], failed_at=later[5])}


def test_drills_are_told_with_their_times(vault: DirectoryVault, second: DirectoryVault, catalog: Catalog) -> None:
    older, newer = back_up(vault), back_up(vault, second, at=NOW + timedelta(days=1))
    times = [NOW + timedelta(days=2, hours=hour) for hour in range(3)]
    record_check([vault], older.id, "drilled", times[0], True, {"restore_seconds": 190.5, "pair": "opens"})
    record_check([vault, second], newer.id, "drilled", times[1], False, {"pair": "locked", "said": "\x1b[31mno"})
    for each in (vault, second):
        catalog.refresh_vault(each)
    locked, proven = catalog.snapshots()
    assert (proven.drilled_at, proven.drill_seconds, proven.opens_dump) == (times[0], 190.5, True)
    assert (locked.drilled_at, locked.drill_failed, locked.opens_dump) == (None, True, False)
    proof = Proof(proven_at=times[0], seconds=190.5, failed_at=times[1])
    assert catalog.proofs() == {("social", Asset.DATABASE): proof}
    first, second_ = catalog.checks(newer.id)
    assert (first.vault, second_.vault) == ("one", "two")
    assert first.details == {"pair": "locked", "said": "\N{REPLACEMENT CHARACTER}[31mno"}
    record_check([second], newer.id, "drilled", times[2], True, {"restore_seconds": 7})
    catalog.refresh_vault(second)
    again = catalog.snapshots()[0]
    assert (again.drill_failed, again.drill_seconds, again.opens_dump) == (False, 7.0, False), "that was not looked at"
    assert catalog.proofs()[("social", Asset.DATABASE)].failed_at is None


def test_a_sample_does_not_clear_a_damaged_copy(vault: DirectoryVault, catalog: Catalog) -> None:
    made = back_up(vault)
    record_check([vault], made.id, "verified", NOW, False, {"whole": True})
    record_check([vault], made.id, "verified", NOW + timedelta(hours=1), True, {"whole": False, "sample": 3})
    catalog.refresh_vault(vault)
    (seen,) = catalog.snapshots()
    assert (seen.verify_failed, seen.damaged) == (True, ("one",))
    record_check([vault], made.id, "verified", NOW + timedelta(hours=2), True, {"whole": True})
    catalog.refresh_vault(vault)
    (seen,) = catalog.snapshots()
    assert (seen.verify_failed, seen.damaged) == (False, ())


@pytest.mark.parametrize(
    "details", [None, [], {"restore_seconds": -1, "pair": []}, {"restore_seconds": "1", "deep": [[[[[[[[1]]]]]]]]}]
)
def test_odd_details_do_no_harm(vault: DirectoryVault, catalog: Catalog, details: object) -> None:
    made = back_up(vault)
    document = {"format": 1, "snapshot": made.id, "kind": "drilled", "at": "2026-11-23T00:00:00Z", "ok": True}
    key = snapshot_prefix(made.id) + "checks/20261123T000000Z-00000000.json"
    damage(vault, key, json.dumps(document | {"details": details}).encode())
    assert catalog.refresh_vault(vault).unreadable == 0
    (seen,) = catalog.snapshots()
    assert (seen.drill_failed, seen.drill_seconds, seen.opens_dump) == (False, None, None)


def test_a_damaged_copy_is_no_copy(vault: DirectoryVault, second: DirectoryVault, catalog: Catalog) -> None:
    older = back_up(vault, at=NOW - timedelta(days=1))
    made = back_up(vault, second)
    record_check([vault], made.id, "verified", NOW, True, {})
    record_check([vault], made.id, "verified", NOW + timedelta(hours=1), False, {"why": "sha256"})
    for each in (vault, second):
        catalog.refresh_vault(each)
    seen = catalog.snapshots()[0]
    assert (seen.vaults, seen.verify_failed, seen.verified_at) == (("two",), False, None)
    assert seen.damaged == ("one",)
    record_check([second], made.id, "verified", NOW + timedelta(hours=2), False, {})
    catalog.refresh_vault(second)
    seen = catalog.snapshots()[0]
    assert (seen.vaults, seen.verify_failed) == (("one", "two"), True)
    assert catalog.newest_manifest("social", Asset.DATABASE) == older
    record_check([second], made.id, "verified", NOW + timedelta(hours=3), True, {})
    catalog.refresh_vault(second)
    seen = catalog.snapshots()[0]
    assert (seen.vaults, seen.verify_failed) == (("two",), False)


def test_a_check_is_only_written_where_its_snapshot_is(vault: DirectoryVault, second: DirectoryVault) -> None:
    made = back_up(vault)
    assert record_check([vault, second], made.id, "unchanged", NOW, True, {}) == {}
    assert list(second.list("hosts/")) == []


def test_attempts_are_the_same_for_everybody(
    vault: DirectoryVault, second: DirectoryVault, catalog: Catalog, tmp_path: Path
) -> None:
    failed = attempt(error="no \x1b[31m space\nleft")
    done = attempt(JobState.DONE, at=NOW + timedelta(hours=1), error=None)
    for tried in (failed, done):
        assert record_attempt([vault, second], tried) == {}
    for one in (catalog, Catalog(tmp_path / "colleague")):
        for each in (vault, second):
            one.refresh_vault(each)
        newest, oldest = one.attempts()
        assert newest == done
        assert oldest.error == "no �[31m space left"
        assert one.attempts(limit=1) == [done]
        assert one.attempts("social", Asset.MEDIA) == []
        assert one.recent_attempts(5) == {
            ("social", Asset.DATABASE): [(done.at, True, ""), (NOW, False, "no �[31m space left")]
        }


def test_cancelled_attempts_are_no_failures(vault: DirectoryVault, catalog: Catalog) -> None:
    for state in (JobState.CANCELLED, JobState.SKIPPED):
        record_attempt([vault], attempt(state))
    catalog.refresh_vault(vault)
    assert len(catalog.attempts()) == 2
    assert catalog.recent_attempts(5) == {}


def test_a_vault_that_takes_no_record_is_named(vault: DirectoryVault, second: DirectoryVault) -> None:
    made = back_up(vault, second)
    assert set(record_attempt([FaultyVault(vault, "put_new"), second], attempt())) == {"one"}
    assert len(list(second.list("hosts/social/runs/"))) == 1
    for call in ("read", "put_new"):
        missing = record_check([FaultyVault(vault, call), second], made.id, "unchanged", NOW, True, {})
        assert set(missing) == {"one"}


def test_a_vault_that_is_away_keeps_what_was_known(vault: DirectoryVault, catalog: Catalog) -> None:
    made = back_up(vault)
    read_at = catalog.refresh_vault(vault).read_at
    back_up(vault, at=NOW + timedelta(hours=1))
    for call in ("read", "list"):
        status = catalog.refresh_vault(FaultyVault(vault, call, for_good=True))
        assert "failed before" in status.error
        assert status.read_at == read_at
        assert [each.id for each in catalog.snapshots()] == [made.id]
    status = catalog.refresh_vault(vault)
    assert (status.error, status.snapshots) == ("", 2)


def test_an_unmounted_vault_is_not_an_empty_one(vault: DirectoryVault, catalog: Catalog, tmp_path: Path) -> None:
    made = back_up(vault)
    catalog.refresh_vault(vault)
    vault.path.rename(tmp_path / "elsewhere")
    for mount_point in (False, True):
        if mount_point:
            vault.path.mkdir()
        status = catalog.refresh_vault(vault)
        assert "any more" in status.error
        assert [each.id for each in catalog.snapshots()] == [made.id]
    prepare(vault, [RECIPIENT])
    assert catalog.refresh_vault(vault).error == "", "another vault was begun there"
    assert catalog.snapshots() == []


def test_a_vault_that_went_away_half_way(vault: DirectoryVault, catalog: Catalog) -> None:
    for hour in range(30):
        back_up(vault, at=NOW + timedelta(hours=hour))
    status = catalog.refresh_vault(FaultyVault(vault, "read", 5, for_good=True))
    assert "failed" in status.error or "gone" in status.error
    assert catalog.refresh_vault(vault).snapshots == 30


def test_one_file_that_cannot_be_read_hides_no_other(vault: DirectoryVault, catalog: Catalog) -> None:
    for hour in range(3):
        back_up(vault, at=NOW + timedelta(hours=hour))
    status = catalog.refresh_vault(FaultyVault(vault, "read", 3))
    assert (status.error, status.snapshots, status.unreadable) == ("", 2, 1)
    assert "cannot be used" in status.warning
    status = catalog.refresh_vault(vault)
    assert (status.snapshots, status.unreadable, status.warning) == (3, 0, "")


def test_a_newer_vault_is_said(vault: DirectoryVault, catalog: Catalog) -> None:
    back_up(vault)
    catalog.refresh_vault(vault)
    (vault.path / KEY).write_text('{"format": 2}')
    status = catalog.refresh_vault(vault)
    assert "newer Mastovault" in status.error
    assert status.snapshots == 1


def _manifest(vault: DirectoryVault, change: Callable[[dict[str, object]], None]) -> bytes:
    (found,) = [each for each in vault.list("hosts/") if each.key.endswith("manifest.json")]
    document = json.loads((vault.path / found.key).read_text())
    change(document)
    return json.dumps(document).encode()


def test_hostile_records_are_counted_and_not_listed(vault: DirectoryVault, catalog: Catalog) -> None:
    good = back_up(vault)
    other = "hosts/social/database/20261122T140211Z-00000000/manifest.json"
    damage(vault, other, _manifest(vault, lambda document: None))  # a copy under another id
    damage(vault, "hosts/social/media/20261122T140211Z-00000001/manifest.json", b"{" * 1000)
    damage(vault, "hosts/social/redis/20261122T140211Z-00000002/manifest.json", b'{"format": 99}')
    damage(vault, "hosts/social/redis/20261122T140211Z-00000003/manifest.json", b" " * (16 * 1024 * 1024 + 1))
    damage(vault, snapshot_prefix(good.id) + "checks/20261122T140211Z-00000000.json", b'{"format": 1}')
    damage(vault, record_key("social", NOW), b'{"format": 1, "host": "other"}')
    damage(vault, "hosts/social/database/nonsense/manifest.json", b"{}")  # no snapshot's place: passed over
    damage(vault, "hosts/social/everything/20261122T140211Z-00000000/manifest.json", b"{}")
    status = catalog.refresh_vault(vault)
    assert (status.error, status.snapshots, status.unreadable) == ("", 1, 6)
    assert "6 of its records cannot be used and are not listed" in status.warning
    assert [each.id for each in catalog.snapshots()] == [good.id]
    again = catalog.refresh_vault(vault)
    assert again.unreadable == 6
    damage(vault, other, b"{}")
    (vault.path / other).unlink()
    assert catalog.refresh_vault(vault).unreadable == 5


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": 10**40},
        {"bytes": "1"},
        {"seconds": "x"},
        {"seconds": None},
        {"state": "fine"},
        {"asset": "x"},
        {"at": "yesterday"},
        {"at": "2026-11-22T00:00:00"},
        {"at": 5},
        {"run": 5},
        {"error": []},
        {"snapshot": {}},
        {"format": 2},
    ],
)
def test_run_records_of_any_shape(vault: DirectoryVault, catalog: Catalog, change: dict[str, object]) -> None:
    record_attempt([vault], attempt())
    (found,) = vault.list("hosts/")
    document = json.loads((vault.path / found.key).read_text())
    damage(vault, found.key, json.dumps(document | change).encode())
    status = catalog.refresh_vault(vault)
    assert (status.error, status.unreadable) == ("", 1)
    assert catalog.attempts() == []


@pytest.mark.parametrize("seconds", ["1e400", "-5", "NaN"])
def test_numbers_that_are_none(vault: DirectoryVault, catalog: Catalog, seconds: str) -> None:
    record_attempt([vault], attempt())
    (found,) = vault.list("hosts/")
    text = (vault.path / found.key).read_text().replace("1.5", seconds)
    damage(vault, found.key, text.encode())
    assert catalog.refresh_vault(vault).error == ""
    assert all(0 <= each.seconds <= 1e9 for each in catalog.attempts())


def test_another_vault_under_the_same_name(vault: DirectoryVault, catalog: Catalog, tmp_path: Path) -> None:
    back_up(vault)
    catalog.refresh_vault(vault)
    elsewhere = DirectoryVault("one", tmp_path / "elsewhere")
    prepare(elsewhere, [RECIPIENT])
    assert catalog.refresh_vault(elsewhere).snapshots == 0
    assert catalog.snapshots() == []
    catalog.note_vault("one", "s3://bucket", offsite=True, error="not supported")
    (status,) = catalog.vaults()
    assert (status.where, status.error, status.read_at) == ("s3://bucket", "not supported", None)


def test_vaults_that_are_not_configured_any_more(
    vault: DirectoryVault, second: DirectoryVault, catalog: Catalog
) -> None:
    back_up(vault, second)
    for each in (vault, second):
        catalog.refresh_vault(each)
    catalog.keep_vaults({"two", "three"})
    assert [status.name for status in catalog.vaults()] == ["two"]
    assert catalog.snapshots()[0].vaults == ("two",)


def test_the_newest_of_each_asset(vault: DirectoryVault, catalog: Catalog) -> None:
    made = [back_up(vault, host=host, at=NOW + timedelta(hours=hour)) for host in ("a", "b") for hour in range(4)]
    catalog.refresh_vault(vault)
    recent = catalog.recent(2)
    assert [each.id for each in recent["a", Asset.DATABASE]] == [made[3].id, made[2].id]
    assert [each.id for each in recent["b", Asset.DATABASE]] == [made[7].id, made[6].id]


SEEN = HostObservation(
    host="social",
    state=HostState.ONLINE,
    asked_at=NOW,
    since=NOW - timedelta(days=1),
    message="\x1b]0;title\x07hello",
    version="4.6.3",
    machine_id="abc",
    assets=(
        AssetObservation(asset=Asset.MEDIA, present=True, provider="Wasabi", warnings=("a\u202eb",)),
        AssetObservation(asset=Asset.DATABASE, present=True, bytes=5, healthy_standby=True),
    ),
)


def test_observations_are_kept_clean(catalog: Catalog) -> None:
    catalog.save_observation(SEEN)
    (seen,) = catalog.observations()
    assert seen.message == "�]0;title�hello"
    assert seen.assets[0].warnings == ("a�b",)
    assert (seen.asked_at, seen.since, seen.state, seen.assets[1]) == (NOW, SEEN.since, SEEN.state, SEEN.assets[1])


def test_an_earlier_look_does_not_replace_a_later_one(catalog: Catalog) -> None:
    catalog.save_observation(SEEN)
    before = HostObservation(host="social", state=HostState.OFFLINE, asked_at=NOW - timedelta(hours=1), since=NOW)
    catalog.save_observation(before)
    assert catalog.observations()[0].state is HostState.ONLINE
