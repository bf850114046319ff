"""Whoever can write to a vault can put, change and remove what is in it; none of it is taken for a good backup."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backends.errors import AssetFailed, ConfigurationError
from backends.model import Asset, AssetObservation, HostObservation, HostState, JobResult, JobState, Level, Trust
from backends.operations.choose import points, resolve, sources
from backends.operations.drill import drill_host
from backends.operations.extract import extract, plan_extract
from backends.operations.fleet import load_fleet
from backends.operations.trust_words import require_trusted, trust_note
from backends.operations.verify import verify_host
from tests.servers.backup import WatchedJob
from tests.trust_world import PUBLIC, TAMPERED, TwoVaults
from tui.cli.list import command as list_command
from tui.cli.verify import chosen

NOW = datetime(2026, 11, 2, 15, tzinfo=UTC)
every = pytest.mark.parametrize("how", TAMPERED)
each_word = pytest.mark.parametrize("how", ["stripped and changed", "signed by another key", "changed, digest anew"])


@pytest.fixture
def two(tmp_path: Path) -> TwoVaults:
    return TwoVaults(tmp_path)


def verify(two: TwoVaults, snapshot: str) -> JobResult:
    asset = Asset(snapshot.split("/")[1])
    [result] = verify_host(two.config, two.paths, "social", {asset: snapshot}, {asset: WatchedJob()}, "run-1")
    return result


def listed(two: TwoVaults) -> tuple[str, dict[str, dict[str, Any]]]:
    """What `mastovault list` shows, and its JSON by id."""
    runner = CliRunner()
    text = runner.invoke(list_command, ["social"], obj=two.paths, catch_exceptions=False).output
    document = runner.invoke(list_command, ["social", "--json"], obj=two.paths, catch_exceptions=False).output
    return text, {each["id"]: each for each in json.loads(document)["snapshots"]}


def line_of(text: str, snapshot: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(snapshot))


def test_what_was_signed_is_trusted(two: TwoVaults) -> None:
    for asset in Asset:
        snapshot = two.signed(asset)
        info = two.info(snapshot)
        assert (two.catalog.trust(info), info.signer, info.altered) == (Trust.TRUSTED, PUBLIC, ())
        assert resolve(two.config, two.catalog, f"social/{asset}")[asset].id == snapshot
        assert trust_note(info, two.config) == "signed by backup-host"
        result = verify(two, snapshot)
        assert (result.state, result.vaults) == (JobState.DONE, ("local", "offsite"))
    text, document = listed(two)
    old = [snapshot for snapshot, each in document.items() if each["trust"] == "unsigned"]
    assert len(old) == 2, "those of the night before there was a signing key"
    assert all("NOT SIGNED" in line_of(text, snapshot) for snapshot in old)
    assert "SIGNED" not in line_of(text, two.signed(Asset.DATABASE))


def test_without_signers_nothing_is_judged_but_what_is_changed(tmp_path: Path) -> None:
    two = TwoVaults(tmp_path, trusting=False)
    assert {each["trust"] for each in listed(two)[1].values()} == {"unchecked"}
    assert verify(two, two.signed(Asset.REDIS)).state is JobState.DONE
    two.tamper("stripped", two.signed(Asset.DATABASE))
    assert trust_note(two.info(two.signed(Asset.DATABASE)), two.config) == "not checked"
    two.tamper("changed", two.signed(Asset.REDIS))
    assert listed(two)[1][two.signed(Asset.REDIS)]["trust"] == "changed"
    with pytest.raises(AssetFailed, match="was changed after it was written"):
        require_trusted(
            sources(two.config, two.catalog, {Asset.REDIS: two.signed(Asset.REDIS)}).values(), {}, ("unsigned",)
        )


@every
def test_a_tampered_manifest_is_listed_as_such_and_needs_its_word(two: TwoVaults, tmp_path: Path, how: str) -> None:
    snapshot, word = two.signed(Asset.DATABASE), TAMPERED[how]
    two.tamper(how, snapshot)
    text, document = listed(two)
    assert document[snapshot]["trust"] == word
    assert {"unsigned": "NOT SIGNED", "foreign": "NOT TRUSTED", "changed": "CHANGED"}[word] in line_of(text, snapshot)
    assert resolve(two.config, two.catalog, snapshot)[Asset.DATABASE].id == snapshot, "by its id it is found"
    found = {Asset.DATABASE: snapshot}

    directory = tmp_path / "files"
    plan = plan_extract(two.config, two.paths, found, directory)
    assert [(each.accept, each.level) for each in plan.blocked] == [(word, "block")]
    for wrong in sorted({"unsigned", "foreign", "changed"} - {word}):
        jobs = {Asset.DATABASE: WatchedJob()}
        [refused] = extract(two.config, two.paths, found, directory, jobs, "run-1", accept=[wrong])
        assert refused.state is JobState.FAILED
        assert f"type social/{word}" in (refused.next_step or "")
        assert not directory.exists()
    assert not plan_extract(two.config, two.paths, found, directory, accept=[word]).blocked
    [written] = extract(two.config, two.paths, found, directory, {Asset.DATABASE: WatchedJob()}, "run-1", accept=[word])
    assert written.state is JobState.DONE, "the bytes are good, and the word was typed"

    [drilled] = drill_host(two.config, two.paths, "social", found, {Asset.DATABASE: WatchedJob()}, "run-1")
    assert (drilled.state, drilled.exit_code) == (JobState.FAILED, 1)
    assert f"type social/{word}" in (drilled.next_step or "")


@each_word
def test_a_verification_fails_for_what_is_not_trusted(two: TwoVaults, how: str) -> None:
    snapshot, word = two.signed(Asset.REDIS), TAMPERED[how]
    two.tamper(how, snapshot)
    result = verify(two, snapshot)
    assert (result.state, result.exit_code, result.vaults) == (JobState.FAILED, 1, ())
    said = {"unsigned": "is not signed", "foreign": "does not trust", "changed": "was changed after it was written"}
    assert said[word] in (result.error or "")
    assert ("its bytes are whole" in (result.error or "")) is (word != "changed")
    info = two.info(snapshot)
    assert info.verify_failed is (word == "changed"), "of the others every byte is what its manifest says"


@each_word
def test_a_copy_that_is_trusted_less_is_left_aside(two: TwoVaults, how: str) -> None:
    snapshot = two.signed(Asset.DATABASE)
    before = two.info(snapshot)
    two.tamper(how, snapshot, ["local"])
    info = two.info(snapshot)
    assert (info.vaults, info.altered, info.damaged) == (("offsite",), ("local",), ())
    assert (info.run, info.signer) == (before.run, PUBLIC)
    assert two.catalog.manifest(snapshot).run == before.run
    assert "another manifest in local" in line_of(listed(two)[0], snapshot)
    assert listed(two)[1][snapshot]["altered"] == ["local"]
    [source] = sources(two.config, two.catalog, {Asset.DATABASE: snapshot}).values()
    assert ([vault.name for vault in source.vaults], source.trust) == (["offsite"], Trust.TRUSTED)
    result = verify(two, snapshot)
    assert result.state is JobState.FAILED
    assert "the copy in local" in (result.error or "")
    assert "the copy in offsite is good" in (result.error or "")
    assert two.info(snapshot).vaults == ("offsite",)
    assert not two.info(snapshot).verify_failed


@each_word
def test_what_is_read_counts_not_what_is_cached(two: TwoVaults, how: str) -> None:
    """A vault that changed since the last look, with nothing in a listing to tell."""
    snapshot, catalog = two.signed(Asset.SECRETS), two.catalog
    two.tamper(how, snapshot, ["local"])
    log: list[str] = []
    [source] = sources(two.config, catalog, {Asset.SECRETS: snapshot}, log=log.append).values()
    assert (source.trust, [vault.name for vault in source.vaults]) == (Trust.TRUSTED, ["offsite"])
    assert log == [f"note: local holds another manifest of {snapshot}; it is left aside"]
    two.tamper(how, snapshot, ["offsite"])
    [source] = sources(two.config, catalog, {Asset.SECRETS: snapshot}).values()
    assert source.trust == TAMPERED[how]


def test_a_mended_manifest_is_read_again(two: TwoVaults) -> None:
    """Also when it is as long as the bad one was."""
    snapshot = two.signed(Asset.REDIS)
    path = two.manifest_file(snapshot, "local")
    whole = path.read_bytes()
    two.tamper("changed", snapshot, ["local"])
    assert len(path.read_bytes()) == len(whole)
    assert two.info(snapshot).altered == ("local",)
    path.write_bytes(whole)
    assert two.info(snapshot).altered == ()
    path.write_bytes(b"x" * len(whole))
    assert two.catalog.vaults()[0].unreadable == 1
    path.write_bytes(whole)
    assert two.catalog.vaults()[0].unreadable == 0


def test_a_manifest_in_another_place_is_none(two: TwoVaults) -> None:
    """Moved to another id, to another host, to another asset: its signature is good, and it is not of that place."""
    source = two.vaults["local"].path / "hosts" / two.signed(Asset.SECRETS)
    for place in (
        "social/secrets/20261103T030000Z-0a0a0a0a",
        f"art/secrets/{source.name}",
        f"social/redis/{source.name}",
    ):
        shutil.copytree(source, two.vaults["local"].path / "hosts" / place)
    before = {each.id for each in two.catalog.snapshots()}
    assert len(before) == 6
    [status, _] = two.catalog.vaults()
    assert status.unreadable == 3 + 3, "the manifests, and the checks that came along"
    assert "contradicts itself" in status.warning or "cannot be" in status.warning


Harm = Callable[[list[Path], TwoVaults], None]


def _flip(files: list[Path], _two: TwoVaults) -> None:
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 1
    files[0].write_bytes(bytes(data))


def _truncate(files: list[Path], _two: TwoVaults) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-1])


def _delete(files: list[Path], _two: TwoVaults) -> None:
    files[0].unlink()


def _swap(files: list[Path], two: TwoVaults) -> None:
    """With an object that was encrypted to the same recipient: of another snapshot, or another pack."""
    other = two.object_files(two.signed(Asset.REDIS))[0]
    files[0].write_bytes((files[-1] if files[0] != files[-1] else other).read_bytes())


@pytest.mark.parametrize("harm", [_flip, _truncate, _delete, _swap])
@pytest.mark.parametrize("asset", [Asset.DATABASE, Asset.SECRETS, Asset.MEDIA])
def test_objects_are_bound_to_the_manifest(two: TwoVaults, asset: Asset, harm: Harm, tmp_path: Path) -> None:
    snapshot = two.signed(asset)
    for vault in ("local", "offsite"):
        harm(two.object_files(snapshot, vault), two)
    result = verify(two, snapshot)
    assert (result.state, result.vaults) == (JobState.FAILED, ())
    text, document = listed(two)
    assert document[snapshot]["verify_failed"] is True
    assert re.search(r"failed verification|DAMAGED: .* (is missing|bytes instead of)", line_of(text, snapshot))
    [written] = extract(two.config, two.paths, {asset: snapshot}, tmp_path / "out", {asset: WatchedJob()}, "run-1")
    assert written.state is JobState.FAILED


@pytest.mark.parametrize("by", ["nobody", "another key"])
def test_a_planted_snapshot_is_never_the_newest(two: TwoVaults, by: str) -> None:
    sign = two.attacker if by == "another key" else None
    real = two.signed(Asset.SECRETS)
    genuine = two.info(real).run
    made = [
        two.plant(Asset.SECRETS, NOW - timedelta(hours=hours), run=run, sign=sign)
        for hours, run in ((2, "planted"), (1, genuine), *((hours, f"flood-{hours}") for hours in range(3, 11)))
    ]
    catalog, config = two.catalog, two.config
    assert {each.id for each in catalog.snapshots("social", Asset.SECRETS)} == {real, *(each.id for each in made)}
    for text in ("social/secrets", "social/secrets/latest", "social", genuine):
        assert resolve(config, catalog, text)[Asset.SECRETS].id == real, text
    assert catalog.newest_manifest("social", Asset.SECRETS) == two.catalog.manifest(real)
    assert chosen(config, catalog, "social")["social"][Asset.SECRETS] == real
    trusted = [point for point in points(catalog, "social") if point.trusted]
    assert [set(point.own) for point in trusted] == [set(Asset)]
    assert all(each.id == two.signed(asset) for asset, each in trusted[0].snapshots.items())
    [mine] = [point for point in points(catalog, "social") if point.run == "planted"]
    assert not mine.trusted
    word = "foreign" if sign else "unsigned"
    found = resolve(config, catalog, made[0].id)
    assert found[Asset.SECRETS].id == made[0].id
    with pytest.raises(AssetFailed, match=made[0].id) as caught:
        require_trusted(sources(config, catalog, {Asset.SECRETS: made[0].id}).values(), config.signers, ())
    assert f"type social/{word}" in caught.value.next_step


def test_where_nothing_is_trusted_the_newest_is_named_and_blocked(two: TwoVaults) -> None:
    two.tamper("stripped", two.signed(Asset.MEDIA))
    found = resolve(two.config, two.catalog, "social/media")
    assert found[Asset.MEDIA].id == two.signed(Asset.MEDIA)
    whole = resolve(two.config, two.catalog, "social")
    assert whole[Asset.DATABASE].id == two.signed(Asset.DATABASE)
    assert {asset for asset, info in whole.items() if not two.catalog.trust(info).good} == {Asset.MEDIA}


def test_the_fleet_ranks_what_is_trusted(two: TwoVaults) -> None:
    def row(asset: Asset) -> Any:
        catalog = two.catalog
        seen = HostObservation(
            host="social",
            state=HostState.ONLINE,
            asked_at=NOW,
            since=NOW,
            assets=tuple(AssetObservation(asset=each, present=True) for each in Asset),
        )
        catalog.save_observation(seen)
        return next(each for each in load_fleet(two.config, catalog, NOW).assets if each.asset is asset)

    before = row(Asset.REDIS)
    for hours in range(1, 10):
        two.plant(Asset.REDIS, NOW - timedelta(hours=hours))
    after = row(Asset.REDIS)
    assert after.newest == before.newest
    assert after.newest.id == two.signed(Asset.REDIS)
    assert after.state == "newest copy NOT TRUSTED"
    assert "the newest snapshot is not signed: nobody can tell who wrote it" in [each.text for each in after.reasons]
    assert after.score > before.score

    two.tamper("changed", two.signed(Asset.DATABASE), ["offsite"])
    altered = row(Asset.DATABASE)
    assert altered.newest.vaults == ("local",)
    assert "another manifest of the newest snapshot is in offsite" in [each.text for each in altered.reasons]
    two.tamper("stripped", two.signed(Asset.SECRETS))
    none = row(Asset.SECRETS)
    assert (none.newest, none.level, none.state) == (None, Level.CRIT, "no TRUSTED snapshot")
    assert "no snapshot of it is trusted" in [each.text for each in none.reasons]


def test_a_word_for_another_host_accepts_nothing(two: TwoVaults) -> None:
    from tui.cli.accept import accepted

    assert accepted("social", ["social/foreign", "social/unsigned"]) == ["foreign", "unsigned"]
    with pytest.raises(ConfigurationError, match="accepts nothing on social"):
        accepted("social", ["art/foreign"])
