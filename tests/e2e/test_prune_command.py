"""`mastovault prune`, typed: what it would do, what it asks, and that a run does it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from backends.model import Asset
from tests.sync_world import RECIPIENT, SyncWorld, is_whole
from tui.cli import prune as command
from tui.cli.main import run

CONFIG = """
[encryption]
recipients = ["{recipient}"]
[vaults.one]
type = "directory"
path = "{place}/one"
[vaults.two]
type = "directory"
path = "{place}/two"
[retention]
last = 1
[hosts.social]
address = "local"
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SyncWorld:
    world = SyncWorld(tmp_path, ("one", "two"))
    world.paths.config_file.write_text(CONFIG.format(recipient=RECIPIENT, place=tmp_path))
    monkeypatch.setenv("MASTOVAULT_CONFIG", str(world.paths.config_file))
    monkeypatch.setenv("MASTOVAULT_STATE_DIR", str(world.paths.state_dir))
    monkeypatch.setenv("MASTOVAULT_CACHE_DIR", str(world.paths.cache_dir))
    for days in (3, 2, 1):
        world.back_up("one", "two", age=days, data=b"d" * 3000)
    world.back_up("one", asset=Asset.MEDIA, age=4, shared=["p1"])
    return world


def left(world: SyncWorld, name: str = "one") -> int:
    return len([each for each in is_whole(world.directory(name)) if "/database/" in each])


def test_a_dry_run_lists_each_with_its_reason(world: SyncWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.count("remove  one  social/database/") == 2
    assert text.count("keep    two  social/database/") == 1
    assert "beyond last 1" in text
    assert "the last good one; last 1" in text
    lines = text.splitlines()
    sizes = r"up to \d+\.\dK to be freed"  # age writes a header of random length
    assert re.fullmatch(f"one: 2 to remove, {sizes}", lines[-3])
    assert re.fullmatch(f"4 to remove, {sizes}", lines[-1])
    assert (left(world), left(world, "two")) == (3, 3)


def test_a_dry_run_as_one_document(world: SyncWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune", "social/database", "--vault", "two", "--dry-run", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [each["keep"] for each in document["snapshots"]] == [True, False, False]
    assert {each["vault"] for each in document["snapshots"]} == {"two"}
    assert all(each["why"] and each["at"].endswith("Z") for each in document["snapshots"])
    [vault] = document["vaults"]
    assert (vault["vault"], vault["remove"], vault["bytes"]) == ("two", 2, document["bytes"])
    assert (document["notes"], document["away"]) == ([], {})


def test_a_vault_that_is_away_is_named(world: SyncWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune", "--dry-run"]) == 0
    (world.place / "two").rename(world.place / "unmounted")
    assert run(["prune", "--dry-run"]) == 3
    assert "two did not answer, nothing is removed there" in capsys.readouterr().out


def test_it_removes_nothing_unasked(
    world: SyncWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["prune"]) == 2
    assert "nobody is there to be asked" in capsys.readouterr().err
    assert run(["--read-only", "prune", "--yes"]) == 2
    assert run(["--read-only", "prune", "--dry-run"]) == 0
    assert run(["prune", "nowhere"]) == 2
    assert run(["prune", "--vault", "nowhere"]) == 2
    capsys.readouterr()
    monkeypatch.setattr(command, "_require_somebody", lambda: None)
    monkeypatch.setattr("click.confirm", lambda *_args, **_more: (_ for _ in ()).throw(click.Abort))
    assert run(["prune"]) != 0
    out = capsys.readouterr().out
    assert "remove  one  social/database/" in out
    assert "keep " not in out, "only what would go"
    assert (left(world), left(world, "two")) == (3, 3)


def test_a_run_removes_it(world: SyncWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune", "social/database", "--vault", "one", "--yes", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["event"] == "summary"
    [result] = events[-1]["results"]
    assert (result["asset"], result["result"]) == ("database", "done")
    assert result["bytes"] > 6000
    assert "removed 2 snapshots (2 from one)" in result["detail"]
    assert f"{result['bytes']} bytes freed" in result["detail"]
    assert (left(world), left(world, "two")) == (1, 3)
