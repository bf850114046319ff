"""`mastovault restore`, `undo` and what they print, as whole processes on the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity, write_identity
from backends.lab.lab import Lab
from tests.restore_world import Restores
from tests.runs_world import World, kill, slow


@pytest.fixture
def social(living_lab: Lab, tmp_path: Path) -> Restores:
    made = Restores(World(living_lab, tmp_path))
    made.back_up()
    return made


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_plan_restore_undo_and_forget(social: Restores) -> None:
    world = social.world
    good = social.counts()
    code, out, err = world.run("restore", "social/database", "--plan")
    assert (code, err) == (0, "")
    assert "ALTER DATABASE" in out
    assert "To run it, confirm with: social/database" in out
    code, out, _ = world.run("restore", "social/database", "--plan", "--json")
    plan = json.loads(out)
    assert (code, plan["confirm"]) == (0, "social/database")
    assert next(step["id"] for step in plan["steps"]) == "database.load"

    social.sql("DROP TABLE statuses CASCADE")
    damaged = social.counts()
    code, out, err = world.run("restore", "social/database", "--confirm", "social/database", "--json")
    assert code == 0, err
    assert {event["event"] for event in events(out)[:-1]} == {"progress"}
    [result] = events(out)[-1]["results"]
    assert (result["result"], result["asset"]) == ("done", "database")
    assert "Mastodon was down for" in result["detail"]
    assert social.counts() == good

    code, out, _ = world.run("undo", "--json")
    [record] = json.loads(out)["restores"]
    assert (record["state"], record["can"]) == ("done", ["undo", "forget"])
    code, _, err = world.run("undo", record["id"])
    assert code == 2
    assert "must be confirmed by typing social/database" in err
    code, out, err = world.run("undo", record["id"], "--confirm", "social/database")
    assert code == 0, err
    assert "undone" in out
    assert social.counts() == damaged

    again = world.run("restore", "social/database", "--confirm", "social/database")
    assert again[0] == 0, again
    assert social.counts() == good
    for record in json.loads(world.run("undo", "--json")[1])["restores"]:
        assert world.run("undo", record["id"], "--confirm", "social/database", "--forget")[0] == 0
    assert social.databases() == []
    assert "undo ID" not in world.run("undo")[1]


def test_a_killed_restore_is_shown_and_goes_on_or_back(social: Restores) -> None:
    world, counts = social.world, social.counts()
    for choice in ("--resume", "--roll-back"):
        arguments = ("restore", "social/database", "--confirm", "social/database")
        with slow(world.lab, "social"), world.start(*arguments) as process:
            view = world.until(lambda view: ("database.load", "begun") in view.steps)
            kill(view.pid)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "was killed" in out
        code, out, err = world.run("status")
        assert "interrupted" in err
        record = json.loads(world.run("undo", "--json")[1])["restores"][0]
        assert (record["state"], record["can"]) == ("interrupted", ["resume", "rollback"])
        code, out, err = world.run("restore", choice, record["id"])
        assert code == 0, (out, err)
        assert social.counts() == counts
    assert social.databases() != []
    restored = json.loads(world.run("undo", "--json")[1])["restores"]
    assert [record["state"] for record in restored] == ["rolled_back", "done"]
    assert world.run("undo", restored[1]["id"], "--confirm", "social/database", "--forget")[0] == 0
    assert social.databases() == []
    assert social.leftovers() == []


def test_plain_files_here(social: Restores, tmp_path: Path) -> None:
    place = tmp_path / "files"
    code, _, err = social.world.run("restore", "social", "--to", f"{place}/")
    assert code == 0, err
    assert (place / "database.pgdump").read_bytes().startswith(b"PGDMP")
    assert (place / "dump.rdb").read_bytes().startswith(b"REDIS")
    assert list(place.glob("environment/**/.env.production"))
    assert (place / "media").is_dir()
    assert place.stat().st_mode & 0o777 == 0o700
    assert social.leftovers() == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("restore",), 2, "nothing is named to restore"),
        (("restore", "nobody"), 2, "names no snapshot"),
        (("restore", "social/database"), 2, "must be confirmed by typing social/database"),
        (("restore", "social/database", "--confirm", "social"), 2, "must be confirmed by typing social/database"),
        (("restore", "social", "--only", "soup"), 2, "soup is no asset"),
        (("restore", "social", "--to", "nowhere"), 2, "no host named nowhere"),
        (("restore", "social/redis", "--accept", "other/pair"), 2, "accepts nothing on social"),
        (("restore", "--resume", "19990101t000000"), 2, "there is no restore"),
        (("undo", "zzz"), 2, "there is no restore"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    social: Restores, arguments: tuple[str, ...], code: int, said: str
) -> None:
    counts = social.counts()
    ended, out, err = social.world.run(*arguments)
    assert ended == code, (out, err)
    assert said in out + err
    assert social.counts() == counts
    assert social.databases() == []


def test_the_wrong_identity_is_known_before_anything_begins(social: Restores, tmp_path: Path) -> None:
    identity, _ = new_identity()
    write_identity(tmp_path / "other.age", identity, None)
    config = social.world.config
    social.world.change(
        encryption={"recipients": list(config.encryption.recipients), "identity": str(tmp_path / "other.age")}
    )
    code, out, err = social.world.run("restore", "social/database", "--confirm", "social/database")
    assert code == 12
    assert "no identity at hand opens" in out + err
    assert social.databases() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup", "social"),
        ("restore", "social/database", "--confirm", "social/database"),
        ("undo", "20261122t140211ab12"),
        ("verify", "social"),
        ("drill", "social"),
        ("cancel", "20261122T140211Z-01234567"),
    ],
)
def test_read_only_refuses_what_changes_something(living_lab: Lab, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, _, err = World(living_lab, tmp_path).run("--read-only", *arguments)
    assert code == 2
    assert "changes something and this is read-only" in err


def test_read_only_still_shows_plans(social: Restores) -> None:
    code, out, err = social.world.run("--read-only", "restore", "social/database", "--plan")
    assert code == 0, err
    assert "ALTER DATABASE" in out
