"""A whole host backed up without any private key; then its keys are changed, and all of it opens with the new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity, write_identity
from backends.catalog import Catalog
from backends.config.save_keys import change_keys
from backends.errors import KeyUnavailable
from backends.lab.lab import Lab
from backends.model import Asset, JobState
from backends.operations.choose import open_identities
from backends.operations.fleet import refresh_vaults
from backends.operations.verify import verify_host
from tests.runs_world import World
from tests.servers.backup import WatchedJob
from tui.cli.main import run


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> World:
    return World(lab, tmp_path)


def test_backing_up_needs_no_private_key(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command, with a home that holds nothing; the keys come to the machine only afterwards."""
    identity, recipient = new_identity()
    change_keys(world.paths.config_file, {"identity": None, "recipients": [recipient]})
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name, value in world.paths.environment().items():
        monkeypatch.setenv(name, value)
    text = world.paths.config_file.read_text()
    assert "AGE-SECRET" not in text
    assert "\nidentity =" not in text.partition("[hosts")[0]

    code, results = world.results("social")
    assert code == 0, results
    assert {each["result"] for each in results.values()} == {"done"}
    assert list(home.rglob("*")) == []
    with pytest.raises(KeyUnavailable, match="no identity is configured"):
        open_identities(world.config)

    write_identity(tmp_path / "old.age", identity, None)
    change_keys(world.paths.config_file, {"identity": str(tmp_path / "old.age")})
    rotated(world, tmp_path, capsys)


def command(capsys: pytest.CaptureFixture[str], world: World, *arguments: str) -> list[dict[str, Any]]:
    """What a command prints as JSON, here in this process."""
    assert run(["--config", str(world.paths.config_file), *arguments, "--json"]) == 0, capsys.readouterr()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def rotated(world: World, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rotate and rewrap with the commands; then the new identity alone verifies everything."""
    recovery = place / "recovery.svg"
    *_, summary = command(capsys, world, "key", "rotate", "--recovery-page", str(recovery), "--rewrap")
    assert {each["result"] for each in summary["results"]} == {"done"}
    assert {each["asset"] for each in summary["results"]} == {asset.value for asset in Asset}
    (place / "old.age").unlink()
    [found] = command(capsys, world, "key", "check")
    assert {vault["state"] for vault in found["vaults"]} == {"opened"}
    assert (found["lacking"], found["problems"]) == ([], [])
    [found] = command(capsys, world, "key", "check", "--recovery", "--from", str(recovery))
    assert found["custody"]["due"] is False

    config, catalog = world.config, Catalog(world.paths.cache_dir)
    refresh_vaults(config, catalog)
    snapshots = {snapshot.asset: snapshot.id for snapshot in catalog.snapshots("social")}
    assert set(snapshots) == set(Asset)
    jobs = {asset: WatchedJob() for asset in snapshots}
    for result in verify_host(config, world.paths, "social", snapshots, jobs, "run"):
        assert result.state is JobState.DONE, result
        assert set(result.vaults) == set(config.vaults_of("social"))
