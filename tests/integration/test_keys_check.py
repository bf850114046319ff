"""Trying the keys on real vaults: one object of each, and for whom the newest snapshots are."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity, write_identity
from backends.archive.keys_known import Known, parsed
from backends.archive.signing import new_signing_key
from backends.archive.writer import begin_snapshot
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import Asset, utc_now
from backends.operations.keys import check_keys
from backends.operations.keys_needed import needed_now, needed_words, to_rewrap
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare


class World:
    """Two vaults and a key."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.paths = Paths(place / "config.toml", place / "state", place / "cache")
        self.vaults = {name: DirectoryVault(name, place / name) for name in ("near", "far")}
        self.recovery_identity, self.recovery = new_identity()
        self.own = self.key("identity.age")
        for vault in self.vaults.values():
            prepare(vault, [self.own])

    def key(self, name: str) -> str:
        identity, recipient = new_identity()
        write_identity(self.place / name, identity, None)
        return recipient

    def config(self, *recipients: str, **more: Any) -> Config:
        return Config.model_validate(
            {
                "vaults": {name: {"type": "directory", "path": vault.path} for name, vault in self.vaults.items()},
                "hosts": {"social": {"address": "x"}},
                "encryption": {
                    "recipients": recipients or (self.own, self.recovery),
                    "identity": self.place / "identity.age",
                    "recovery": self.recovery,
                    **more.pop("encryption", {}),
                },
                **more,
            }
        )

    def back_up(
        self, *recipients: str, asset: Asset = Asset.SECRETS, hours: float = 0, vaults: str = "near far"
    ) -> str:
        snapshot = begin_snapshot(
            [self.vaults[name] for name in vaults.split()],
            host="social",
            asset=asset,
            run="r",
            recipients=recipients or (self.own, self.recovery),
            at=utc_now() - timedelta(hours=hours),
        )
        snapshot.write("environment.tar", io.BytesIO(b"x" * 100), compress=False)
        return snapshot.commit({}).id


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_every_vault_is_opened_and_says_by_what(world: World) -> None:
    report = check_keys(world.config(), world.paths)
    assert [vault.state for vault in report.vaults] == ["empty", "empty"]
    assert report.exit_code == 0
    snapshot = world.back_up(vaults="near")
    report = check_keys(world.config(), world.paths)
    near, far = report.vaults
    assert (near.state, near.snapshot, near.opened_by) == ("opened", snapshot, world.own)
    assert near.source == str(world.place / "identity.age")
    assert far.state == "empty"
    assert report.exit_code == 0


def test_a_vault_that_does_not_open_is_12(world: World) -> None:
    _, stranger = new_identity()
    world.back_up(vaults="near")
    snapshot = world.back_up(stranger, vaults="far")
    report = check_keys(world.config(), world.paths)
    near, far = report.vaults
    assert (near.state, far.state, far.snapshot) == ("opened", "closed", snapshot)
    assert report.exit_code == 12


def test_what_only_strangers_can_read(world: World) -> None:
    _, stranger = new_identity()
    world.back_up(stranger)
    report = check_keys(world.config(), world.paths)
    assert report.exit_code == 12
    assert {vault.state for vault in report.vaults} == {"closed"}
    assert stranger in report.vaults[0].said
    assert {each.missing for each in report.lacking} == {(world.own, world.recovery)}


def test_a_vault_that_is_away_is_3(world: World) -> None:
    world.back_up()
    check_keys(world.config(), world.paths)
    world.vaults["far"].path.rename(world.place / "unplugged")
    report = check_keys(world.config(), world.paths)
    assert [vault.state for vault in report.vaults] == ["opened", "away"]
    assert "any more" in report.vaults[1].said
    assert report.exit_code == 3


def test_a_damaged_object_is_no_wrong_key(world: World) -> None:
    snapshot = world.back_up(vaults="near")
    [stored] = (world.place / f"near/hosts/{snapshot}").glob("*.age")
    data = bytearray(stored.read_bytes())
    data[30] ^= 1
    stored.write_bytes(data)
    near = check_keys(world.config(), world.paths).vaults[0]
    assert near.state == "away"
    assert "SHA-256" in near.said


