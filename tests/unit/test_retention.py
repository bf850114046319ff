"""What is kept and what may go."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.catalog import Catalog
from backends.config.schema import Config, Policy
from backends.errors import ConfigurationError
from backends.model import Asset, SnapshotInfo
from backends.operations.choose import RestorePoint, points
from backends.retention import Verdict, judge, policy_words

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def config(retention: dict[str, Any], **own: Any) -> Config:
    return Config.model_validate({"retention": retention, "hosts": {"social": {"address": "x", **own}}})


def snapshot(age: timedelta, asset: Asset = Asset.DATABASE, run: str = "", **more: Any) -> SnapshotInfo:
    at = NOW - age
    mark = f"{at:%Y%m%dT%H%M%SZ}-{more.pop('mark', 0):08x}"
    known: dict[str, Any] = {"bytes": 9, "vaults": ("v",), "run": run or mark, **more}
    return SnapshotInfo(id=f"social/{asset}/{mark}", host="social", asset=asset, at=at, **known)


def kept(verdicts: list[Verdict]) -> set[str]:
    return {verdict.snapshot.id for verdict in verdicts if verdict.keep}


def why(verdicts: list[Verdict], wanted: SnapshotInfo) -> str:
    return "; ".join(next(each.why for each in verdicts if each.snapshot.id == wanted.id))


def test_days_weeks_months_and_years() -> None:
    every = [snapshot(number * 12 * HOUR) for number in range(800)]
    found = judge(every, config({"daily": 3, "weekly": 2, "monthly": 2, "yearly": 2}), "social", NOW)
    dates = sorted({f"{each.snapshot.at:%Y-%m-%d %H}" for each in found if each.keep}, reverse=True)
    assert dates == [
        "2026-11-22 14",
        "2026-11-21 14",
        "2026-11-20 14",
        "2026-11-15 14",
        "2026-10-31 14",
        "2025-12-31 14",
    ]
    assert why(found, every[0]) == (
        "the last good one; daily 2026-11-22; weekly 2026-W47; monthly 2026-11; yearly 2026"
    )
    assert why(found, every[20]) == "beyond daily 3, weekly 2, monthly 2, yearly 2"


def test_last_and_within() -> None:
    every = [snapshot(number * HOUR) for number in range(50)]
    found = judge(every, config({"last": 2, "within": "12h"}), "social", NOW)
    assert kept(found) == {each.id for each in every[:12]}
    assert policy_words(config({"last": 2, "within": "12h"}).retention) == "last 2, within 12h"
    assert policy_words(config({"daily": 7, "within": "14d"}).retention) == "daily 7, within 14d"


def test_a_good_one_fills_its_day_before_one_in_part_or_damaged() -> None:
    good, part, bad = snapshot(3 * HOUR), snapshot(2 * HOUR, in_part=True), snapshot(HOUR, verify_failed=True)
    old_part, old_bad = snapshot(2 * DAY, in_part=True), snapshot(2 * DAY - HOUR, verify_failed=True)
    found = judge([bad, part, good, old_bad, old_part], config({"daily": 9}), "social", NOW)
    assert kept(found) == {good.id, part.id, old_part.id}
    assert "daily 2026-11-22" in why(found, good)
    assert why(found, part) == "newer than the last good one"
    assert why(found, bad).startswith("damaged, beyond")


def test_the_last_good_and_the_proven_one_always_stay() -> None:
    proven = snapshot(90 * DAY, drilled_at=NOW - 80 * DAY)
    older_proof = snapshot(91 * DAY, drilled_at=NOW - 85 * DAY)
    failed = snapshot(70 * DAY, drilled_at=NOW - 75 * DAY, drill_failed=True)
    good = snapshot(60 * DAY)
    bad = [snapshot(number * DAY, verify_failed=True) for number in range(1, 5)]
    found = judge([*bad, good, failed, proven, older_proof], config({"last": 1}), "social", NOW)
    assert kept(found) == {good.id, proven.id}
    assert why(found, proven) == "proven by the last drill"


def test_only_damaged_ones_leave_the_newest() -> None:
    bad = [snapshot(number * DAY, verify_failed=True) for number in range(1, 5)]
    assert kept(judge(bad, config({"last": 1}), "social", NOW)) == {bad[0].id}


def test_what_was_dated_in_the_future_stays_and_counts_for_nothing() -> None:
    future, good = snapshot(-48 * HOUR), snapshot(HOUR)
    found = judge([future, good, snapshot(DAY)], config({"last": 1}), "social", NOW)
    assert kept(found) == {future.id, good.id}
    assert "clock" in why(found, future)


def test_a_kept_database_keeps_its_secrets_media_and_redis() -> None:
    databases = [snapshot(number * DAY, run=f"r{number}") for number in range(5)]
    media = [snapshot(number * DAY, Asset.MEDIA, run=f"r{number}") for number in range(5)]
    secrets = [snapshot(30 * DAY, Asset.SECRETS), snapshot(2.5 * DAY, Asset.SECRETS), snapshot(HOUR, Asset.SECRETS)]
    found = judge([*databases, *media, *secrets], config({"last": 1, "database": {"last": 4}}), "social", NOW)
    assert kept(found) == {each.id for each in (*databases[:4], *media[:4], *secrets)}
    assert "belongs to the database of 2026-11-19" in why(found, secrets[0])

    own = config({"last": 1, "database": {"last": 4}, "media": {"last": 2}})
    found = judge([*databases, *media, *secrets], own, "social", NOW)
    assert kept(found) == {each.id for each in (*databases[:4], *media[:2], *secrets)}, (
        "media have a policy of their own"
    )


def test_secrets_of_later_are_better_than_none() -> None:
    database = snapshot(5 * DAY)
    secrets = [snapshot(number * DAY, Asset.SECRETS) for number in range(3)]
    found = judge([database, *secrets], config({"last": 1}), "social", NOW)
    assert kept(found) == {database.id, secrets[0].id, secrets[2].id}


@pytest.mark.parametrize(
    "more", [{"signature": "none"}, {"signature": "bad", "signer": "x"}, {"signature": "good", "signer": "y"}]
)
def test_what_somebody_else_put_there_counts_for_nothing_and_stays(more: dict[str, Any]) -> None:
    judged = Config.model_validate(
        {"retention": {"last": 1}, "signers": {"us": "x"}, "hosts": {"social": {"address": "x"}}}
    )
    ours = [snapshot(number * DAY, signature="good", signer="x") for number in range(1, 4)]
    planted = [snapshot(number * HOUR, mark=number, **more) for number in range(1, 9)]
    found = judge([*planted, *ours], judged, "social", NOW)
    assert kept(found) == {ours[0].id, *(each.id for each in planted)}
    assert "removed by nobody but you" in why(found, planted[0])


def test_unknown_hosts_and_empty_policies() -> None:
    every = [snapshot(number * DAY) for number in range(3)]
    assert kept(judge(every, config({"last": 1}), "gone", NOW)) == {each.id for each in every}
    nothing = Config.model_construct(retention=Policy(), hosts=config({"last": 1}).hosts)
    object.__setattr__(nothing, "retention", config({"last": 1}).retention.model_copy(update={"last": 0}))
    with pytest.raises(ConfigurationError, match="keeps nothing"):
        judge(every, nothing, "social", NOW)


def points_of(every: Iterable[SnapshotInfo]) -> dict[str, RestorePoint]:
    """The restore points as they would be chosen, by run."""

    class Held(Catalog):
        def __init__(self) -> None:
            self._signers = {}

        def snapshots(self, host: str | None = None, asset: Asset | None = None) -> list[SnapshotInfo]:
            return sorted(every, key=lambda each: (each.at, each.id), reverse=True)

    return {point.run: point for point in points(Held(), "social")}


def test_a_point_is_as_old_as_its_last_part() -> None:
    """The media came last, after the secrets had changed: its point has the new secrets, and without it the old."""
    database, media = snapshot(5 * DAY, run="r"), snapshot(4 * DAY, Asset.MEDIA, run="r")
    secrets = [snapshot(number * DAY + HOUR, Asset.SECRETS) for number in (6, 4, 1)]
    every = [database, media, *secrets]
    its = config({"last": 1, "media": {"last": 1}, "database": {"last": 1}})
    assert kept(judge(every, its, "social", NOW)) == {each.id for each in every}
    assert points_of(every)["r"].older[Asset.SECRETS] == secrets[1]
    assert points_of([database, *secrets])["r"].older[Asset.SECRETS] == secrets[0]


def test_what_another_vault_needs_stays() -> None:
    here = [snapshot(number * DAY, Asset.SECRETS) for number in (9, 5, 1)]
    there = [snapshot(8 * DAY), snapshot(4 * DAY)]
    its = config({"last": 1})
    assert kept(judge(here, its, "social", NOW)) == {here[2].id}
    found = judge(here, its, "social", NOW, beside=[there])
    assert kept(found) == {here[1].id, here[2].id}, "of the older database there is nothing to keep"
    damaged = replace(here[1], verify_failed=True)
    found = judge([here[0], damaged, here[2]], its, "social", NOW, beside=[there])
    assert kept(found) == {here[0].id, here[2].id}, "a damaged copy is of no use"
    found = judge([here[0], damaged, here[2]], its, "social", NOW, beside=[[*there, here[1]]])
    assert kept(found) == {here[2].id}, "the good copy of it stays where it is"


def test_what_a_database_needs_that_cannot_be_read() -> None:
    secrets = [snapshot(number * DAY, Asset.SECRETS) for number in (9, 7, 4, 1)]
    lost = snapshot(5 * DAY).id
    found = judge(secrets, config({"last": 1}), "social", NOW, unread=[lost, "social/media/20261101T000000Z-00000000"])
    assert kept(found) == {each.id for each in secrets[1:]}
    assert "cannot be read" in why(found, secrets[1])
    odd = "social/database/20269999T000000Z-00000000"
    assert kept(judge(secrets, config({"last": 1}), "social", NOW, unread=[odd])) == {secrets[3].id}


def test_an_object_lock_keeps_a_database_and_its_secrets() -> None:
    databases = [snapshot(number * DAY) for number in (5, 1)]
    secrets = [snapshot(number * DAY, Asset.SECRETS) for number in (9, 6, 2)]
    until = NOW + 3 * DAY
    found = judge([*databases, *secrets], config({"last": 1}), "social", NOW, locked={databases[0].id: until})
    assert kept(found) == {databases[0].id, databases[1].id, secrets[1].id, secrets[2].id}
    assert why(found, databases[0]) == "under an Object Lock until 2026-11-25T14:00:00Z"
    held = judge(
        databases, config({"last": 1}), "social", NOW, locked={databases[0].id: datetime.max.replace(tzinfo=UTC)}
    )
    assert why(held, databases[0]) == "under an Object Lock for ever"


def test_a_proof_whose_copy_is_damaged_is_none_while_there_is_another() -> None:
    damaged = snapshot(5 * DAY, drilled_at=NOW - DAY, verify_failed=True)
    sound = snapshot(9 * DAY, drilled_at=NOW - 8 * DAY)
    newest = snapshot(HOUR)
    assert kept(judge([damaged, sound, newest], config({"last": 1}), "social", NOW)) == {sound.id, newest.id}
    assert kept(judge([damaged, newest], config({"last": 1}), "social", NOW)) == {damaged.id, newest.id}


def test_many_databases_make_one_reason() -> None:
    databases = [snapshot(number * DAY) for number in range(9)]
    secrets = snapshot(20 * DAY, Asset.SECRETS)
    found = judge([*databases, secrets], config({"last": 1, "database": {"last": 9}}), "social", NOW)
    assert "belongs to 9 databases, 2026-11-14 14:00 to 2026-11-22 14:00" in why(found, secrets)


def test_ten_thousand_are_judged_at_once() -> None:
    every = [snapshot(number * HOUR, asset, run=f"r{number}") for number in range(2500) for asset in Asset]
    began = time.monotonic()
    judge(every, config({"within": "365d"}), "social", NOW)
    assert time.monotonic() - began < 5


POLICIES = st.fixed_dictionaries(
    {name: st.integers(0, 4) for name in ("last", "daily", "weekly", "monthly", "yearly")}
).filter(lambda policy: any(policy.values()))
SNAPSHOTS = st.lists(
    st.builds(
        snapshot,
        st.integers(-50, 20_000).map(lambda hours: hours * HOUR),
        st.sampled_from(Asset),
        run=st.sampled_from(["", "r1", "r2", "r3"]),
        mark=st.integers(0, 1 << 31),
        in_part=st.booleans(),
        verify_failed=st.booleans(),
        drilled_at=st.none() | st.integers(0, 90).map(lambda days: NOW - days * DAY),
        drill_failed=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda each: each.id,
)


@settings(max_examples=100, deadline=None)
@given(SNAPSHOTS, POLICIES, st.booleans(), st.data())
def test_restore_points_stay_what_they_are(
    every: list[SnapshotInfo], policy: dict[str, int], own: bool, data: st.DataObject
) -> None:
    """Over two vaults: each database that is kept anywhere still finds the best parts there ever were."""
    retention: dict[str, Any] = {**policy, "media": {"last": 1}} if own else {**policy}
    its = config(retention)
    bound = [Asset.SECRETS, Asset.REDIS, *([] if own else [Asset.MEDIA])]
    places = [data.draw(st.sampled_from(["a", "b", "ab"])) for _ in every]
    vaults = [[each for each, place in zip(every, places, strict=True) if name in place] for name in "ab"]
    verdicts = [judge(vault, its, "social", NOW, beside=[other]) for vault, other in (vaults, reversed(vaults))]
    left = {each.snapshot.id: each.snapshot for found in verdicts for each in found if each.keep}
    good = [each for each in every if not each.verify_failed]
    after = points_of([each for each in good if each.id in left])
    for run, point in after.items():
        if Asset.DATABASE not in point.own:
            continue
        for asset in bound:
            same_run = [each for each in good if each.asset is asset and each.run == run]
            before = [each for each in good if each.asset is asset and each.at <= point.at]
            best = max(same_run or before, key=lambda each: (each.at, each.id), default=None)
            assert best is None or point.snapshots[asset] == best


@settings(max_examples=150, deadline=None)
@given(SNAPSHOTS, POLICIES)
def test_what_always_holds(every: list[SnapshotInfo], policy: dict[str, int]) -> None:
    its = config(policy)
    found = judge(every, its, "social", NOW)
    assert {each.snapshot.id for each in found} == {each.id for each in every}
    assert all(verdict.why and all(verdict.why) for verdict in found)
    left = [verdict.snapshot for verdict in found if verdict.keep]
    assert kept(judge(left, its, "social", NOW)) == {each.id for each in left}, "nothing more goes the next time"
    for asset in Asset:
        past = [each for each in every if each.asset is asset and each.at <= NOW]
        good = [each for each in past if not (each.verify_failed or each.in_part)]
        if good:
            assert max(good, key=lambda each: (each.at, each.id)) in left
        assert not past or any(each.asset is asset for each in left)
        proven = [each for each in past if each.drilled_at and not each.drill_failed]
        assert not proven or any(each in left for each in proven)
    databases = [each for each in left if each.asset is Asset.DATABASE and not each.verify_failed and each.at <= NOW]
    secrets = [each for each in every if each.asset is Asset.SECRETS and not each.verify_failed and each.at <= NOW]
    if databases and secrets:
        assert any(each in left for each in secrets)


@settings(max_examples=100, deadline=None)
@given(SNAPSHOTS, POLICIES, POLICIES)
def test_a_larger_policy_keeps_all_that_a_smaller_one_does(
    every: list[SnapshotInfo], policy: dict[str, int], more: dict[str, int]
) -> None:
    larger = {name: policy[name] + more[name] for name in policy}
    small, large = (kept(judge(every, config(its), "social", NOW)) for its in (policy, larger))
    assert small <= large
