"""A whole host onto an empty one, and back to emptiness."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.lab.lab import Lab
from backends.model import Asset, JobState
from backends.operations.restore import plan_restore
from tests.restore_world import Faults, Restores
from tests.restore_world import faults as faults
from tests.runs_world import World


@pytest.fixture
def social(living_lab: Lab, tmp_path: Path, faults: Faults) -> Restores:
    made = Restores(World(living_lab, tmp_path))
    made.back_up()
    return made


@pytest.fixture
def spare(living_lab: Lab, social: Restores) -> Restores:
    return Restores(social.world, "spare")


def test_a_whole_host_onto_an_empty_one_and_undone(social: Restores, spare: Restores) -> None:
    before = social.counts()
    request = social.request(host="spare")
    plan = plan_restore(social.world.config, social.world.paths, request)
    assert plan.blocked == (), plan.blocked
    assert plan.confirm == "spare"
    results = social.restore(request)
    assert {result.state for result in results} == {JobState.DONE}, results
    assert spare.sql("SELECT count(*) FROM statuses", social.host.database.name) == before["statuses"]
    environment = (spare.host.root / ".env.production").read_text()
    assert "LOCAL_DOMAIN=social.example" in environment
    assert social.counts() == before, "the source is untouched"
    assert (spare.host.root / "public/system/accounts").is_dir()

    assert {result.state for result in social.go_on(request, "undo")} == {JobState.DONE}
    assert not (spare.host.root / ".env.production").exists()
    assert {result.state for result in social.go_on(request, "forget")} == {JobState.DONE}
    assert spare.leftovers() == []
    names = spare.sql("SELECT string_agg(datname, ' ') FROM pg_database WHERE NOT datistemplate", "postgres")
    assert names == "postgres"


def test_onto_a_host_with_another_domain_only_by_its_own_word(social: Restores) -> None:
    request = social.request(Asset.SECRETS, host="club")
    [blocked] = plan_restore(social.world.config, social.world.paths, request).blocked
    assert blocked.accept == "domain"
    [result] = social.restore(request)
    assert result.state is JobState.FAILED
    assert "club/domain" in (result.next_step or "")
