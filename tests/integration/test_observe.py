"""Asking hosts how they are, and the process that asks all of them."""

from __future__ import annotations

import fcntl
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.assets.registry import handler
from backends.catalog import Catalog
from backends.connection.base import Command, Connection
from backends.errors import AssetFailed
from backends.lab.lab import Lab
from backends.mastodon.discovery import discover
from backends.mastodon.installation import Installation, InstallKind
from backends.model import Asset, HostObservation, HostState
from backends.operations import observe
from backends.operations.observe import observe_host
from backends.runs import refresh
from backends.runs.refresh import start_refresh
from tests.runs_world import World

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> World:
    return World(lab, tmp_path)


def test_a_host_that_answers(world: World) -> None:
    seen = observe_host("social", world.config, None, NOW)
    assert (seen.state, seen.asked_at, seen.since) == (HostState.ONLINE, NOW, NOW)
    assert (seen.kind, seen.version) == ("native", "4.7.4")
    assert [each.asset for each in seen.assets] == list(Asset)
    assert all(each.present for each in seen.assets)
    later = observe_host("social", world.config, seen, NOW + timedelta(hours=1))
    assert (later.since, later.asked_at) == (NOW, NOW + timedelta(hours=1))


def test_a_host_that_is_away_keeps_what_was_last_seen(world: World) -> None:
    before = observe_host("art", world.config, None, NOW)
    world.lab.stop_host("art")
    try:
        away = observe_host("art", world.config, before, NOW + timedelta(hours=1))
        still = observe_host("art", world.config, away, NOW + timedelta(hours=2))
    finally:
        world.lab.start_host("art")
    assert (away.state, away.since) == (HostState.OFFLINE, NOW + timedelta(hours=1))
    assert away.message
    assert (away.assets, away.version, away.kind) == (before.assets, before.version, before.kind)
    assert away.machine_id == before.machine_id
    assert (still.since, still.asked_at) == (away.since, NOW + timedelta(hours=2))
    back = observe_host("art", world.config, still, NOW + timedelta(hours=3))
    assert (back.state, back.since, back.message) == (HostState.ONLINE, NOW + timedelta(hours=3), "")


def test_every_refusal_has_its_state(world: World, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.touch()
    world.host("social", known_hosts=str(known))
    unknown = observe_host("social", world.config, None, NOW)
    assert unknown.state is HostState.HOST_KEY_UNKNOWN
    assert "SHA256:" in unknown.message
    assert unknown.next_step
    other = world.lab.hosts["club"].ssh.known_hosts_line.split()
    known.write_text(" ".join([world.lab.hosts["social"].ssh.known_hosts_line.split()[0], *other[1:]]) + "\n")
    assert observe_host("social", world.config, None, NOW).state is HostState.HOST_KEY_CHANGED
    no_key = tmp_path / "nokey"
    no_key.touch()
    world.host("art", identity_file=str(no_key))
    assert observe_host("art", world.config, None, NOW).state is HostState.LOGIN_FAILED
    world.host("club", root="/nowhere/at/all")
    assert observe_host("club", world.config, None, NOW).state is HostState.NO_MASTODON


def test_an_asset_that_cannot_be_looked_at_hides_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def probe(self, connection: Connection, found: Installation) -> None:
            raise AssetFailed("it may not be read", "Look at its mode.")

    monkeypatch.setattr(observe, "handler", lambda asset: Refusing() if asset is Asset.MEDIA else handler(asset))
    seen = observe_host("social", world.config, None, NOW)
    assert seen.state is HostState.ONLINE
    states = {each.asset: (each.present, each.detail) for each in seen.assets}
    assert states[Asset.MEDIA] == (False, "it may not be read")
    assert states[Asset.DATABASE][0]


def test_a_surprise_is_an_answer_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: object) -> Installation:
        raise KeyError("hunter2")

    monkeypatch.setattr(observe, "discover", surprise)
    seen = observe_host("social", world.config, None, NOW)
    assert seen.state is HostState.FAILED
    assert "KeyError" in seen.message
    assert "hunter2" not in seen.message


def test_a_look_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "LOOK_SECONDS", 0.5)

    def hang(connection: Connection, *_: object) -> Installation:
        connection.run(Command(("sleep", "60")))
        raise AssertionError("the connection was closed")

    monkeypatch.setattr(observe, "discover", hang)
    began = time.monotonic()
    seen = observe_host("social", world.config, None, NOW)
    assert time.monotonic() - began < 10
    assert seen.state is HostState.OFFLINE
    assert "did not answer everything" in seen.message


def test_another_kind_is_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "discover", lambda *given: replace(discover(*given), kind=InstallKind.DOCKER))
    seen = observe_host("social", world.config, None, NOW)
    assert seen.state is HostState.NO_MASTODON
    assert "docker" in seen.message


def seen(world: World) -> dict[str, HostObservation]:
    return {each.host: each for each in Catalog(world.paths.cache_dir).observations()}


def test_the_refresh_asks_everybody_and_saves(world: World) -> None:
    world.lab.stop_host("club")
    try:
        assert start_refresh(world.paths).wait(60) == 0
    finally:
        world.lab.start_host("club")
    found = seen(world)
    assert {name: each.state for name, each in found.items()} == {
        "social": HostState.ONLINE,
        "art": HostState.ONLINE,
        "club": HostState.OFFLINE,
        "lan": HostState.OFFLINE,
    }
    assert {status.name for status in Catalog(world.paths.cache_dir).vaults()} == {"local", "offsite"}
    assert start_refresh(world.paths, ["club"]).wait(60) == 0
    again = seen(world)
    assert again["club"].state is HostState.ONLINE
    assert again["social"] == found["social"]


def test_only_one_refresh_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.paths.environment().items():
        monkeypatch.setenv(name, value)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(refresh, "refresh", lambda paths, hosts: asked.append(tuple(hosts)))
    world.paths.state_dir.mkdir()
    with (world.paths.state_dir / "refresh.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert refresh.main([]) == 0
        assert asked == []
        # One that names hosts has something of its own to find out: it waits.
        waiting = threading.Thread(target=refresh.main, args=(["social"],))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(10)
    assert asked == [("social",)]


def test_a_slow_vault_keeps_no_host_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr("backends.operations.fleet.refresh_vaults", lambda *_: answered.wait(30))
    asking = threading.Thread(target=refresh.refresh, args=(world.paths, ["social"]))
    asking.start()
    deadline = time.monotonic() + 20
    while "social" not in seen(world) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert asking.is_alive()
    assert seen(world)["social"].state is HostState.ONLINE
    answered.set()
    asking.join(10)


def test_a_broken_configuration_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in world.paths.environment().items():
        monkeypatch.setenv(name, value)
    world.paths.config_file.write_text("nonsense")
    assert refresh.main([]) == 2
    assert "config.toml" in capsys.readouterr().err
