from __future__ import annotations

from dataclasses import replace

import pytest

from backends.model import Asset, HostState, JobState, Level
from tests.ui import given
from tui import jobs, rows

FOUND = jobs.entries(given.RUNS)


def keys(found: tuple[rows.FleetRow, ...]) -> list[str]:
    return [row.key for row in found]


def test_assets_of_a_host_that_is_away_are_one_row() -> None:
    found = rows.build(given.fleet(), FOUND, frozenset())
    row = next(row for row in found if row.host == "fedi.club")
    assert (row.name, row.level, row.stale) == ("4 assets", Level.UNKN, True)
    assert row.state(given.NOW)[0] == "OFFLINE since 05:12"
    assert row.targets == tuple(Asset)


def test_an_unfolded_host_shows_every_asset() -> None:
    found = rows.build(given.fleet(), FOUND, {"fedi.club"})
    assert sum(row.host == "fedi.club" for row in found) == 4


def test_a_folded_row_is_as_old_as_its_oldest_copy() -> None:
    row = next(row for row in rows.build(given.fleet(), (), frozenset()) if row.folded)
    assert row.at == given.before(hours=12.1)


def test_a_running_job_stands_in_the_state() -> None:
    found = {row.key: row for row in rows.build(given.fleet(), FOUND, frozenset())}
    assert found["toot.lan/database"].state(given.NOW)[0] == "running 42%"
    assert found["mstdn.art/secrets"].state(given.NOW)[0] == "queued"
    assert found["social.ex/redis"].state(given.NOW)[0] == "verified 6d ago"


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (HostState.LOGIN_FAILED, "LOGIN FAILED"),
        (HostState.HOST_KEY_CHANGED, "HOST KEY CHANGED ▲▲"),
        (HostState.HOST_KEY_UNKNOWN, "HOST KEY NOT ACCEPTED"),
        (HostState.NO_MASTODON, "NO MASTODON FOUND"),
        (HostState.FAILED, "ASKING FAILED"),
        (HostState.UNASKED, "not asked yet"),
    ],
)
def test_every_state_of_a_host_has_a_word(state: HostState, word: str) -> None:
    assert rows.host_state(given.host("x", state), given.NOW)[0] == word


def test_offline_for_days_says_the_day() -> None:
    seen = given.host("x", HostState.OFFLINE, since=given.before(days=3))
    assert rows.host_state(seen, given.NOW)[0] == "OFFLINE since 11-19"


def test_the_order_of_the_fleet_is_worst_first_and_turns_around() -> None:
    found = rows.build(given.fleet(), (), frozenset())
    down = rows.arrange(found, text="", column="risk", reverse=False, now=given.NOW)
    assert keys(down) == keys(found)
    up = rows.arrange(found, text="", column="risk", reverse=True, now=given.NOW)
    assert keys(up) == keys(found)[::-1]


@pytest.mark.parametrize("column", rows.COLUMNS)
def test_every_column_sorts(column: str) -> None:
    found = rows.build(given.fleet(), FOUND, frozenset())
    assert sorted(keys(rows.arrange(found, text="", column=column, reverse=False, now=given.NOW))) == sorted(
        keys(found)
    )


def test_age_puts_what_was_never_saved_first() -> None:
    found = rows.build(given.fleet(), (), frozenset())
    assert rows.arrange(found, text="", column="age", reverse=False, now=given.NOW)[0].key == "mstdn.art/secrets"


def test_a_lost_run_is_not_at_work() -> None:
    lost = next(entry for entry in FOUND if entry.lost)
    assert jobs.state(lost)[0] == "LOST ✗"
    assert ("toot.lan", Asset.MEDIA) not in jobs.at_work(FOUND)


def test_running_jobs_come_before_waiting_and_ended_ones() -> None:
    assert [entry.job.state for entry in FOUND[:3]] == [JobState.RUNNING, JobState.RUNNING, JobState.QUEUED]
    assert jobs.tally(FOUND) == "2 running, 1 queued"


def test_only_jobs_seen_at_work_have_an_outcome() -> None:
    job = replace(given.RUNNING.jobs[0], state=JobState.DONE)
    ended = replace(given.RUNNING, jobs=(job,), alive=False, ended_at=given.NOW)
    assert [entry.key for entry in jobs.outcomes(FOUND, jobs.entries((ended,)))] == [f"{ended.id}/database"]
    assert jobs.outcomes((), FOUND) == ()
