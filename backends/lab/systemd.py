"""The service manager of one lab host: its units with real processes behind them, started, stopped, restarted."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from backends.embedded.processes import Processes, ServerFailed
from backends.embedded.redis_server import RedisServer
from backends.lab.units import REDIS

_RESTART_SECONDS = 0.1
_BURST, _INTERVAL = 5, 10.0
STOP_SECONDS = 15.0
"""TimeoutSec of Mastodon's units (dist/*.service)."""


class Fault(StrEnum):
    """What a test or an operator of the demo may let go wrong with a unit."""

    BROKEN = "broken"
    """It does not start."""
    STUBBORN = "stubborn"
    """It ignores SIGTERM; the service manager kills it when its time is over."""
    STUCK = "stuck"
    """Nothing ends it, as a process that waits for a dead disk: `systemctl stop` gives up."""
    UNWELL = "unwell"
    """It runs, and `/health` says that it is not well."""


class UnitFailed(Exception):
    """A start or a stop did not succeed; the text is what systemctl says."""


@dataclass(slots=True)
class Unit:
    """One unit; without `command` and `redis` its state is all there is of it."""

    name: str
    properties: dict[str, str]
    command: Callable[[], subprocess.Popen[bytes]] | None = None
    redis: RedisServer | None = None
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)
    turn: threading.RLock = field(default_factory=threading.RLock)
    """Held while it is started or stopped."""

    @property
    def kind(self) -> str:
        """`simple`, `oneshot`, `notify`, ..."""
        return self.properties["Type"]

    @property
    def enabled(self) -> bool:
        """Whether it starts with the host."""
        return self.properties["UnitFileState"] == "enabled"

    @property
    def pid(self) -> int:
        """Of its main process; 0 without one."""
        if self.redis is not None:
            return self.redis.pid
        return self.process.pid if self.process is not None and self.process.returncode is None else 0

    def become(self, active: str, sub: str, result: str = "success") -> None:
        """Change its state."""
        self.active, self.sub, self.result = active, sub, result

    def reset(self) -> None:
        """Forget that it failed."""
        if self.active == "failed":
            self.become("inactive", "dead")

    def shown(self) -> dict[str, str]:
        """All properties, as `systemctl show` has them."""
        if self.redis is not None and self.active == "active" and not self.redis.running:
            self.become("inactive", "dead")
        elif self.redis is not None and self.active in {"inactive", "failed"} and self.redis.running:
            self.become("active", "running")
        return {
            **self.properties,
            "ActiveState": self.active,
            "SubState": self.sub,
            "Result": self.result,
            "MainPID": str(self.pid),
            "NRestarts": str(self.restarts),
        }


