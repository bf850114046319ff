"""Several runs want one lease: whatever the order of their steps, one at most holds it, and somebody gets it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.errors import LeaseLost, Locked
from backends.vault import lease_owner, lease_record
from backends.vault.base import Vault
from backends.vault.lease import Lease, take_lease
from backends.vault.lease_owner import LIVE, Owner
from tests.contract.lagging import LaggingVault
from tests.contract.model_vault import ModelVault
from tests.contract.stepping import Schedule, SteppedVault, Task

NAME = "social/media/write"
TTL = timedelta(seconds=20)
SECONDS = TTL.total_seconds()
MANY = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _a_machine_each(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every task is on a machine of its own: only time tells that one is gone."""

    def process() -> Owner:
        name = threading.current_thread().name
        return Owner(user="u", host=name, machine=name, pid=1, started=1)

    monkeypatch.setattr(lease_owner, "this_process", process)
    monkeypatch.setattr(lease_record, "this_process", process)
    yield
    LIVE.clear()


@dataclass
class Run:
    """What one run does once it has the lease, and what has become of it."""

    pauses: list[float]
    """Seconds between the things it does."""
    kill_at: int = -1
    wait: float = 0.0
    delay: float = 0.0
    lease: Lease | None = None
    released: bool = False
    took: int = 0
    """In which order it got the lease."""
    lost: bool = False
    locked: bool = False
    passed: int = 0
    """Checks that went well."""


@dataclass
class World:
    """A schedule, a vault, and the runs on it."""

    choices: list[int]
    atomic: bool
    jump: tuple[float, float] = (0.0, 0.0)
    """At this second the vault's clock jumps by so many."""
    view: Callable[[ModelVault, Callable[[], float]], Vault] = lambda vault, now: vault
    runs: list[Run] = field(default_factory=list)
    took: int = 0
    begun: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.choices, self.look)
        self.model = ModelVault(self.time, atomic=self.atomic)
        self.shown = self.view(self.model, lambda: self.schedule.clock)

    def time(self) -> float:
        at, by = self.jump
        return self.schedule.clock + (by if by and self.schedule.clock >= at else 0.0)

    def add(self, run: Run) -> None:
        self.runs.append(run)
        task = self.schedule.add(lambda task: self.work(task, run))
        task.kill_at = run.kill_at

    def work(self, task: Task, run: Run) -> None:
        seen = self.shown.also(self.shown.lag) if isinstance(self.shown, LaggingVault) else self.shown
        vault = SteppedVault(seen, task)
        task.sleep(run.delay)
        try:
            run.lease = take_lease(vault, NAME, run=f"r{task.number}", doing="x", ttl=TTL, wait=run.wait, ticker=task)
        except Locked:
            run.locked = True
            return
        self.took += 1
        run.took = self.took
        try:
            for pause in run.pauses:
                task.sleep(pause)
                before = self.took
                if pause > SECONDS / 3:
                    run.lease.renew()
                run.lease.check()
                self.passes(run, before)
        except LeaseLost:
            run.lost = True
        run.released = True
        run.lease.release()

    def passes(self, run: Run, before: int) -> None:
        """A check that began when so many had taken the lease has gone well: nobody had overtaken this run."""
        run.passed += 1
        assert run.took == before, "a run that was overtaken believes that it holds the lease"

    def holding(self) -> list[Run]:
        """Who may believe that it holds the lease, without asking."""
        now = self.schedule.clock
        return [
            run
            for run in self.runs
            if run.lease is not None and not run.released and not run.lost and now < run.lease._until
        ]

    def look(self) -> None:
        if not self.jump[1]:
            assert len(self.holding()) <= 1

    def go(self) -> None:
        self.schedule.run()

    def anybody_can(self) -> None:
        """When everybody is through or dead, the next run gets the lease, at the latest once it has expired."""
        last = Run(pauses=[0.1], wait=3 * SECONDS)
        began = self.schedule.clock
        self.add(last)
        self.go()
        assert last.passed == 1
        assert self.schedule.clock - began < 2.5 * SECONDS


