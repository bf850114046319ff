"""The fleet: configuration, catalogue and observations become rows with words."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity
from backends.archive.manifest import Manifest
from backends.archive.writer import begin_snapshot
from backends.catalog import Catalog, record_attempt, record_check
from backends.config.schema import Config
from backends.model import Asset, AssetObservation, AssetStatus, Attempt, HostObservation, HostState, JobState, Level
from backends.operations.fleet import Fleet, load_fleet, refresh_vaults
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare

NOW = datetime(2026, 11, 22, 14, 2, 11, tzinfo=UTC)
HOUR = timedelta(hours=1)
_, RECIPIENT = new_identity()
ASSETS = tuple(
    AssetObservation(asset=asset, present=True, fingerprint="same" if asset is Asset.SECRETS else None)
    for asset in Asset
)


class World:
    """A configuration with two vaults and one host, and what happened so far."""

    def __init__(self, place: Path) -> None:
        self.near = DirectoryVault("near", place / "near")
        self.far = DirectoryVault("far", place / "far", offsite=True)
        self.catalog = Catalog(place / "cache")
        self.place = place
        for vault in (self.near, self.far):
            prepare(vault, [RECIPIENT])

    def config(self, *hosts: str, **more: Any) -> Config:
        vaults = {
            "near": {"type": "directory", "path": self.near.path},
            "far": {"type": "directory", "path": self.far.path, "offsite": True},
        }
        its = {name: {"address": name} for name in hosts or ("social",)}
        kept: dict[str, Any] = {"recipients": [RECIPIENT], "recovery": RECIPIENT, "custody_confirmed": RECIPIENT}
        kept["custody_confirmed_at"] = NOW
        return Config.model_validate({"vaults": vaults, "hosts": its, "encryption": kept} | more)

    def back_up(
        self, asset: Asset, hours: float, *vaults: DirectoryVault, size: int = 9, warnings: tuple[str, ...] = ()
    ) -> Manifest:
        at = NOW - hours * HOUR
        snapshot = begin_snapshot(
            vaults or (self.near, self.far), host="social", asset=asset, run="r", recipients=[RECIPIENT], at=at
        )
        snapshot.write("object", io.BytesIO(b"x" * size), compress=False)
        facts = {"fingerprint": "same"} if asset is Asset.SECRETS else {}
        return snapshot.commit(facts, warnings=warnings)

    def attempt(self, hours: float, state: JobState = JobState.FAILED, asset: Asset = Asset.DATABASE) -> None:
        error = "no space" if state is JobState.FAILED else None
        tried = Attempt(host="social", asset=asset, run="r", at=NOW - hours * HOUR, seconds=1, state=state, error=error)
        record_attempt([self.near], tried)

    def see(self, **changes: Any) -> None:
        seen: dict[str, Any] = {
            "host": "social",
            "state": HostState.ONLINE,
            "asked_at": NOW,
            "since": NOW - HOUR,
            "machine_id": "elsewhere",
            "assets": ASSETS,
        }
        self.catalog.save_observation(HostObservation(**(seen | changes)))

    def fleet(self, config: Config | None = None, now: datetime = NOW) -> Fleet:
        config = config or self.config()
        refresh_vaults(config, self.catalog)
        return load_fleet(config, self.catalog, now)

    def row(self, asset: Asset, **more: Any) -> AssetStatus:
        return next(row for row in self.fleet(**more).assets if row.asset is asset)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def said(row: AssetStatus) -> str:
    return "; ".join(reason.text for reason in row.reasons)


def test_nothing_is_known_of_a_host_that_was_not_asked(world: World) -> None:
    fleet = world.fleet()
    assert {row.state for row in fleet.assets} == {"not asked yet"}
    assert {row.level for row in fleet.assets} == {Level.UNKN}
    assert not any(row.stale for row in fleet.assets)
    assert fleet.hosts == ()
    assert [vault.name for vault in fleet.vaults] == ["near", "far"]


def test_never_backed_up(world: World) -> None:
    world.see()
    rows = world.fleet().assets
    assert [(row.asset, row.level, row.score) for row in rows] == [
        (Asset.DATABASE, Level.CRIT, 100),
        (Asset.SECRETS, Level.CRIT, 90),
        (Asset.MEDIA, Level.HIGH, 60),
        (Asset.REDIS, Level.MED, 15),
    ]
    assert {row.state for row in rows} == {"never backed up"}
    world.attempt(1)
    assert world.row(Asset.DATABASE).state == "never backed up, last run FAILED"


def test_a_good_copy_says_when_the_next_is_due(world: World) -> None:
    world.see()
    made = world.back_up(Asset.DATABASE, 22)
    record_check([world.near], made.id, "drilled", NOW, True, {})
    row = world.row(Asset.DATABASE)
    assert (row.level, row.score, row.state, row.goal_seconds) == (Level.OK, 0, "due in 2h", 86400)
    assert row.newest is not None
    assert (row.newest.id, row.newest.vaults) == (made.id, ("far", "near"))
    record_check([world.near], made.id, "verified", NOW - 3 * HOUR, True, {})
    assert world.row(Asset.DATABASE).state == "verified 3h ago"


def test_overdue(world: World) -> None:
    world.see()
    world.back_up(Asset.DATABASE, 49)
    row = world.row(Asset.DATABASE)
    assert (row.level, row.score, row.state) == (Level.HIGH, 50, "overdue 25h")
    assert "49h old, 2.0 x the 24h goal" not in said(row), "two days and more are said in days"
    assert "2d 01h old, 2.0 x the 24h goal" in said(row)


def test_failures_since_the_last_good_one_count(world: World) -> None:
    world.see()
    world.back_up(Asset.DATABASE, 10)
    world.attempt(20)
    world.attempt(10, JobState.DONE)
    assert "failed" not in said(world.row(Asset.DATABASE))
    world.attempt(2)
    assert world.row(Asset.DATABASE).state == "last run FAILED"
    world.attempt(1)
    world.attempt(0.5, JobState.CANCELLED)
    row = world.row(Asset.DATABASE)
    assert row.state == "last 2 runs FAILED"
    assert "last 2 runs failed: no space" in said(row)
    world.back_up(Asset.DATABASE, 0.1)
    assert "failed" not in said(world.row(Asset.DATABASE)), "its record may be missing, the snapshot is there"


def test_secrets_are_compared(world: World) -> None:
    made = world.back_up(Asset.SECRETS, 24 * 300)
    record_check([world.near, world.far], made.id, "drilled", NOW, True, {})
    world.see()
    row = world.row(Asset.SECRETS, now=NOW + 3 * HOUR)
    assert (row.level, row.score, row.state) == (Level.OK, 0, "unchanged, checked 3h ago")
    assert row.goal_seconds is None
    row = world.row(Asset.SECRETS, now=NOW + 8 * 24 * HOUR)
    assert (row.level, row.score) == (Level.MED, 18)
    assert "not compared with the host for 8d 00h" in said(row)
    changed = AssetObservation(asset=Asset.SECRETS, present=True, fingerprint="other")
    world.see(assets=(changed,), asked_at=NOW + HOUR)
    row = world.row(Asset.SECRETS)
    assert row.level is Level.CRIT
    assert row.state == "changed since the copy"


def test_secrets_that_were_checked_in_a_run(world: World) -> None:
    made = world.back_up(Asset.SECRETS, 24 * 300)
    record_check([world.near], made.id, "unchanged", NOW - 2 * HOUR, True, {})
    unknown = AssetObservation(asset=Asset.SECRETS, present=True)
    world.see(assets=(unknown,))
    assert world.row(Asset.SECRETS).state == "unchanged, checked 2h ago"


def test_secrets_with_a_goal_in_days(world: World) -> None:
    world.back_up(Asset.SECRETS, 24 * 10)
    world.see(asked_at=NOW - 9 * 24 * HOUR)
    row = world.row(Asset.SECRETS, config=world.config(goals={"secrets": "7d"}))
    assert row.state == "overdue 2d 00h"


def test_media_that_a_provider_keeps(world: World) -> None:
    kept = AssetObservation(asset=Asset.MEDIA, present=True, provider="Wasabi (bucket media-club)")
    world.see(assets=(kept,))
    row = world.row(Asset.MEDIA)
    assert (row.level, row.score, row.state) == (Level.OK, 0, "kept by Wasabi (bucket media-club)")
    world.see(assets=(kept,), state=HostState.OFFLINE, asked_at=NOW + HOUR)
    assert world.row(Asset.MEDIA).level is Level.UNKN


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (HostState.OFFLINE, "OFFLINE since 13:02"),
        (HostState.LOGIN_FAILED, "LOGIN FAILED since 13:02"),
        (HostState.HOST_KEY_CHANGED, "HOST KEY CHANGED since 13:02"),
        (HostState.HOST_KEY_UNKNOWN, "host key not accepted since 13:02"),
        (HostState.NO_MASTODON, "no Mastodon found since 13:02"),
        (HostState.FAILED, "FAILED since 13:02"),
    ],
)
def test_a_host_that_is_away_keeps_its_values(world: World, state: HostState, words: str) -> None:
    world.back_up(Asset.DATABASE, 100)
    world.see()
    before = world.row(Asset.DATABASE)
    world.see(state=state, asked_at=NOW + HOUR)
    row = world.row(Asset.DATABASE)
    assert (row.level, row.score, row.reasons) == (Level.UNKN, before.score, before.reasons)
    assert (row.state, row.stale, row.newest) == (words, True, before.newest)
    world.see(state=state, since=NOW - 48 * HOUR, asked_at=NOW + 2 * HOUR)
    assert world.row(Asset.DATABASE).state.endswith("since 11-20 14:02")


def test_every_state_has_words(world: World) -> None:
    for number, state in enumerate(HostState):
        world.see(state=state, asked_at=NOW + number * HOUR)
        assert world.row(Asset.DATABASE).state


def test_an_asset_that_is_not_on_the_host(world: World) -> None:
    world.see(assets=(AssetObservation(asset=Asset.MEDIA, present=False),))
    row = world.row(Asset.MEDIA)
    assert (row.level, row.state, row.stale) == (Level.UNKN, "not found on the host", False)
    world.back_up(Asset.MEDIA, 1)
    assert world.row(Asset.MEDIA).state == "no longer found on the host"


def test_every_copy_on_the_machine_it_protects(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.vault.directory.machine_of", lambda path: "here")
    world.see(machine_id="here")
    world.back_up(Asset.DATABASE, 1, world.near)
    row = world.row(Asset.DATABASE)
    assert row.level is Level.CRIT
    assert "every copy is on the machine it protects" in said(row)
    assert "only one copy" in said(row)
    assert "no copy off-site" in said(row)
    world.back_up(Asset.DATABASE, 0.5)
    assert said(world.row(Asset.DATABASE)) == "never proven by a drill"


def test_one_more_copy_near_is_no_riskier_than_without(world: World) -> None:
    """A vault elsewhere did not take the newest snapshot; it has yesterday's."""
    world.see()
    world.back_up(Asset.DATABASE, 20)
    before = world.row(Asset.DATABASE).score
    world.back_up(Asset.DATABASE, 1, world.near)
    row = world.row(Asset.DATABASE)
    assert row.newest is not None
    assert row.newest.vaults == ("near",)
    assert row.score == before
    assert world.row(Asset.MEDIA).score > before, "never backed up"