def test_recipients_that_the_newest_snapshot_lacks(world: World) -> None:
    _, colleague = new_identity()
    world.back_up(world.own, hours=1)
    snapshot = world.back_up(world.own)
    report = check_keys(world.config(world.own, world.recovery, colleague), world.paths)
    assert [(each.snapshot, each.missing) for each in report.lacking] == [(snapshot, (world.recovery, colleague))]
    assert report.exit_code == 3
    world.back_up(world.own, world.recovery, colleague)
    assert check_keys(world.config(world.own, world.recovery, colleague), world.paths).exit_code == 0


def test_the_recovery_drill(world: World) -> None:
    world.back_up()
    known = [Known(parsed(world.recovery_identity), "paper")]
    report = check_keys(world.config(), world.paths, known=known)
    assert report.exit_code == 0
    assert {(vault.state, vault.opened_by, vault.source) for vault in report.vaults} == {
        ("opened", world.recovery, "paper")
    }
    world.back_up(world.own, hours=-1)
    assert check_keys(world.config(), world.paths, known=known).exit_code == 12


def test_an_identity_that_is_nobodys(world: World) -> None:
    world.back_up()
    report = check_keys(world.config(world.recovery), world.paths)
    assert report.exit_code == 3
    assert "none of the identities belongs to a configured recipient" in report.problems[0]
    with pytest.raises(KeyUnavailable, match="is not there"):
        check_keys(world.config(encryption={"identity": world.place / "gone"}), world.paths)
    with pytest.raises(ConfigurationError, match="no age recipient"):
        check_keys(world.config("age1nonsense"), world.paths)


def test_the_signing_key_and_those_who_are_trusted(world: World) -> None:
    public = new_signing_key(world.place / "signing.pem")
    other = new_signing_key(world.place / "other.pem")

    def found(**more: Any) -> tuple[str, str]:
        report = check_keys(world.config(**more), world.paths)
        assert report.exit_code == (3 if report.problems else 0)
        return report.signer, " ".join(report.problems)

    key = {"signing_key": world.place / "signing.pem"}
    assert found() == ("", "")
    assert found(encryption=key, signers={"me": public, "you": other}) == ("me", "")
    assert "not in [signers]" in found(encryption=key, signers={"you": other})[1]
    assert "has no signing key" in found(signers={"you": other})[1]
    assert "cannot be read" in found(encryption={"signing_key": world.place / "gone"}, signers={"me": public})[1]


def test_an_old_identity_is_kept_until_nothing_needs_it(world: World) -> None:
    old = world.key("old.age")
    snapshot = world.back_up(old, world.recovery, hours=2)
    world.back_up()
    config = world.config(encryption={"old_identities": [world.place / "old.age"]})
    report = check_keys(config, world.paths)
    [needed] = report.needed
    assert (needed.recipient, needed.snapshots, needed.newest) == (old, 1, snapshot)
    assert f"1 snapshot needs it, the newest is {snapshot}" in needed_words(needed)
    assert needed_now(config, world.paths) == [needed_words(needed)]
    assert to_rewrap(config, world.paths) == {"social": (Asset.SECRETS,)}
    for vault in world.vaults.values():
        vault.delete(f"hosts/{snapshot}/manifest.json")
    [needed] = check_keys(config, world.paths).needed
    assert "no snapshot needs it any more" in needed_words(needed)
    assert to_rewrap(config, world.paths) == {}
    with pytest.raises(ConfigurationError, match="no vault holds snapshots of nobody"):
        to_rewrap(config, world.paths, ["nobody"])


def test_an_old_identity_opens_when_the_current_one_is_lost(world: World) -> None:
    old = world.key("old.age")
    world.back_up(old)
    (world.place / "identity.age").unlink()
    report = check_keys(world.config(encryption={"old_identities": [world.place / "old.age"]}), world.paths)
    assert {vault.opened_by for vault in report.vaults} == {old}
    assert "is not there" in report.notes[0]
    assert report.problems


def test_nothing_secret_is_in_a_report(world: World) -> None:
    world.back_up()
    text = repr(check_keys(world.config(), world.paths, known=[Known(parsed(world.recovery_identity), "paper")]))
    assert "AGE-SECRET" not in text
