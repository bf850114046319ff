"""Media of a lab's host restored by the whole engine: planned, placed while the site is up, undone, forgotten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backends.lab.lab import Lab
from backends.model import Asset, JobState
from backends.operations.restore import plan_restore
from backends.operations.restores import restores
from backends.restore.plan import Phase
from tests.media_world import seen
from tests.restore_world import Faults, Restores
from tests.restore_world import faults as faults
from tests.runs_world import World


@pytest.fixture
def social(lab: Lab, tmp_path: Path, faults: Faults) -> Restores:
    made = Restores(World(lab, tmp_path))
    made.back_up(Asset.MEDIA)
    return made


def system(social: Restores) -> Path:
    return social.host.root / "public" / "system"


def test_lost_uploads_come_back_without_a_stop_and_go_again(social: Restores) -> None:
    root = system(social)
    good = seen(root)
    kept = root.with_name("kept")
    shutil.copytree(root, kept, symlinks=True)
    try:
        shutil.rmtree(root / "media_attachments")
        damaged = seen(root)
        request = social.request(Asset.MEDIA)
        plan = plan_restore(social.world.config, social.world.paths, request)
        assert plan.blocked == ()
        assert plan.confirm == "social/media"
        assert {step.id for step in plan.steps} == {"media.stage", "media.place"}
        assert Phase.STOP not in {step.phase for step in plan.steps}
        [result] = social.restore(request)
        assert result.state is JobState.DONE, result
        assert seen(root) == good
        assert social.record(request).can == ("undo", "forget")
        [result] = social.go_on(request, "undo")
        assert result.state is JobState.DONE, result
        assert seen(root) == damaged
        [result] = social.go_on(request, "forget")
        assert result.state is JobState.DONE, result
        assert social.leftovers() == []
    finally:
        shutil.rmtree(root)
        kept.rename(root)


def test_cut_at_any_command_the_engine_goes_on(social: Restores, faults: Faults) -> None:
    root = system(social)
    good = seen(root)
    begun = 0
    for at in range(2, 200, 3):
        shutil.rmtree(root / "site_uploads")
        faults.count, faults.at = 0, at
        request = social.request(Asset.MEDIA, subtree="site_uploads")
        [result] = social.restore(request)
        count, faults.at = faults.count, None
        if not [record for record in restores(social.world.paths) if record.id == request.id]:
            assert result.state is JobState.FAILED, (at, result)  # cut while it only looked: nothing had begun
            [result] = social.restore(request)
        else:
            begun += 1
        assert result.state is JobState.DONE, (at, result)
        assert seen(root) == good
        social.go_on(request, "forget")
        assert social.leftovers() == []
        if count < at:
            break
    assert begun > 2


def test_a_host_whose_media_are_at_a_provider_has_nothing_to_restore(social: Restores) -> None:
    away = next(name for name, host in social.world.lab.hosts.items() if host.settings.get("S3_ENABLED") == "true")
    plan = plan_restore(social.world.config, social.world.paths, social.request(Asset.MEDIA, host=away))
    assert not [step for step in plan.steps if step.asset is Asset.MEDIA]
    assert any("are kept by" in found.text for found in plan.findings)
