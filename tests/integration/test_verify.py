"""Verifying: every vault's copy is judged on its own, and no changed byte is ever called good."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.archive.keys import new_identity, write_identity
from backends.archive.writer import begin_snapshot
from backends.config.schema import Config
from backends.errors import KeyUnavailable, NotFound, VaultError
from backends.lab.lab import Lab
from backends.model import Asset, JobState, Level, utc_now
from backends.operations import proof_copy, proof_tools
from backends.operations.choose import open_identities, resolve
from backends.operations.fleet import load_fleet
from backends.operations.proof_copy import CopyReport, check_copy
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.proof_world import Proofs, copy_of, flip, truncate
from tests.restore_world import Restores
from tests.runs_world import World
from tests.servers.backup import WatchedJob


@pytest.fixture(scope="module")
def backed_up(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = Restores(World(lab, tmp_path_factory.mktemp("verify")))
    made.back_up()
    return made.world


@pytest.fixture
def proofs(backed_up: World, lab: Lab, tmp_path: Path) -> Proofs:
    return copy_of(backed_up, lab, tmp_path)


@pytest.fixture(scope="module")
def shared(backed_up: World, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Proofs:
    """For tests that only look, and mend what they damage."""
    return copy_of(backed_up, lab, tmp_path_factory.mktemp("shared"))


def longer(data: bytes) -> bytes:
    return data + b"x"


def check(proofs: Proofs, asset: Asset, vault: str = "local", **more: Any) -> CopyReport:
    identities = open_identities(proofs.config)
    return check_copy(proofs.vault(vault), proofs.snapshots[asset], identities, WatchedJob(), **more)


def test_whole_copies_are_good_and_it_is_recorded(proofs: Proofs) -> None:
    results = proofs.verify()
    for asset, result in results.items():
        assert (result.state, result.in_part, result.exit_code) == (JobState.DONE, False, 0), result
        assert result.vaults == ("local", "offsite")
        assert "the copies in local and offsite are good" in result.detail
        first, second = proofs.checks(asset)
        assert {first.vault, second.vault} == {"local", "offsite"}
        assert first.ok
        assert first.whole
        assert first.details["run"] == "run-1"
        assert first.details["objects"] == first.details["of"]
        assert first.details["problems"] == []
        assert proofs.info(asset).verified_at is not None
    assert proofs.checks(Asset.MEDIA)[0].details["files"] > 100
    assert "pg_restore" in proofs.checks(Asset.DATABASE)[0].details["tools"][0]
    assert "redis-check-rdb" in results[Asset.REDIS].detail


@pytest.mark.parametrize("asset", Asset)
def test_no_changed_byte_in_any_object_is_called_good(shared: Proofs, asset: Asset) -> None:
    dice = random.Random(7)
    for name, path in shared.objects(asset).items():
        whole = path.read_bytes()
        places = [0.0, 0.999999, dice.random(), dice.random()]
        harms = [*map(flip, places), truncate(1), truncate(len(whole) // 2), truncate(len(whole)), longer]
        try:
            for number, harm in enumerate(harms):
                path.write_bytes(harm(whole))
                report = check(shared, asset)
                assert not report.good, (name, number)
                assert any(name.partition(".")[0] in text for text in report.problems), (name, report.problems)
            path.unlink()
            if name == "manifest.json":
                with pytest.raises(NotFound):
                    check(shared, asset)
            else:
                assert "is not in" in check(shared, asset).problems[0]
        finally:
            path.write_bytes(whole)
    assert check(shared, asset).good


@pytest.mark.parametrize("asset", [Asset.DATABASE, Asset.SECRETS])
def test_no_changed_byte_in_a_manifest_is_called_good(shared: Proofs, asset: Asset) -> None:
    path = shared.objects(asset)["manifest.json"]
    whole = path.read_bytes()
    opened = open_identities(shared.config)
    vault = shared.vault("local")
    try:
        for at in range(0, len(whole), 5):
            for bit in (1, 32):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
                try:
                    report = check_copy(vault, shared.snapshots[asset], opened, WatchedJob())
                except VaultError:  # a format that is too new
                    continue
                assert not report.good, (at, bit, whole[max(0, at - 20) : at + 20])
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("how", ["verify", "drill"])
def test_a_prune_elsewhere_is_kept_out_meanwhile(proofs: Proofs, how: str) -> None:
    vault = proofs.vault("local")
    seen: set[str] = set()

    def readers() -> set[str]:
        return {stored.key.partition("/read/")[0] for stored in vault.list("leases/") if "/read/" in stored.key}

    proofs.job = WatchedJob(lambda _step, _done: seen.update(readers()))
    assert getattr(proofs, how)(Asset.SECRETS)[Asset.SECRETS].state is JobState.DONE
    assert seen == {"leases/social/secrets"}
    assert readers() == set()


def test_one_bad_copy_is_named_and_the_other_stays_good(proofs: Proofs) -> None:
    proofs.harm(proofs.object(Asset.DATABASE, "database.pgdump", "offsite"), flip(0.5))
    result = proofs.verify(Asset.DATABASE)[Asset.DATABASE]
    assert result.state is JobState.FAILED
    assert result.exit_code == 1
    assert result.vaults == ("local",)
    assert "the copy in offsite is damaged: database.pgdump" in (result.error or "")
    assert "the copy in local is good" in (result.error or "")
    assert "Restores use the good copy" in (result.next_step or "")
    info = proofs.info(Asset.DATABASE)
    assert (info.vaults, info.damaged, info.verify_failed) == (("local",), ("offsite",), False)
    assert resolve(proofs.config, proofs.catalog, "social/database")[Asset.DATABASE].id == info.id
    row = next(row for row in load_fleet(proofs.config, proofs.catalog, utc_now()).assets if row.newest == info)
    assert "only one copy" in "; ".join(reason.text for reason in row.reasons)


def test_when_every_copy_is_bad_the_risk_is_full(proofs: Proofs) -> None:
    for vault in ("local", "offsite"):
        proofs.harm(proofs.object(Asset.DATABASE, "globals", vault), truncate(3))
    result = proofs.verify(Asset.DATABASE)[Asset.DATABASE]
    assert "Back it up again now" in (result.next_step or "")
    assert proofs.info(Asset.DATABASE).verify_failed
    rows = load_fleet(proofs.config, proofs.catalog, utc_now()).assets
    row = next(row for row in rows if (row.host, row.asset) == ("social", Asset.DATABASE))
    assert row.score == 100
    assert row.level in {Level.CRIT, Level.UNKN}, "nobody has asked the host"
    assert row.reasons[0].text.startswith("the newest snapshot is damaged: globals.sql")


def test_a_mended_copy_counts_again_but_not_by_a_sample(proofs: Proofs) -> None:
    path = proofs.object(Asset.SECRETS, "environment", "local")
    whole = path.read_bytes()
    proofs.harm(path, flip(0.9))
    proofs.verify(Asset.SECRETS)
    assert proofs.info(Asset.SECRETS).damaged == ("local",)
    path.write_bytes(whole)
    assert proofs.verify(Asset.SECRETS, sample=1)[Asset.SECRETS].state is JobState.DONE
    assert any("a sample does not clear" in line for line in proofs.job.lines), "the whole of it is read instead"
    assert proofs.info(Asset.SECRETS).damaged == ()


def _other_identity(config: Config, place: Path) -> Config:
    identity, _ = new_identity()
    write_identity(place / "other.age", identity, None)
    encryption = config.encryption.model_copy(update={"identity": place / "other.age"})
    return config.model_copy(update={"encryption": encryption})


def test_a_wrong_identity_says_nothing_of_the_copies(proofs: Proofs, tmp_path: Path) -> None:
    proofs.config = _other_identity(proofs.config, tmp_path)
    for result in proofs.verify().values():
        assert (result.state, result.exit_code) == (JobState.FAILED, KeyUnavailable.exit_code)
    assert all(proofs.checks(asset) == [] for asset in Asset)


def test_damage_is_told_from_a_wrong_identity(proofs: Proofs, tmp_path: Path) -> None:
    path = proofs.object(Asset.SECRETS, "environment")
    whole = path.read_bytes()
    said = set()
    for place in range(20, 180, 3):  # the header, where age keeps whom it is for
        proofs.harm(path, flip(place / len(whole)))
        said.update(check(proofs, Asset.SECRETS).problems)
        path.write_bytes(whole)
    assert "environment.tar.age does not have the SHA-256 of its manifest" in said


def test_without_an_identity_nothing_is_read(proofs: Proofs) -> None:
    encryption = proofs.config.encryption.model_copy(update={"identity": None})
    proofs.config = proofs.config.model_copy(update={"encryption": encryption})
    result = proofs.verify(Asset.SECRETS)[Asset.SECRETS]
    assert result.exit_code == 12
    assert "no identity is configured" in (result.error or "")


def test_without_pg_restore_it_is_done_in_part(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_tools, "pg_restores", list)
    result = proofs.verify(Asset.DATABASE)[Asset.DATABASE]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert 'pip install "mastovault[drill]"' in result.warnings[0]
    assert not proofs.checks(Asset.DATABASE)[0].whole, "it clears nothing that pg_restore had found"


def test_a_pg_restore_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [proof_tools.Program(("p",), "p", (number,), f"pg_restore {number}") for number in (18, 13, 16)]
    monkeypatch.setattr(proof_tools, "pg_restores", lambda: known)
    best = [proof_tools.fitting_pg_restore(major) for major in (13, 14, 17, 19)]
    assert [each.version[0] if each else None for each in best] == [18, 18, 18, None]


class Stored:
    """A vault with snapshots whose content was no good before it was encrypted."""

    def __init__(self, place: Path) -> None:
        identity, self.recipient = new_identity()
        write_identity(place / "identity.age", identity, None)
        self.vault = DirectoryVault("local", place / "vault")
        prepare(self.vault, [self.recipient])
        from backends.archive.keys import load_identities

        self.identities = load_identities(place / "identity.age", lambda _prompt: None)

    def check(self, asset: Asset, facts: dict[str, Any], **objects: bytes) -> CopyReport:
        writer = begin_snapshot([self.vault], host="social", asset=asset, run="r", recipients=[self.recipient])
        for name, data in objects.items():
            writer.write(name.replace("_", "."), io.BytesIO(data), compress=True)
        made = writer.commit(facts)
        return check_copy(self.vault, made.id, self.identities, WatchedJob())


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def _plain(proofs: Proofs, asset: Asset, name: str) -> bytes:
    from backends.archive.reader import open_object, read_manifest

    vault = proofs.vault("local")
    manifest = read_manifest(vault, proofs.snapshots[asset])
    entry = next(entry for entry in manifest.objects if entry.name.startswith(name))
    with open_object(vault, manifest, entry, open_identities(proofs.config)) as plain:
        return plain.read()


def shifted(data: bytes) -> bytes:
    """Three bytes are missing in the middle."""
    return data[: len(data) // 2] + data[len(data) // 2 + 3 :]


@pytest.mark.parametrize(
    "harm", [shifted, truncate(2000), lambda data: data[:5] + data[6:], lambda data: b"x" * 5000, truncate(100_000)]
)
def test_a_dump_that_was_bad_when_it_was_stored(shared: Proofs, stored: Stored, harm: Any) -> None:
    dump = _plain(shared, Asset.DATABASE, "database.pgdump")
    facts = {"dump_version": "18.1", "archive_version": "1.16.0"}
    assert stored.check(Asset.DATABASE, facts, database_pgdump=dump).good
    assert stored.check(Asset.DATABASE, facts, database_pgdump=harm(dump)).problems


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("harm", [flip(0.5), truncate(20), flip(0.0), flip(0.9999)])
def test_an_rdb_that_was_bad_when_it_was_stored(
    shared: Proofs, stored: Stored, monkeypatch: pytest.MonkeyPatch, checked: bool, harm: Any
) -> None:
    if not checked:
        monkeypatch.setattr(proof_copy, "fitting_redis", lambda _version: None)
    rdb = _plain(shared, Asset.REDIS, "dump.rdb")
    assert stored.check(Asset.REDIS, {}, dump_rdb=rdb).good
    assert not stored.check(Asset.REDIS, {}, dump_rdb=harm(rdb)).good


def test_roles_and_settings_that_were_bad_when_they_were_stored(shared: Proofs, stored: Stored) -> None:
    roles = _plain(shared, Asset.DATABASE, "globals")
    assert stored.check(Asset.DATABASE, {}, globals_sql=roles).good
    for bad in (b"", roles[:-100], roles[200:], b"\0" * 100):
        assert not stored.check(Asset.DATABASE, {}, globals_sql=bad).good
    settings = _plain(shared, Asset.SECRETS, "environment")
    files = {"files": shared.catalog.manifest(shared.snapshots[Asset.SECRETS]).facts["files"]}
    assert stored.check(Asset.SECRETS, files, environment_tar=settings).good
    for bad in (b"", b"\0" * 10240, settings[:700], b"PK" * 5000):
        assert not stored.check(Asset.SECRETS, files, environment_tar=bad).good


def test_a_cancel_in_the_middle_leaves_nothing(proofs: Proofs) -> None:
    def at(step: str, done: int) -> None:
        if step.startswith("reading local") and done > 10_000:
            proofs.job.cancel()

    proofs.job = WatchedJob(at)
    result = proofs.verify(Asset.DATABASE)[Asset.DATABASE]
    assert (result.state, result.exit_code) == (JobState.CANCELLED, 130)
    assert proofs.checks(Asset.DATABASE) == []
    assert not _children("pg_restore")


def _children(name: str) -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True) if child.name() == name]


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: DirectoryVault, key: str, data: bytes) -> None:
        raise VaultError(f"{self.where} cannot be written: Read-only file system")

    monkeypatch.setattr(DirectoryVault, "put_new", refuse)


def test_a_vault_that_takes_no_record_is_said(proofs: Proofs, read_only: None) -> None:
    result = proofs.verify(Asset.SECRETS)[Asset.SECRETS]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert "the vault local did not take the record of this" in result.warnings[0]
    assert "Read-only file system" in result.warnings[0]


def test_a_vault_that_is_away_is_no_damage(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = DirectoryVault.read

    def read(self: DirectoryVault, key: str) -> Any:
        if self.name == "offsite" and "environment" in key:
            raise VaultError("/mnt/offsite cannot be read: Stale file handle")
        return whole(self, key)

    monkeypatch.setattr(DirectoryVault, "read", read)
    result = proofs.verify(Asset.SECRETS)[Asset.SECRETS]
    assert (result.state, result.in_part, result.vaults) == (JobState.DONE, True, ("local",))
    assert "the copy in offsite could not be read" in result.warnings[0]
    assert [each.vault for each in proofs.checks(Asset.SECRETS)] == ["local"]


def test_what_was_removed_meanwhile_is_no_damage(proofs: Proofs) -> None:
    import shutil

    shutil.rmtree(proofs.objects(Asset.SECRETS)["manifest.json"].parent)
    result = proofs.verify(Asset.SECRETS)[Asset.SECRETS]
    assert (result.state, result.vaults) == (JobState.DONE, ("offsite",))
    shutil.rmtree(proofs.objects(Asset.SECRETS, "offsite")["manifest.json"].parent)
    result = proofs.verify(Asset.SECRETS)[Asset.SECRETS]
    assert "no vault holds" in (result.error or "")


@pytest.mark.parametrize("text", ["social/database/x", "../../etc", "other/secrets/20261122T140211Z-1f0a9c3e"])
def test_what_is_no_snapshot_is_refused(proofs: Proofs, text: str) -> None:
    proofs.snapshots[Asset.SECRETS] = text
    result = proofs.verify(Asset.SECRETS)[Asset.SECRETS]
    assert result.exit_code == 2
    assert "is no snapshot of social/secrets" in (result.error or "")
