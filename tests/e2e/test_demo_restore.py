"""The main job on the worst day, tried in the demo: damage, restore, undo; a host onto an empty one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.demo_fleet import Demo, started


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with started(tmp_path_factory.mktemp("demo")) as running:
        yield running


def test_the_stale_host_loses_its_posts_and_gets_them_back(demo: Demo) -> None:
    before = demo.posts("art")
    assert before == 2000
    damaged = demo.run("demo", "--dir", str(demo.directory), "--damage", "art")
    assert damaged.returncode == 0, damaged.stderr
    assert f"{before} posts are gone" in damaged.stdout
    assert "mastovault restore art/database" in damaged.stdout
    assert demo.posts("art") == -1
    # A newcomer looks at the plan first: nothing has changed by it.
    plan = demo.run("restore", "art/database", "--plan")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "ALTER DATABASE" in plan.stdout
    assert demo.posts("art") == -1
    done = demo.run("restore", "art/database", "--confirm", "art/database")
    assert done.returncode == 0, done.stdout + done.stderr
    assert demo.posts("art") == before
    (record,) = [each for each in demo.json("undo")["restores"] if each["host"] == "art"]
    assert "undo" in record["can"]
    undone = demo.run("undo", record["id"], "--confirm", "art/database")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert demo.posts("art") == -1


def test_a_whole_host_comes_back_on_an_empty_one(demo: Demo) -> None:
    done = demo.run("restore", "social", "--to", "spare", "--confirm", "spare")
    assert done.returncode == 0, done.stdout + done.stderr
    settings = (demo.directory / "hosts/spare/home/mastodon/live/.env.production").read_text()
    values = dict(line.split("=", 1) for line in settings.splitlines() if "=" in line and not line.startswith("#"))
    original = (demo.directory / "hosts/social/home/mastodon/live/.env.production").read_text()
    assert f"LOCAL_DOMAIN={values['LOCAL_DOMAIN']}\n" in original
    assert values["LOCAL_DOMAIN"] == "social.example"
    # Its own servers serve it, not those that the settings came with.
    assert f"DB_PORT={values['DB_PORT']}\n" not in original
    assert demo.posts("spare") == demo.posts("social") == 2000
    media = demo.directory / "hosts/spare/home/mastodon/live/public/system/media_attachments"
    assert any(path.is_file() for path in media.rglob("*"))


def test_damage_says_what_it_cannot_do(demo: Demo) -> None:
    for target, said in (("nowhere", "no host nowhere"), ("art/gold", "no asset gold"), ("spare", "spare is empty")):
        done = demo.run("demo", "--dir", str(demo.directory), "--damage", target)
        assert done.returncode == 2, done.stdout
        assert said in done.stderr
    away = demo.run("demo", "--dir", str(demo.directory / "state"), "--damage", "art")
    assert (away.returncode, "no demo runs in" in away.stderr) == (2, True)
