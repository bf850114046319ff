"""A whole host onto another Debian: with Mastodon's code, with PostgreSQL and Redis alone, with another Mastodon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers.debian import Debian
from tests.servers.debian_mastodon import ROOT, SERVICES, Mastodon, install, install_code
from tests.servers.debian_world import State, World, add_host, watched

pytestmark = [pytest.mark.apt, pytest.mark.root, pytest.mark.timeout(400)]


def assert_holds_all(world: World, new: Mastodon) -> None:
    """The machine holds what was backed up, with modes and owners."""
    assert new.counts() == world.good.counts
    assert new.media() == {path: each for path, each in world.good.media.items() if not path.startswith("cache/")}
    assert new.host.run(f"stat -c '%a %U:%G' {ROOT}/.env.production").strip() == "600 mastodon:mastodon"
    assert new.host.run(f"sha256sum <{ROOT}/.env.production").strip() == world.good.settings[1]
    assert new.host.redis("LLEN", "queue:push") == world.good.redis[0]
    assert (
        new.host.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'mastodon_production'")
        == "mastodon"
    )
    assert new.host.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "mastodon"


def test_onto_a_new_machine_with_the_code(world: World, tmp_path: Path) -> None:
    operator = world.operator
    with Debian(tmp_path / "new", "new") as host:
        install_code(host)
        host.run("systemctl enable --quiet mastodon-web mastodon-sidekiq mastodon-streaming")
        new = Mastodon(host, world.mastodon.values, world.mastodon.population)
        add_host(operator, "new", host)
        plan = json.loads(operator.must("restore", "social", "--to", "new", "--plan", "--json"))
        assert plan["confirm"] == "new"
        assert new.databases() == ["postgres"]
        operator.done("restore", "social", "--to", "new", "--confirm", "new")
        assert_holds_all(world, new)
        assert new.states() == dict.fromkeys(SERVICES, "active")
        assert new.answers()
        assert world.pristine()

        # What stands there now is a Mastodon like any other: damaged, restored again, undone.
        host.sql("ALTER TABLE statuses RENAME TO statuses_lost")
        with watched(new) as watch:
            operator.done("restore", "social", "--to", "new", "--only", "database", "--confirm", "new/database")
        assert new.counts() == world.good.counts
        assert watch.longest < 10


def test_onto_a_bare_machine_and_back(world: World, tmp_path: Path) -> None:
    operator = world.operator
    with Debian(tmp_path / "bare", "bare") as host:
        new = Mastodon(host, world.mastodon.values, world.mastodon.population)
        add_host(operator, "bare", host, bare=True)
        plan = operator.must("restore", "social", "--to", "bare", "--plan")
        assert "4.7.4" in plan, "which code is missing"
        operator.done("restore", "social", "--to", "bare", "--confirm", "bare")
        assert_holds_all(world, new)
        # The code comes later, by Mastodon's guide.
        install_code(host)
        host.run("systemctl enable --quiet --now mastodon-web mastodon-sidekiq mastodon-streaming")
        new.await_health()

        (record,) = [each for each in world.restores() if each["host"] == "bare"]
        assert "undo" in record["can"]
        operator.done("undo", record["id"], "--confirm", record["confirm"])
        assert "mastodon_production" not in new.databases()
        assert host.redis("LLEN", "queue:push") == "0"
        assert not host.path(f"{ROOT}/.env.production").exists()


def test_not_onto_another_mastodon_unless_told(world: World, tmp_path: Path) -> None:
    operator = world.operator
    with Debian(tmp_path / "other", "other") as host:
        other = install(host, domain="other", seed=23, statuses=300)
        add_host(operator, "other", host)
        before = State.of(other)
        onto = ("restore", "social", "--to", "other", "--only", "database")
        plan = json.loads(operator.run(*onto, "--plan", "--json").stdout)
        words = {finding["accept"] for finding in plan["findings"] if finding["level"] == "block"}
        assert words == {"domain", "pair"}
        refused = operator.results(*onto, "--confirm", "other/database")["database"]
        assert refused["result"] == "failed"
        assert "nothing was changed" in refused["error"]
        assert State.of(other) == before
        assert other.healthy()

        accepted = [part for word in sorted(words) for part in ("--accept", f"other/{word}")]
        operator.done(*onto, "--confirm", "other/database", *accepted)
        assert other.counts() == world.good.counts
        (record,) = [each for each in world.restores() if each["host"] == "other" and "undo" in each["can"]]
        operator.done("undo", record["id"], "--confirm", record["confirm"])
        assert State.of(other) == before
        assert other.healthy()
