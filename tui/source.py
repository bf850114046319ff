"""Where the screens get what they show and hand on what is asked for; tests put fixed values in its place.

Every method may block (files, SQLite, a new process): it is only called from the threads of `tui.feed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, MastovaultError
from backends.model import Asset, Attempt, Secret, SnapshotInfo, utc_now
from backends.operations.fleet import Fleet
from backends.runs.view import LogLine, RunView
from tui.vault_source import EngineVaults, VaultSource

if TYPE_CHECKING:
    from backends.catalog import Catalog
    from backends.operations.choose import RestorePoint
    from backends.operations.restores import RestoreRecord
    from backends.operations.storage import StorageRow
    from backends.restore.plan import RestorePlan

Asks = Callable[[str], Secret | None]
"""Asks the operator for a password or a passphrase; None when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The fleet with the configuration it was made from; `problem` is why the newest configuration is not used.

    `restores` are those this machine knows of, newest first; `storage` is every configured vault.
    """

    config: Config
    fleet: Fleet
    problem: str = ""
    restores: tuple[RestoreRecord, ...] = ()
    storage: tuple[StorageRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is known of one asset's past, newest first."""

    host: str
    asset: Asset
    snapshots: tuple[SnapshotInfo, ...] = ()
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """How the start of one run went: its id, or the error that kept it from starting."""

    host: str
    run: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A run that is to be started: see `backends.runs.kinds`."""

    kind: str
    host: str
    assets: tuple[Asset, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


class Source(VaultSource, Protocol):
    """What the app needs of the engine."""

    def fleet(self) -> Seen:
        """Everything about the fleet, from the cache."""
        ...

    def runs(self) -> tuple[RunView, ...]:
        """Every run of this machine."""
        ...

    def log(self, run: str, job: str | None, since: int) -> tuple[Sequence[LogLine], int]:
        """The lines of a run's log after `since`, and the next `since`."""
        ...

    def history(self, host: str, asset: Asset) -> History:
        """What was tried and kept of one asset."""
        ...

    def refresh(self, hosts: Sequence[str] | None) -> Callable[[], bool]:
        """Ask hosts and vaults in a process of its own; returns a function that tells whether it still does."""
        ...

    def back_up(self, targets: Mapping[str, Sequence[Asset]]) -> tuple[Started, ...]:
        """Start one run for each host."""
        ...

    def start(self, wish: Wish) -> str:
        """Start a run and return its id. Raises `MastovaultError`."""
        ...

    def points(self, host: str) -> tuple[RestorePoint, ...]:
        """The restore points of a host, newest first."""
        ...

    def plan(self, run: str) -> RestorePlan | None:
        """The plan that a run made or carries out; None when there is none (yet)."""
        ...

    def undo_words(self, restore: str, ask: Asks) -> tuple[str, ...]:
        """What an undo would lose, asked of the host: this may take seconds. Raises `MastovaultError`."""
        ...

    def cancel(self, run: str, job: str | None) -> None:
        """Ask a run, or one job of it, to stop."""
        ...

    def answer(self, run: str, question: str, secret: Secret) -> None:
        """Hand a run what it asked for."""
        ...


class EngineSource(EngineVaults):
    """The real engine, on the paths of this machine."""

    def __init__(self, paths: Paths) -> None:
        from backends.catalog import Catalog
        from backends.runs.watch import RunsWatcher

        super().__init__(paths, Catalog(paths.cache_dir))
        self._watcher = RunsWatcher(paths.state_dir)
        self._watching = Lock()
        self._config: Config | None = None

    def fleet(self) -> Seen:
        """Read the configuration again and the fleet from the cache; a broken file keeps the last good one."""
        from backends.config.load import load
        from backends.operations.fleet import load_fleet
        from backends.operations.restores import restores
        from backends.operations.storage import storage

        problem = ""
        try:
            config = load(self._paths.config_file)
        except ConfigurationError as error:
            config = self._config or Config()
            problem = error.sentence
        self._config = config
        now = utc_now()
        return Seen(
            config=config,
            fleet=load_fleet(config, self._catalog, now),
            storage=storage(config, self._catalog, now),
            problem=problem,
            restores=tuple(restores(self._paths)),
        )

    def runs(self) -> tuple[RunView, ...]:
        """Read what is new in the run folders."""
        with self._watching:
            return self._watcher.poll()

    def log(self, run: str, job: str | None, since: int) -> tuple[Sequence[LogLine], int]:
        """Read what is new in one log."""
        with self._watching:
            return self._watcher.log(run, job, since)

    def history(self, host: str, asset: Asset) -> History:
        """Read the past of one asset from the cache."""
        return History(
            host=host,
            asset=asset,
            snapshots=tuple(self._trusting().snapshots(host, asset)),
            attempts=tuple(self._catalog.attempts(host, asset)),
        )

    def refresh(self, hosts: Sequence[str] | None) -> Callable[[], bool]:
        """Start the process that asks."""
        from backends.runs.refresh import start_refresh

        process = start_refresh(self._paths, hosts)
        return lambda: process.poll() is None

    def back_up(self, targets: Mapping[str, Sequence[Asset]]) -> tuple[Started, ...]:
        """Start the runs; a host whose run cannot start does not keep the others from theirs."""
        from backends.runs.launch import start_run

        started: list[Started] = []
        for host, assets in targets.items():
            try:
                run = start_run(self._paths, kind="backup", host=host, assets=assets)
                started.append(Started(host=host, run=run))
            except MastovaultError as error:
                started.append(Started(host=host, error=error.sentence))
        return tuple(started)

    def start(self, wish: Wish) -> str:
        """Start the run's process."""
        from backends.runs.launch import start_run

        return start_run(self._paths, kind=wish.kind, host=wish.host, assets=wish.assets, options=wish.options)

    def points(self, host: str) -> tuple[RestorePoint, ...]:
        """Read them from the cache."""
        from backends.operations.choose import points

        return tuple(points(self._trusting(), host))

    def _trusting(self) -> Catalog:
        """The cache, as the configured signers are trusted."""
        return self._catalog.trusting((self._config or self._load()).signers)

    def plan(self, run: str) -> RestorePlan | None:
        """Read it from the run's folder."""
        from backends.runs.plans import read_plan

        return read_plan(self._paths.state_dir, run)

    def undo_words(self, restore: str, ask: Asks) -> tuple[str, ...]:
        """Ask the target's database."""
        from backends.config.load import load
        from backends.operations.undo import undo_words

        return undo_words(load(self._paths.config_file), self._paths, restore, ask)

    def cancel(self, run: str, job: str | None) -> None:
        """Tell the run over its control socket."""
        from backends.runs.control import cancel

        cancel(self._paths.state_dir, run, job)

    def answer(self, run: str, question: str, secret: Secret) -> None:
        """Tell the run over its control socket."""
        from backends.runs.control import answer

        answer(self._paths.state_dir, run, question, secret)
