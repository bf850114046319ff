"""Services around a restore, on hosts whose units are real processes: down for a moment, then well, or as before."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from backends.lab.environment import record_encryption_keys, written
from backends.lab.lab import Lab
from backends.lab.services import wait_until_well
from backends.lab.systemd import Fault
from backends.lab.units import SIDEKIQ, STREAMING, STREAMING_PORT, WEB
from backends.model import Asset, JobResult, JobState, Secret
from backends.operations.restore import plan_restore
from backends.restore import services_run
from backends.restore.plan import RedisChoice, RestorePlan, RestoreRequest
from tests.restore_world import Restores, as_it_was
from tests.runs_world import World
from tests.servers.backup import WatchedJob

MASTODON = (WEB, SIDEKIQ, STREAMING, STREAMING_PORT)


@pytest.fixture
def social(living_lab: Lab, tmp_path: Path) -> Iterator[Restores]:
    made = Restores(World(living_lab, tmp_path))
    made.back_up(Asset.DATABASE, Asset.SECRETS, Asset.REDIS)
    env = made.host.root / ".env.production"
    before, counts = env.read_bytes(), made.counts()
    yield made
    for fault in Fault:
        for unit in MASTODON:
            made.host.fault(unit, fault, on=False)
    made.host.systemd.stop_seconds = 15.0
    env.write_bytes(before)
    made.host.systemd.stop(MASTODON)
    made.host.systemd.start(MASTODON)
    assert wait_until_well(made.host)
    assert made.counts() == counts


class Restored:
    """One restore and what its job was told."""

    def __init__(self, social: Restores, *assets: Asset, **changes: Any) -> None:
        self.social, self.job = social, WatchedJob()
        self.request: RestoreRequest = social.request(*assets, **changes)

    def plan(self) -> RestorePlan:
        return plan_restore(self.social.world.config, self.social.world.paths, self.request)

    def run(self) -> JobResult:
        return self.social.restore(self.request, self.job)[0]

    def go_on(self, what: str) -> JobResult:
        return self.social.go_on(self.request, what)[0]


def answers(social: Restores) -> str:
    try:
        with urlopen(f"{social.host.web}/health", timeout=5) as answer:
            return str(answer.read().decode())
    except URLError as error:
        return str(error)


def states(social: Restores) -> dict[str, str]:
    return {unit: social.host.systemd.units[unit].active for unit in MASTODON}


UP = dict.fromkeys(MASTODON, "active")


def test_mastodon_is_down_for_a_moment_and_sidekiq_starts_last(social: Restores) -> None:
    good = social.counts()
    social.sql("DELETE FROM statuses")
    restored = Restored(social, Asset.DATABASE, Asset.SECRETS)
    assert [finding.text for finding in restored.plan().findings if finding.level == "ok"].count(
        f"{social.host.web}/health answers OK"
    ) == 1
    result = restored.run()
    assert result.state is JobState.DONE, result
    match = re.search(r"down for ([0-9.]+) s", result.detail)
    assert match is not None
    assert 0 < float(match[1]) < 10
    assert answers(social) == "OK"
    assert states(social) == UP
    begun = {unit: social.host.systemd.units[unit].starts[-1] for unit in (WEB, STREAMING_PORT, SIDEKIQ)}
    assert max(begun, key=lambda unit: begun[unit]) == SIDEKIQ
    stops = [line for line in restored.job.lines if line.startswith("systemctl stop")]
    assert stops[0] == f"systemctl stop {SIDEKIQ}"
    assert social.counts() == good
    assert any("the secrets open the signing keys" in line for line in restored.job.lines)

    assert restored.go_on("undo").state is JobState.DONE
    assert social.counts()["statuses"] == "0"
    assert states(social) == UP
    assert answers(social) == "OK"
    assert restored.go_on("forget").state is JobState.DONE
    again = Restored(social, Asset.DATABASE)
    assert again.run().state is JobState.DONE
    assert again.go_on("forget").state is JobState.DONE


def test_a_service_that_does_not_stop_is_named_and_nothing_is_swapped(social: Restores) -> None:
    social.host.systemd.stop_seconds = 0.3
    social.host.fault(STREAMING_PORT, Fault.STUCK)
    with as_it_was(social):
        restored = Restored(social, Asset.DATABASE, Asset.SECRETS)
        result = restored.run()
        assert result.state is JobState.FAILED
        assert "mastodon-streaming@4000 does not stop" in (result.error or "")
        assert "rolled back, the live server is as it was" in (result.error or "")
        assert "systemctl status mastodon-streaming@4000" in (result.next_step or "")
        social.host.fault(STREAMING_PORT, Fault.STUCK, on=False)
    assert answers(social) == "OK"
    assert states(social)[WEB] == states(social)[SIDEKIQ] == "active"


def test_a_service_that_must_be_killed_is_no_fault(social: Restores) -> None:
    social.host.systemd.stop_seconds = 0.3
    social.host.fault(SIDEKIQ, Fault.STUBBORN)
    restored = Restored(social, Asset.SECRETS)
    assert restored.run().state is JobState.DONE
    social.host.fault(SIDEKIQ, Fault.STUBBORN, on=False)
    assert states(social) == UP
    assert restored.go_on("forget").state is JobState.DONE


def test_health_that_never_comes_says_why_and_leaves_the_choice(
    social: Restores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_run, "HEALTH_SECONDS", 1.0)
    restored = Restored(social, Asset.DATABASE)
    social.host.fault(WEB, Fault.UNWELL)
    result = restored.run()
    assert result.state is JobState.FAILED
    assert "the new data is in place, but mastodon-web is not well after 1 s" in (result.error or "")
    assert f"{social.host.web}/health answers 5" in (result.error or "")
    assert "--resume" in (result.next_step or "")
    assert states(social)[SIDEKIQ] == "inactive", "Sidekiq delivers nothing before the site is well"
    social.host.fault(WEB, Fault.UNWELL, on=False)
    assert restored.go_on("resume").state is JobState.DONE
    assert states(social) == UP
    assert restored.go_on("undo").state is JobState.DONE
    assert states(social) == UP
    assert restored.go_on("forget").state is JobState.DONE


def test_a_service_that_does_not_start_is_named_with_its_last_words(social: Restores) -> None:
    restored = Restored(social, Asset.SECRETS)
    social.host.fault(WEB, Fault.BROKEN)
    began = time.monotonic()
    result = restored.run()
    assert result.state is JobState.FAILED
    assert "mastodon-web" in (result.error or "")
    assert time.monotonic() - began < 20
    social.host.fault(WEB, Fault.BROKEN, on=False)
    assert restored.go_on("undo").state is JobState.DONE
    assert states(social) == UP
    assert answers(social) == "OK"
    assert restored.go_on("forget").state is JobState.DONE


def test_what_did_not_run_before_is_not_started(social: Restores) -> None:
    social.host.systemd.stop([SIDEKIQ])
    restored = Restored(social, Asset.SECRETS)
    texts = [finding.text for finding in restored.plan().findings]
    assert "mastodon-sidekiq does not run now, and will not be started" in texts
    assert restored.run().state is JobState.DONE
    assert states(social) == {**UP, SIDEKIQ: "inactive"}
    assert restored.go_on("undo").state is JobState.DONE
    assert states(social) == {**UP, SIDEKIQ: "inactive"}
    assert restored.go_on("forget").state is JobState.DONE


def test_media_alone_stop_nothing(social: Restores) -> None:
    social.back_up(Asset.MEDIA)
    plan = Restored(social, Asset.MEDIA).plan()
    assert not [step for step in plan.steps if step.id.startswith("services")]
    assert "Mastodon's services: the site stays up" in plan.untouched


def test_feeds_are_built_when_redis_began_empty(social: Restores) -> None:
    request = social.request(Asset.DATABASE)
    restored = Restored(social, Asset.DATABASE)
    restored.request = dataclasses.replace(request, redis=RedisChoice.EMPTY, confirm="social")
    result = restored.run()
    assert result.state is JobState.DONE, result
    assert any("Regenerated feeds for" in line for line in restored.job.lines)
    with social.host.redis.client() as client:
        assert client.keys("feed:home:*")
        assert not client.llen("queue:push")
    assert ("building the feeds", None) in restored.job.steps
    assert restored.go_on("undo").state is JobState.DONE
    assert restored.go_on("forget").state is JobState.DONE


def test_an_older_dump_is_migrated_before_the_start(social: Restores) -> None:
    newest = social.sql("SELECT max(version) FROM schema_migrations")
    social.sql(f"DELETE FROM schema_migrations WHERE version = '{newest}'")
    social.back_up(Asset.DATABASE)
    restored = Restored(social, Asset.DATABASE)
    [step] = [step for step in restored.plan().steps if step.id == "services.migrate"]
    assert "bin/rails db:migrate" in step.commands[0]
    assert restored.run().state is JobState.DONE
    assert social.sql("SELECT max(version) FROM schema_migrations") == newest
    assert restored.go_on("forget").state is JobState.DONE


# --- secrets of another server


def other_keys(social: Restores) -> None:
    values = {**social.host.settings, **record_encryption_keys()}
    (social.host.root / ".env.production").write_text(written(values))


def test_secrets_of_another_server_are_told_before_anything_is_loaded(social: Restores) -> None:
    other_keys(social)
    with as_it_was(social):
        plan = Restored(social, Asset.DATABASE).plan()
        [blocked] = plan.blocked
        assert blocked.accept == "pair"
        assert "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY" in blocked.text
        assert social.host.settings["ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"] not in repr(plan)
        assert Restored(social, Asset.DATABASE).run().state is JobState.FAILED
    whole = Restored(social, Asset.DATABASE, Asset.SECRETS)
    assert whole.plan().blocked == ()


def test_secrets_of_another_server_do_not_open_the_restored_database(social: Restores) -> None:
    """The early word needs the settings that were backed up beside the dump; the proof needs nothing."""
    other_keys(social)
    for vault in social.world.vaults.values():
        for manifest in vault.glob("hosts/social/secrets/*/manifest.json"):
            manifest.unlink()
    with as_it_was(social):
        restored = Restored(social, Asset.DATABASE)
        assert restored.plan().blocked == ()
        result = restored.run()
        assert result.state is JobState.FAILED
        assert "the secrets do not open the signing keys" in (result.error or "")
        assert "type social/pair" in (result.next_step or "")
    assert answers(social) == "OK"

    class Typing(WatchedJob):
        def ask(self, prompt: str) -> Secret | None:
            return Secret("social/pair") if "Type social/pair" in prompt else None

    restored = Restored(social, Asset.DATABASE)
    restored.job = Typing()
    assert restored.run().state is JobState.DONE
    assert any("restored all the same" in text for text in restored.job.warnings)
    assert restored.go_on("forget").state is JobState.DONE
    accepted = Restored(social, Asset.DATABASE, accept=("pair",))
    assert accepted.run().state is JobState.DONE
    assert accepted.go_on("forget").state is JobState.DONE


def test_a_dump_of_another_domain_needs_its_word(social: Restores) -> None:
    values = {**social.host.settings, "LOCAL_DOMAIN": "elsewhere.example"}
    (social.host.root / ".env.production").write_text(written(values))
    with as_it_was(social):
        plan = Restored(social, Asset.DATABASE).plan()
        assert [finding.accept for finding in plan.blocked] == ["domain"]
        assert Restored(social, Asset.DATABASE, accept=("domain",)).plan().blocked == ()
        assert [finding.accept for finding in Restored(social, Asset.SECRETS).plan().blocked] == ["domain"]
