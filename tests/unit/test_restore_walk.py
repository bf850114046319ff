"""The walk through a restore: whatever happens, every step is done, or taken back, or known to be open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.config.schema import Config, HostConfig
from backends.errors import AssetFailed, Cancelled, ConnectionFailed, Locked, MastovaultError
from backends.model import Asset
from backends.operations import restore_walk
from backends.operations.restore_walk import Walk
from backends.progress import Job, QuietJob
from backends.restore.base import Action, Target, Work
from backends.restore.journal import Journal, new_journal, opened, read_journal
from backends.restore.plan import Phase, RestoreRequest, StepInfo

REQUEST = RestoreRequest(
    id="20261122t140211ab12",
    host="social",
    snapshots={Asset.DATABASE: "social/database/20261122T140211Z-01234567"},
    at=datetime(2026, 11, 22, tzinfo=UTC),
)
PHASES = (
    Phase.STAGE,
    Phase.STAGE,
    Phase.PROVE,
    Phase.STOP,
    Phase.SWAP,
    Phase.SWAP,
    Phase.START,
    Phase.HEALTH,
    Phase.AFTER,
)
CONFIG = Config(hosts={"social": HostConfig(address="local")})


class Killed(BaseException):
    """The process is gone in this moment."""


@dataclass
class World:
    """A machine whose whole state is which steps are in effect; `faults` says what happens at the n-th call."""

    faults: dict[int, BaseException] = field(default_factory=dict)
    in_effect: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def call(self, name: str, effect: Callable[[], None]) -> None:
        self.calls.append(name)
        fault = self.faults.pop(len(self.calls), None)
        if fault is not None and len(self.calls) % 2:
            raise fault
        effect()
        if fault is not None:  # the effect had happened when the line went dead
            raise fault

    def action(self, number: int, phase: Phase) -> Action:
        name = f"database.step{number}"

        def do(work: Work) -> None:
            self.call(f"do {number}", lambda: None if name in self.in_effect else self.in_effect.append(name))

        def undo(work: Work) -> None:
            def effect() -> None:
                if name in self.in_effect:
                    self.in_effect.remove(name)
                if work.way == "undo":
                    self.kept.add(name)

            self.call(f"undo {number}", effect)

        def forget(work: Work) -> None:
            self.call(f"forget {number}", lambda: self.kept.discard(name))

        info = StepInfo(id=name, asset=Asset.DATABASE, phase=phase, name=f"step {number}", what="")
        return Action(info=info, do=do, undo=undo, forget=forget)

    def actions(self) -> list[Action]:
        return [self.action(number, phase) for number, phase in enumerate(PHASES)]


class Line:
    """A line to a machine that always answers again."""

    def lose(self) -> None:
        """It is gone."""

    def connect(self, *_: Any, **__: Any) -> Any:
        """And back."""
        return None


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_walk, "pause", lambda _attempt: 0.0)
    monkeypatch.setattr(restore_walk, "find_target", lambda *_: TARGET)


TARGET = cast(Target, SimpleNamespace(name="social", connection=None))


def walk(journal: Journal, world: World, jobs: Mapping[Asset, Job] | None = None) -> Walk:
    return Walk(CONFIG, journal, world.actions(), {}, TARGET, cast(Any, Line()), jobs or {Asset.DATABASE: QuietJob()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_journal(tmp_path, REQUEST)


ALL = [f"database.step{number}" for number in range(len(PHASES))]


def test_every_step_is_done_in_order_and_the_journal_says_so(folder: Path) -> None:
    world = World()
    with opened(folder) as journal:
        assert walk(journal, world).forward() == "done"
    known, at_work = read_journal(folder)
    assert world.in_effect == ALL == known.begun == [*known.done]
    assert (known.state, at_work) == ("done", False)
    assert known.swapped_at is not None


@pytest.mark.parametrize("number", range(6))
def test_what_fails_before_the_new_data_is_live_is_rolled_back(folder: Path, number: int) -> None:
    world = World(faults={number + 1: AssetFailed("no room", "Make room.")})
    with (
        opened(folder) as journal,
        pytest.raises(AssetFailed, match="rolled back, the live server is") as why,
    ):
        walk(journal, world).forward()
    assert world.in_effect == []
    assert why.value.next_step == "Make room."
    assert read_journal(folder)[0].state == "rolled_back"


@pytest.mark.parametrize("number", [6, 7])
def test_what_fails_after_the_swap_is_said_and_can_be_continued_or_undone(folder: Path, number: int) -> None:
    world = World(faults={number + 1: AssetFailed("web does not answer", "Look at its log.")})
    with opened(folder) as journal, pytest.raises(AssetFailed, match="the new data is in place, but web") as why:
        walk(journal, world).forward()
    assert "--resume" in why.value.next_step
    assert "undo" in why.value.next_step
    assert read_journal(folder)[0].state == "attention"
    with opened(folder) as journal:
        assert walk(journal, world).forward() == "done"
    assert sorted(world.in_effect) == ALL


def test_feeds_that_cannot_be_built_make_it_done_in_part(folder: Path) -> None:
    world = World(faults={9: AssetFailed("tootctl failed")})
    with opened(folder) as journal:
        going = walk(journal, world)
        assert going.forward() == "done"
        assert going.warnings == ["step 8: tootctl failed"]


class CancelledAt(QuietJob):
    """A job that is cancelled when its n-th step begins."""

    def __init__(self, number: int) -> None:
        self.left = number

    def check_cancelled(self) -> None:
        if self.left == 0:
            raise Cancelled
        self.left -= 1


@pytest.mark.parametrize("number", range(6))
def test_a_cancel_before_the_end_of_the_swap_rolls_back(folder: Path, number: int) -> None:
    world = World()
    with opened(folder) as journal, pytest.raises(Cancelled, match="rolled back"):
        walk(journal, world, {Asset.DATABASE: CancelledAt(number)}).forward()
    assert world.in_effect == []


def test_a_cancel_after_the_swap_waits_until_mastodon_is_up(folder: Path) -> None:
    world = World()
    with opened(folder) as journal:
        going = walk(journal, world, {Asset.DATABASE: CancelledAt(6)})
        assert going.forward() == "done"
    assert world.in_effect == ALL[:-1]
    assert going.warnings == ["step 8: cancelled"]


def test_a_connection_that_comes_back_is_no_fault(folder: Path) -> None:
    world = World(faults={number: ConnectionFailed("cut") for number in (2, 4, 7)})
    with opened(folder) as journal:
        assert walk(journal, world).forward() == "done"
    assert world.in_effect == ALL


def test_a_way_back_that_is_barred_says_how_to_go_on(folder: Path) -> None:
    world = World(faults={3: AssetFailed("first"), 4: AssetFailed("second")})
    with opened(folder) as journal, pytest.raises(AssetFailed, match="first; rolling back stopped: second") as why:
        walk(journal, world).forward()
    assert f"--roll-back {REQUEST.id}" in why.value.next_step
    known, _ = read_journal(folder)
    assert known.state == "open"
    assert known.walk == "rollback"
    with opened(folder) as journal:
        assert walk(journal, world).back("rollback") == "rolled_back"
    assert world.in_effect == []


def test_an_undo_keeps_what_the_restore_brought_until_it_is_forgotten(folder: Path) -> None:
    world = World()
    with opened(folder) as journal:
        walk(journal, world).forward()
    with opened(folder) as journal:
        assert walk(journal, world).back("undo") == "undone"
    assert world.in_effect == []
    assert world.kept == set(ALL)
    with opened(folder) as journal:
        assert walk(journal, world).forget() == "forgotten"
    assert world.kept == set()


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_killed_anywhere_it_can_be_continued_or_rolled_back(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    folder = new_journal(tmp_path_factory.mktemp("state"), REQUEST)
    faults = data.draw(
        st.dictionaries(
            st.integers(1, 30),
            st.sampled_from([Killed, lambda: ConnectionFailed("cut"), lambda: AssetFailed("no")]),
            max_size=5,
        )
    )
    world = World(faults={at: cast(BaseException, fault()) for at, fault in faults.items()})
    for _ in range(40):
        known, _ = read_journal(folder)
        if known.state in {"done", "rolled_back", "undone"}:
            break
        onward = data.draw(st.booleans())
        try:
            with opened(folder) as journal:
                if known.walk or not onward:
                    walk(journal, world).back(known.walk or "rollback")
                else:
                    walk(journal, world).forward()
        except (Killed, MastovaultError):
            continue
    known, _ = read_journal(folder)
    assert known.state in {"done", "rolled_back"}
    must = ALL[:-1] if known.state == "done" else []  # feeds may fail
    assert sorted(set(world.in_effect) - {ALL[-1]} if must else world.in_effect) == must


def test_only_one_process_carries_a_restore_out(folder: Path) -> None:
    with opened(folder), pytest.raises(Locked, match="is at work"), opened(folder):
        pass
    with opened(folder):
        assert read_journal(folder)[1] is True


@given(st.binary(max_size=300))
def test_what_was_torn_or_scribbled_over_is_never_taken_for_a_step(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes
) -> None:
    folder = new_journal(tmp_path_factory.mktemp("state"), REQUEST)
    with opened(folder) as journal:
        journal.begin("database.load", live=False)
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(rubbish)
    with opened(folder) as journal:
        journal.done("database.load", 1.0)
    known, _ = read_journal(folder)
    assert "database.load" in known.begun
    assert known.done == {"database.load": 1.0}


def test_nothing_is_done_that_cannot_be_written_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with opened(folder) as journal:
        monkeypatch.setattr("os.write", full)
        with pytest.raises(MastovaultError, match="journal of the restore cannot be written"):
            walk(journal, world).forward()
    assert world.in_effect == []
