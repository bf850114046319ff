"""The steps of a restore, made from what was written down."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import MastovaultError
from backends.model import Asset
from backends.restore.parts import actions_of
from backends.restore.plan import RestoreRequest

REQUEST = RestoreRequest(
    id="20261122t140211ab12",
    host="social",
    snapshots={asset: f"social/{asset}/20261122T140211Z-01234567" for asset in Asset},
    at=datetime(2026, 11, 22, tzinfo=UTC),
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_without_facts_there_are_no_steps() -> None:
    assert actions_of(REQUEST, {}) == []


@pytest.mark.parametrize("part", ["secrets", "database", "media", "redis", "services"])
@given(facts=st.dictionaries(st.text(max_size=10), _ANYTHING, min_size=1, max_size=4))
def test_facts_of_another_version_end_in_a_sentence(part: str, facts: dict[str, object]) -> None:
    said = ""
    try:
        actions_of(REQUEST, {part: facts})
    except MastovaultError as error:
        said = f"{error.sentence} {error.next_step}"
    assert not said or part in said