def test_a_copy_that_shrank(world: World) -> None:
    world.see()
    for hour in (5, 4, 3, 2):
        world.back_up(Asset.MEDIA, hour, size=20_000)
    world.back_up(Asset.MEDIA, 1, size=20)
    assert "only 1% of its usual size" in said(world.row(Asset.MEDIA))


def test_in_part(world: World) -> None:
    world.see()
    world.back_up(Asset.MEDIA, 22, warnings=("2 files could not be read",))
    assert world.row(Asset.MEDIA).state == "in part, due in 2h"


def test_failed_verification(world: World) -> None:
    world.see()
    made = world.back_up(Asset.DATABASE, 1)
    for vault in (world.near, world.far):
        record_check([vault], made.id, "verified", NOW, False, {})
    row = world.row(Asset.DATABASE)
    assert (row.level, row.state) == (Level.CRIT, "verification FAILED")


def test_a_healthy_standby(world: World) -> None:
    world.back_up(Asset.DATABASE, 100)
    world.see()
    before = world.row(Asset.DATABASE).score
    world.see(assets=(AssetObservation(asset=Asset.DATABASE, present=True, healthy_standby=True),))
    assert world.row(Asset.DATABASE).score == before - 15


def test_custody(world: World) -> None:
    world.see()
    world.back_up(Asset.DATABASE, 1)
    for kept in ({}, {"recovery": RECIPIENT}, {"recovery": RECIPIENT, "custody_confirmed": "age1other"}):
        config = world.config(encryption={"recipients": [RECIPIENT], **kept})
        assert "custody of the recovery key is not confirmed" in said(world.row(Asset.DATABASE, config=config))


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (NOW, ""),
        (NOW + HOUR, ""),
        (NOW - 180 * 24 * HOUR, ""),
        ((NOW - 100 * 24 * HOUR).replace(tzinfo=None), ""),
        (NOW - 200 * 24 * HOUR, "custody last confirmed 200 days ago"),
        (None, "when custody was last confirmed is not known"),
    ],
)
def test_custody_is_asked_for_again_after_half_a_year(world: World, at: datetime | None, says: str) -> None:
    world.see()
    world.back_up(Asset.DATABASE, 1)
    kept = {"recipients": [RECIPIENT], "recovery": RECIPIENT, "custody_confirmed": RECIPIENT}
    row = world.row(Asset.DATABASE, config=world.config(encryption={**kept, "custody_confirmed_at": at}))
    about = [reason for reason in row.reasons if "custody" in reason.text]
    assert [(reason.points, reason.text) for reason in about] == ([(5, says)] if says else [])


