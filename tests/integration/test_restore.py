"""Whole restores on the lab: in place, undone, cut, killed, continued and rolled back."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from backends.lab.lab import Lab
from backends.model import Asset, JobResult, JobState
from backends.operations.locks import hold
from backends.operations.restore import plan_restore
from backends.operations.restores import restores
from tests.restore_world import Faults, Restores, as_it_was
from tests.restore_world import faults as faults
from tests.runs_world import World
from tests.servers.backup import WatchedJob

STRIDE = 1 if os.environ.get("MASTOVAULT_TEST_EVERY_STEP") else 2
"""Each step takes a whole restore; those between are much like their neighbours."""


@pytest.fixture
def social(living_lab: Lab, tmp_path: Path, faults: Faults) -> Restores:
    made = Restores(World(living_lab, tmp_path))
    made.back_up()
    return made


def states(results: list[JobResult]) -> set[JobState]:
    return {result.state for result in results}


def test_the_plan_of_a_whole_host_changes_nothing_and_names_every_step(social: Restores) -> None:
    with as_it_was(social):
        plan = plan_restore(social.world.config, social.world.paths, social.request())
    assert plan.blocked == ()
    assert plan.confirm == "social"
    phases = [step.phase for step in plan.steps]
    assert phases == sorted(phases)
    assert {step.id.partition(".")[0] for step in plan.steps} >= {"database", "services", "redis", "secrets"}
    assert all(step.commands for step in plan.steps if step.phase.live)


def test_a_dropped_table_comes_back_and_the_damage_can_be_had_again(social: Restores) -> None:
    good = social.counts()
    social.sql("DROP TABLE statuses CASCADE")
    damaged = social.counts()
    request = social.request(Asset.DATABASE)
    results = social.restore(request)
    assert states(results) == {JobState.DONE}, results
    assert social.counts() == good
    assert social.record(request).can == ("undo", "forget")
    assert social.databases() == [f"{social.host.database.name}_before_{request.id}"]

    assert states(social.go_on(request, "undo")) == {JobState.DONE}
    assert social.counts() == damaged
    assert states(social.go_on(request, "forget")) == {JobState.DONE}
    assert social.databases() == []

    again = social.request(Asset.DATABASE)
    assert states(social.restore(again)) == {JobState.DONE}
    assert states(social.go_on(again, "forget")) == {JobState.DONE}
    assert social.counts() == good
    assert social.databases() == []


def test_a_whole_host_comes_back_and_is_forgotten(social: Restores) -> None:
    with as_it_was(social):
        request = social.request()
        results = social.restore(request)
        assert states(results) == {JobState.DONE}, results
        assert states(social.go_on(request, "forget")) == {JobState.DONE}


def test_a_whole_host_is_undone(social: Restores) -> None:
    with as_it_was(social):
        request = social.request()
        assert states(social.restore(request)) == {JobState.DONE}
        assert states(social.go_on(request, "undo")) == {JobState.DONE}
        assert states(social.go_on(request, "forget")) == {JobState.DONE}


def test_without_the_typed_name_nothing_happens(social: Restores) -> None:
    with as_it_was(social):
        request = dataclasses.replace(social.request(Asset.DATABASE), confirm="social/redis")
        [result] = social.restore(request)
    assert result.state is JobState.FAILED
    assert "must be confirmed by typing social/database" in (result.error or "")
    assert result.exit_code == 2


def test_a_second_restore_and_a_backup_are_told_who_is_at_work(social: Restores) -> None:
    with as_it_was(social), hold(social.world.paths.state_dir, "social", Asset.MEDIA, "other", "restored"):
        [result] = social.restore(social.request(Asset.DATABASE))
    assert result.exit_code == 11
    assert "social/media is being restored by" in (result.error or "")


def test_a_line_that_is_cut_at_any_command_and_comes_back_makes_no_difference(social: Restores, faults: Faults) -> None:
    first = social.request()
    faults.count = 0
    assert states(social.restore(first)) == {JobState.DONE}
    total = faults.count
    assert states(social.go_on(first, "forget")) == {JobState.DONE}
    with as_it_was(social):
        for at in range(3, total, max(1, total // 4)):
            faults.count, faults.at = 0, at
            request = social.request()
            results = social.restore(request)
            faults.at = None
            assert states(results) == {JobState.DONE}, (at, results)
            assert states(social.go_on(request, "forget")) == {JobState.DONE}


@pytest.mark.parametrize("choice", ["resume", "rollback"])
def test_a_host_that_goes_away_leaves_a_choice(social: Restores, faults: Faults, choice: str) -> None:
    request = social.request()
    faults.count = 0
    assert states(social.restore(request)) == {JobState.DONE}
    total = faults.count
    assert states(social.go_on(request, "forget")) == {JobState.DONE}
    seen = 0
    with as_it_was(social):
        for at in range(9 if choice == "resume" else 12, total, max(1, total // 3)):
            faults.count, faults.at, faults.dead = 0, at, True
            request = social.request()
            results = social.restore(request)
            faults.at, faults.dead = None, False
            assert states(results) == {JobState.FAILED}, (at, results)
            found = [record for record in restores(social.world.paths) if record.id == request.id]
            if not found or not found[0].can:
                continue  # it had not begun
            seen += 1
            can = found[0].can
            what = choice if choice in can else "resume" if choice == "rollback" else can[0]
            if what == "rollback" or "undo" not in can:
                assert choice in can, (at, found)
            went = social.go_on(request, what)
            assert states(went) == {JobState.DONE}, (at, went)
            after = social.record(request)
            if "forget" in after.can:
                social.go_on(request, "forget")
    assert seen > 1


def test_a_cancel_at_any_step_takes_everything_back(social: Restores) -> None:
    plan = plan_restore(social.world.config, social.world.paths, social.request())
    with as_it_was(social):
        for step in plan.steps[::STRIDE]:
            job = CancelledAt(step.name)
            request = social.request()
            results = social.restore(request, job)
            if job.hit and states(results) == {JobState.CANCELLED}:
                assert social.record(request).state == "rolled_back"
            else:
                assert states(social.go_on(request, "forget")) == {JobState.DONE}


class CancelledAt(WatchedJob):
    """A job that is cancelled as soon as one step begins."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name, self.hit = name, False

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        super().step(name, total, unit)
        if name == self._name and not self.hit:
            self.hit = True
            self.cancel()
