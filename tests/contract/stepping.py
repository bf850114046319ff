"""Several runs, interleaved step by step: one thread each, of which only one moves at a time, as a schedule says."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import BinaryIO

from backends.vault.base import StoredObject, Upload, Vault
from tests.contract.passing import PassingVault

_TICK = 0.01
"""Seconds that a step takes."""
_LONGEST = 20_000


class Killed(BaseException):
    """The task's process was killed here."""


class Task:
    """One run; it is also the run's `Ticker`. Its clock is the schedule's."""

    def __init__(self, schedule: Schedule, number: int, work: Callable[[Task], None]) -> None:
        self.schedule, self.number = schedule, number
        self.wake_at = 0.0
        self.ended = False
        self.error: BaseException | None = None
        self.kill_at = -1
        """After so many steps it is killed."""
        self.steps = 0
        self._work = work
        self._go, self._parked = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=f"task-{number}", daemon=True)
        self._thread.start()

    def now(self) -> float:
        return self.schedule.clock

    def sleep(self, seconds: float) -> None:
        self.wake_at = self.schedule.clock + seconds
        self.step()

    def chance(self) -> float:
        return self.schedule.chance()

    def token(self) -> str:
        return self.schedule.token()

    def step(self) -> None:
        """Let the others move; returns when it is this task's turn again."""
        self._parked.release()
        self._go.acquire()
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed

    def move(self) -> None:
        """For the schedule: let this task go on to its next step."""
        self._go.release()
        self._parked.acquire()

    def _run(self) -> None:
        self._parked_first()
        try:
            self._work(self)
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the schedule
            self.error = error
        finally:
            self.ended = True
            self._parked.release()

    def _parked_first(self) -> None:
        self._go.acquire()


class Schedule:
    """Moves tasks by a list of numbers; once it is used up, all in turn."""

    def __init__(self, choices: Sequence[int], after_each: Callable[[], None] = lambda: None) -> None:
        self.clock = 0.0
        self._choices = list(choices)
        self._next = 0
        self._tokens = 0
        self._after_each = after_each
        self.tasks: list[Task] = []

    def add(self, work: Callable[[Task], None]) -> Task:
        task = Task(self, len(self.tasks), work)
        self.tasks.append(task)
        return task

    def chance(self) -> float:
        return (self._choose() % 97) / 97

    def token(self) -> str:
        self._tokens += 1
        seed = f"{self._choices[:3]} {self._tokens}"
        return hashlib.sha256(seed.encode()).hexdigest()[:16]

    def run(self) -> None:
        """Until every task has ended. Raises what a task raised."""
        for _ in range(_LONGEST):
            left = [task for task in self.tasks if not task.ended]
            if not left:
                break
            awake = [task for task in left if task.wake_at <= self.clock]
            if not awake:
                self.clock = min(task.wake_at for task in left)
                continue
            self.clock += _TICK
            awake[self._choose() % len(awake)].move()
            self._after_each()
        else:
            raise AssertionError("this never ends")
        for task in self.tasks:
            if task.error is not None:
                raise task.error

    def _choose(self) -> int:
        self._next += 1
        if self._choices and self._next <= 4 * len(self._choices):
            return self._choices[self._next % len(self._choices)] + self._next // len(self._choices)
        return self._next


class SteppedVault(PassingVault):
    """One task's way to a vault: before each call, the others may move."""

    def __init__(self, inner: Vault, task: Task) -> None:
        super().__init__(inner)
        self._task = task

    def open_upload(self, key: str) -> Upload:
        self._task.step()
        return self.inner.open_upload(key)

    def put_new(self, key: str, data: bytes) -> None:
        self._task.step()
        self.inner.put_new(key, data)

    def read(self, key: str) -> BinaryIO:
        self._task.step()
        return self.inner.read(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self._task.step()
        yield from list(self.inner.list(prefix))

    def delete(self, key: str) -> None:
        self._task.step()
        self.inner.delete(key)

    def clean_leftovers(self, older_than: datetime, prefix: str = "") -> int:
        self._task.step()
        return self.inner.clean_leftovers(older_than, prefix)