def test_a_vault_that_is_away(world: World) -> None:
    world.see()
    world.back_up(Asset.DATABASE, 1)
    world.back_up(Asset.MEDIA, 1, world.far)
    world.fleet()
    world.far.path.rename(world.place / "unplugged")
    fleet = world.fleet()
    assert "any more" in fleet.vaults[1].error
    rows = {row.asset: row for row in fleet.assets}
    assert rows[Asset.DATABASE].level is not Level.UNKN, "the other vault answered and holds it"
    assert (rows[Asset.MEDIA].level, rows[Asset.MEDIA].state) == (Level.UNKN, "vault not readable")
    assert rows[Asset.MEDIA].stale
    assert rows[Asset.REDIS].level is Level.UNKN, "it may be in the vault that is away"


def test_a_vault_without_its_credentials_is_said(world: World) -> None:
    keys = {"access_key_env": "MASTOVAULT_NO_SUCH_KEY", "secret_key_env": "MASTOVAULT_NO_SUCH_KEY"}
    cloud = {"type": "s3", "bucket": "b", "prefix": "p", **keys}
    config = Config.model_validate({"vaults": {"cloud": cloud}, "hosts": {"social": {"address": "x"}}})
    (vault,) = world.fleet(config).vaults
    assert (vault.where, vault.read_at) == ("s3://b/p", None)
    assert "the variable MASTOVAULT_NO_SUCH_KEY" in vault.error