class Systemd:
    """What starts and stops the units of one host; all may be called from several threads at once."""

    def __init__(self, processes: Processes, faults: Path) -> None:
        """`faults` is a directory of the host: a file `<unit>.<fault>` in it makes the unit misbehave."""
        self.units: dict[str, Unit] = {}
        self._stop_seconds = STOP_SECONDS
        self._processes = processes
        self._faults = faults
        self._over = threading.Event()

    @property
    def stop_seconds(self) -> float:
        """How long the stop of a unit waits before it kills, or gives up; the `TimeoutStopUSec` of Mastodon's units."""
        return self._stop_seconds

    @stop_seconds.setter
    def stop_seconds(self, seconds: float) -> None:
        self._stop_seconds = seconds
        for unit in self.units.values():
            if unit.redis is None:
                unit.properties["TimeoutStopUSec"] = f"{seconds:g}s"

    def define(
        self,
        properties: Mapping[str, dict[str, str]],
        commands: Mapping[str, Callable[[], subprocess.Popen[bytes]]],
        redis: RedisServer | None,
    ) -> None:
        """Say which units there are, and what runs behind them."""
        for name, values in properties.items():
            self.units[name] = Unit(name, values, commands.get(name), redis if name == REDIS else None)

    def boot(self, only: Iterable[str] | None = None) -> None:
        """Start what is enabled, as at the start of a machine, or only some units of it."""
        self.start([unit.name for unit in self.units.values() if unit.enabled and (only is None or unit.name in only)])

    def start(self, names: Iterable[str]) -> list[str]:
        """Start units and those that they want; returns what systemctl says of those that did not start."""
        said = []
        for unit in self._with(names, "Wants"):
            try:
                self._start(unit)
            except UnitFailed as failed:
                said.append(str(failed))
        return said

    def stop(self, names: Iterable[str]) -> list[str]:
        """Stop units and their parts, all at once, and wait; returns what systemctl says of those that did not."""
        said: list[str] = []

        def one(unit: Unit) -> None:
            try:
                self._stop(unit)
            except UnitFailed as failed:
                said.append(str(failed))

        threads = [threading.Thread(target=one, args=(unit,)) for unit in self._with(names, "ConsistsOf")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return said

    def fault(self, unit: str, fault: Fault, *, on: bool = True) -> None:
        """Let a unit misbehave from now on, or no more."""
        file = self._faults / f"{unit}.{fault}"
        if on:
            self._faults.mkdir(parents=True, exist_ok=True)
            file.touch()
        else:
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """End every process of a unit, the hard way after a moment; nothing is started any more. Idempotent."""
        self._over.set()
        running = [unit.process for unit in self.units.values() if unit.process is not None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            self._processes.stop(process, patience=0.5)

    def _has(self, unit: Unit, fault: Fault) -> bool:
        return (self._faults / f"{unit.name}.{fault}").exists()

    def _with(self, names: Iterable[str], relation: str) -> list[Unit]:
        found: dict[str, Unit] = {}
        for name in names:
            unit = self.units[name]
            found[name] = unit
            found.update({other: self.units[other] for other in unit.properties.get(relation, "").split()})
        return list(found.values())

    def _start(self, unit: Unit) -> None:
        with unit.turn:
            if self._over.is_set() or unit.shown()["ActiveState"] in {"active", "deactivating"}:
                return
            unit.starts.clear()
            if unit.redis is not None:
                self._start_redis(unit, unit.redis)
            elif unit.command is not None:
                self._spawn(unit)
            elif self._has(unit, Fault.BROKEN):
                unit.become("failed", "failed", "exit-code")
                raise UnitFailed(_failed(unit))
            else:
                unit.become("active", "exited" if unit.kind == "oneshot" else "running")

    def _start_redis(self, unit: Unit, redis: RedisServer) -> None:
        unit.become("activating", "start")
        try:
            if self._has(unit, Fault.BROKEN):
                raise ServerFailed("it was told not to start")
            redis.start()
        except ServerFailed:
            unit.become("failed", "failed", "exit-code")
            raise UnitFailed(_failed(unit)) from None
        unit.become("active", "running")

    def _spawn(self, unit: Unit) -> None:
        if unit.command is None:
            return
        unit.starts = [*(at for at in unit.starts if time.monotonic() - at < _INTERVAL), time.monotonic()]
        unit.process = unit.command()
        unit.become("active", "running")
        threading.Thread(target=self._watch, args=(unit, unit.process), name=f"watch-{unit.name}", daemon=True).start()

    def _watch(self, unit: Unit, process: subprocess.Popen[bytes]) -> None:
        """Restart a process that ended by itself, as `Restart=always` says, some times in a row."""
        process.wait()
        with unit.turn:
            self._processes.stop(process)
            if unit.process is not process or unit.active != "active":
                return
            unit.become("activating", "auto-restart", "exit-code")
        self._over.wait(_RESTART_SECONDS)
        with unit.turn:
            if self._over.is_set() or unit.process is not process or unit.active != "activating":
                return
            if len(unit.starts) >= _BURST:
                unit.become("failed", "failed", "start-limit-hit")
                return
            unit.restarts += 1
            self._spawn(unit)

    def _stop(self, unit: Unit) -> None:
        with unit.turn:
            if unit.shown()["ActiveState"] in {"inactive", "failed"} and not unit.pid:
                return
            unit.become("deactivating", "stop-sigterm")
            if self._has(unit, Fault.STUCK):
                self._over.wait(self.stop_seconds)
                unit.become("deactivating", "final-sigkill", "timeout")
                raise UnitFailed(f"Job for {unit.name} canceled.")
            stubborn = self._has(unit, Fault.STUBBORN)
            if stubborn:
                self._over.wait(self.stop_seconds)
            if unit.redis is not None:
                unit.redis.stop(patience=60.0)
            elif unit.process is not None:
                if stubborn and unit.process.poll() is None:
                    unit.process.kill()
                self._processes.stop(unit.process, patience=self.stop_seconds)
                stubborn = unit.process.returncode == -signal.SIGKILL
            unit.become(*(("failed", "failed", "timeout") if stubborn else ("inactive", "dead", "success")))


def _failed(unit: Unit) -> str:
    return (
        f"Job for {unit.name} failed because the control process exited with error code.\n"
        f'See "systemctl status {unit.name}" and "journalctl -xeu {unit.name}" for details.'
    )