CHOICES = st.lists(st.integers(0, 11), min_size=1, max_size=60)
PAUSES = st.lists(st.sampled_from([0.0, 0.5, SECONDS / 4, SECONDS / 2, 0.95 * SECONDS, 1.3 * SECONDS]), max_size=4)
RUNS = st.lists(
    st.builds(
        Run,
        pauses=PAUSES,
        kill_at=st.one_of(st.just(-1), st.integers(1, 40)),
        wait=st.sampled_from([0.0, 2.0, SECONDS, 3 * SECONDS]),
    ),
    min_size=2,
    max_size=4,
)


@pytest.mark.parametrize("atomic", [True, False])
@MANY
@given(choices=CHOICES, runs=RUNS)
def test_one_at_most(atomic: bool, choices: list[int], runs: list[Run]) -> None:
    world = World(choices, atomic)
    for run in runs:
        world.add(run)
    world.go()
    world.anybody_can()


@pytest.mark.parametrize("atomic", [True, False])
@MANY
@given(choices=CHOICES, count=st.integers(2, 5))
def test_somebody_wins(atomic: bool, choices: list[int], count: int) -> None:
    world = World(choices, atomic)
    for _ in range(count):
        world.add(Run(pauses=[0.5]))
    world.go()
    assert any(run.passed for run in world.runs)
    assert all(run.passed or run.locked for run in world.runs)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("by", [172_800.0, -172_800.0])
@MANY
@given(choices=CHOICES, runs=RUNS, at=st.floats(0.01, 2.0))
def test_the_vaults_clock_jumps_by_two_days(
    atomic: bool, by: float, choices: list[int], runs: list[Run], at: float
) -> None:
    world = World(choices, atomic, jump=(at, by))
    for run in runs:
        world.add(run)
    world.go()
    world.anybody_can()


@MANY
@given(choices=CHOICES, runs=RUNS, lags=st.lists(st.sampled_from([0.0, 0.3, 2.0, 9.0, 90.0]), min_size=1, max_size=7))
def test_listings_lag_where_puts_are_atomic(choices: list[int], runs: list[Run], lags: list[float]) -> None:
    """Each key lags by another time, for some longer than leases last."""

    def view(vault: ModelVault, now: Callable[[], float]) -> Vault:
        return LaggingVault(vault, lambda key: lags[crc32(key.encode()) % len(lags)], now=now)

    world = World(choices, True, view=view)
    for run in runs:
        world.add(run)
    world.go()


LAGS = [[0.2], [1.0], [3.0], [1.0, 2.5], [2.0, 5.0, 4.0]]


@MANY
@given(choices=CHOICES, runs=RUNS, lags=st.sampled_from(LAGS))
def test_listings_lag_where_puts_are_not_atomic(choices: list[int], runs: list[Run], lags: list[float]) -> None:
    """Safe as long as nothing is listed more than three times as late as something else."""

    def view(vault: ModelVault, now: Callable[[], float]) -> Vault:
        return LaggingVault(vault, lambda key: lags[crc32(key.encode()) % len(lags)], now=now)

    world = World(choices, False, view=view)
    for run in runs:
        world.add(run)
    world.go()


@MANY
@given(choices=CHOICES, delays=st.lists(st.floats(0.0, 6.0), min_size=2, max_size=3), lags=st.sampled_from(LAGS))
def test_several_begin_while_listings_lag(choices: list[int], delays: list[float], lags: list[float]) -> None:
    def view(vault: ModelVault, now: Callable[[], float]) -> Vault:
        return LaggingVault(vault, lambda key: lags[crc32(key.encode()) % len(lags)], now=now)

    world = World(choices, False, view=view)
    for delay in delays:
        world.add(Run(pauses=[0.5, 5.0], delay=delay))
    world.go()
    assert any(run.passed for run in world.runs)