def test_before_the_first_refresh(world: World) -> None:
    fleet = load_fleet(world.config(), world.catalog, NOW)
    assert {vault.read_at for vault in fleet.vaults} == {None}
    assert fleet.vaults[0].where == str(world.near.path)


def test_worst_first_and_what_is_not_known_above_med(world: World) -> None:
    world.see()
    world.back_up(Asset.DATABASE, 49)
    world.back_up(Asset.REDIS, 1)
    world.back_up(Asset.MEDIA, 1)
    world.back_up(Asset.SECRETS, 1)
    world.see(host="b", state=HostState.OFFLINE, assets=())
    fleet = world.fleet(world.config("social", "b"))
    order = [(row.host, row.asset.value, row.level.value) for row in fleet.assets]
    assert order == [
        ("b", "database", "UNKN"),
        ("b", "secrets", "UNKN"),
        ("b", "media", "UNKN"),
        ("social", "database", "HIGH"),
        ("b", "redis", "UNKN"),
        ("social", "secrets", "LOW"),
        ("social", "media", "OK"),
        ("social", "redis", "OK"),
    ]


def test_a_hundred_hosts_are_quick(world: World) -> None:
    hosts = [f"host{number:03}" for number in range(100)]
    for host in hosts:
        world.see(host=host)
    config = world.config(*hosts)
    world.fleet(config)
    before = time.process_time()
    assert len(load_fleet(config, world.catalog, NOW).assets) == 400
    assert time.process_time() - before < 0.3


def _imported(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_a_status_loads_nothing_heavy() -> None:
    loaded = _imported(
        "import backends.operations.fleet, backends.vault.open, backends.vault.directory, backends.archive.reader"
    )
    assert loaded.isdisjoint({"boto3", "botocore", "paramiko", "zstandard", "pyrage", "cryptography", "redis"})
