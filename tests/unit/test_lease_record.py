"""What stands in a lease, whose process wrote it, and when it is over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.vault import lease_owner
from backends.vault.lease_clock import MachineTicker, VaultClock, is_over
from backends.vault.lease_owner import LIVE, Owner, _digest, is_gone, this_process
from backends.vault.lease_record import MAX_TTL, UNKNOWN, Record, encode, holder, new_record, parse

NAME = "social/media/write"
TTL = timedelta(seconds=60)
MADE = "social/media/20261122T140211Z-1f0a9c3e"


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    LIVE.clear()
    _digest.cache_clear()


def test_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    me = this_process()
    LIVE.add("a" * 16)
    assert not is_gone(me, "a" * 16)
    assert is_gone(me, "b" * 16), "this process has let go of it"
    parent = replace(me, pid=os.getppid(), started=0)
    assert not is_gone(parent, "b" * 16)
    assert is_gone(replace(parent, started=1), "b" * 16), "another process has that number now"
    assert is_gone(replace(me, pid=2**22 + 7, started=1), "b" * 16)
    assert is_gone(replace(me, pid=2**62), "b" * 16)
    for unknown in (replace(me, machine="another"), replace(me, machine=""), replace(me, pid=0), replace(me, pid=-1)):
        assert not is_gone(unknown, "b" * 16)
    monkeypatch.setattr(lease_owner, "_machine", lambda: "")
    assert not is_gone(replace(me, machine="", pid=2**22 + 7), "b" * 16)


def test_a_machine_without_an_id_knows_its_own_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an image that has never been booted, and most containers."""
    monkeypatch.setattr(lease_owner, "_MACHINE_ID", tmp_path / "none")
    _digest.cache_clear()
    me = this_process()
    assert me.machine
    assert is_gone(replace(me, pid=2**22 + 7, started=1), "b" * 16)
    monkeypatch.setattr(lease_owner, "_BOOT_ID", tmp_path / "none")
    _digest.cache_clear()
    assert not this_process().machine, "of which boot a pid is cannot be told"


def test_when_it_is_over() -> None:
    at = datetime(2026, 11, 23, 1, 2, 3, 500_000, tzinfo=UTC)
    ttl = timedelta(minutes=5)
    assert not is_over(at, at + timedelta(seconds=329), ttl)
    assert is_over(at, at + timedelta(seconds=331), ttl)
    assert not is_over(at.replace(microsecond=0), at + timedelta(seconds=330), ttl), "whole seconds are coarse"
    assert is_over(at, at - timedelta(seconds=331), ttl)
    assert abs(VaultClock(MachineTicker()).now() - datetime.now(UTC)) < timedelta(seconds=5)


WORDS = st.text(max_size=30)
HOSTILE = st.dictionaries(
    st.sampled_from([*json.loads(encode(UNKNOWN)), "more"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        WORDS,
        st.lists(WORDS, max_size=3),
        st.dictionaries(WORDS, WORDS, max_size=2),
    ),
)


@settings(max_examples=150, deadline=None)
@given(HOSTILE, st.binary(max_size=60))
def test_what_stands_in_a_lease_is_not_believed(document: dict[str, Any], noise: bytes) -> None:
    good = json.loads(encode(new_record("a" * 16, run="r", doing="backed up", ttl=TTL)))
    for data in (noise, json.dumps(document).encode(), json.dumps({**good, **document}).encode()):
        found = parse(data)
        assert found.state in ("claim", "held", "released")
        assert timedelta(0) < found.ttl <= MAX_TTL
        sentence = holder(found, NAME, "v").sentence
        assert len(sentence) < 700
        assert sentence.isprintable()
        is_gone(found.owner, found.token)


@given(
    st.builds(
        Record,
        state=st.sampled_from(["claim", "held", "released"]),
        token=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
        owner=st.builds(
            Owner, WORDS.map(lambda text: "u"), st.just("h"), st.just("m"), st.integers(0, 2**31), st.integers(0, 2**40)
        ),
        run=st.just("20261122T140209Z-social-5d1e"),
        doing=st.just("pruned"),
        since=st.just("2026-11-22T14:02:09Z"),
        ttl=st.timedeltas(min_value=timedelta(milliseconds=1), max_value=MAX_TTL),
        wrote=st.lists(st.just(MADE), max_size=1).map(tuple),
    )
)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert parse(encode(record)) == record
