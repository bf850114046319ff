"""The shared values keep their promises."""

from __future__ import annotations

import pickle

import pytest

from backends.model import Asset, JobState, Secret


def test_assets_are_in_order_of_impact() -> None:
    impacts = [asset.impact for asset in Asset]
    assert impacts == sorted(impacts, reverse=True)


def test_a_secret_never_shows_itself() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret:>20} {[secret]}"
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_jobs_end_in_four_ways() -> None:
    assert {state for state in JobState if state.ended} == {
        JobState.DONE,
        JobState.FAILED,
        JobState.SKIPPED,
        JobState.CANCELLED,
    }
