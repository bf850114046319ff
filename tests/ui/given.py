"""A fixed fleet for the screens: every level, every state of a host, jobs of every kind, at one frozen moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backends.catalog.usage import VaultUsage
from backends.config.paths import Paths
from backends.config.schema import Config, SftpVault, VaultConfig
from backends.errors import HostKeyUnknown
from backends.model import (
    Asset,
    AssetObservation,
    AssetStatus,
    Attempt,
    HostObservation,
    HostState,
    JobResult,
    JobSnapshot,
    JobState,
    Level,
    Reason,
    Secret,
    SnapshotInfo,
)
from backends.operations.choose import RestorePoint
from backends.operations.fleet import Fleet, VaultStatus
from backends.operations.storage import StorageRow, StorageState
from backends.operations.vault_check import VaultReport
from backends.restore.plan import RestorePlan
from backends.runs.view import LogLine, Question, RunView
from tui.app import MastovaultApp
from tui.source import Asks, History, Seen, Started, Wish
from tui.vaults import Plan, VaultDetail

NOW = datetime(2026, 11, 22, 14, 2, 11, tzinfo=UTC)
PATHS = Paths(Path("/etc/mastovault/config.toml"), Path("/nonexistent/state"), Path("/nonexistent/cache"))
HOUR = 3600.0
DAY = 86400.0


def before(**span: float) -> datetime:
    """A moment before the frozen one."""
    return NOW - timedelta(**span)


def config(hosts: Sequence[str] = ("social.ex", "mstdn.art", "toot.lan", "fedi.club"), **extra: Any) -> Config:
    """A configuration of these hosts and two vaults."""
    return Config.model_validate(
        {
            "encryption": {"recipients": ["age1qqq", "age1rrr"], "recovery": "age1rrr"},
            "vaults": {
                "eu-backup": {"type": "s3", "bucket": "mb-eu"},
                "local": {"type": "directory", "path": "/srv/backup"},
            },
            "hosts": {name: {"address": f"mastodon@{name}"} for name in hosts},
            **extra,
        }
    )


def snapshot(host: str, asset: Asset, at: datetime, size: int, **extra: Any) -> SnapshotInfo:
    """A stored backup in both vaults."""
    values: dict[str, Any] = {"vaults": ("eu-backup", "local"), "run": f"{at:%Y%m%dT%H%M%SZ}-ab12", "seconds": 730.0}
    stamp = f"{at:%Y%m%dT%H%M%SZ}"
    return SnapshotInfo(
        id=f"{host}/{asset}/{stamp}-0a1b", host=host, asset=asset, at=at, bytes=size, **{**values, **extra}
    )


def status(
    host: str,
    asset: Asset,
    level: Level,
    score: int,
    state: str,
    *reasons: tuple[int, str, str],
    age: float | None = None,
    goal: float | None = DAY,
    size: int = 0,
    stale: bool = False,
) -> AssetStatus:
    """One row; `age` in hours."""
    newest = None if age is None else snapshot(host, asset, before(hours=age), size)
    return AssetStatus(
        host=host,
        asset=asset,
        level=level,
        score=score,
        state=state,
        reasons=tuple(Reason(points=points, text=text, action=action) for points, text, action in reasons),
        goal_seconds=goal,
        newest=newest,
        stale=stale,
    )


def host(name: str, state: HostState = HostState.ONLINE, **extra: Any) -> HostObservation:
    """What was seen of one host."""
    values: dict[str, Any] = {
        "asked_at": before(seconds=20),
        "since": before(hours=8, minutes=50),
        "kind": "native",
        "version": "4.5.3",
        "assets": (
            AssetObservation(
                asset=Asset.DATABASE, present=True, detail="mastodon_production, PostgreSQL 16", bytes=44 << 30
            ),
            AssetObservation(asset=Asset.SECRETS, present=True, detail="/home/mastodon/live/.env.production, 14 keys"),
            AssetObservation(
                asset=Asset.MEDIA, present=True, detail="/home/mastodon/live/public/system", bytes=812 << 30
            ),
            AssetObservation(asset=Asset.REDIS, present=True, detail="localhost:6379, RDB", bytes=1 << 30),
        ),
    }
    return HostObservation(host=name, state=state, **{**values, **extra})


GIB = 1 << 30

STATUSES = (
    status(
        "social.ex", Asset.DATABASE, Level.CRIT, 91, "last 2 runs FAILED",
        (40, "76h old, 3.2 times the goal of 24h", "back it up now (b)"),
        (25, "the last 2 runs failed: no space left on device", "free 45G on the host, then back up"),
        (16, "every copy is on the machine it protects", "add an off-site vault"),
        (10, "a restore was never tested", "`mastovault drill social.ex`"),
        age=76.2, size=int(41.2 * GIB),
    ),
    status(
        "mstdn.art", Asset.SECRETS, Level.CRIT, 90, "never backed up",
        (90, "never backed up", "back it up now (b)"), goal=None,
    ),
    status(
        "social.ex", Asset.MEDIA, Level.HIGH, 48, "overdue 25h",
        (24, "49h old, 2 times the goal of 24h", "back it up now (b)"),
        (24, "only one copy, none off-site", "add an off-site vault"),
        age=49.02, size=812 * GIB,
    ),
    status(
        "toot.lan", Asset.DATABASE, Level.HIGH, 40, "overdue 3h",
        (20, "27h old, 1.1 times the goal of 24h", "wait for the backup that is running"),
        (20, "secrets were saved 9 days before", "back up the secrets (b)"),
        age=27, size=int(3.1 * GIB),
    ),
    *(
        status(
            "fedi.club", asset, Level.UNKN, 30, "host is offline",
            (20, "cannot be asked", "bring the host back"),
            age=9.1 + number, size=GIB, stale=True, goal=None if asset is Asset.SECRETS else DAY,
        )
        for number, asset in enumerate(Asset)
    ),
    status(
        "mstdn.art", Asset.MEDIA, Level.MED, 15, "due in 2h",
        (15, "only one copy", "add a second vault"), age=22, size=int(96.4 * GIB),
    ),
    status("mstdn.art", Asset.DATABASE, Level.MED, 15, "in goal", (15, "no drill", "drill it"), age=4, size=9 * GIB),
    status("toot.lan", Asset.MEDIA, Level.LOW, 6, "in goal", (6, "only one copy", "add a vault"), age=3, size=7 * GIB),
    status("toot.lan", Asset.SECRETS, Level.OK, 0, "unchanged", age=220, size=4096, goal=None),
    status("social.ex", Asset.SECRETS, Level.OK, 0, "unchanged", age=500, size=5120, goal=None),
    status("social.ex", Asset.REDIS, Level.OK, 0, "verified 6d ago", age=11, size=int(1.2 * GIB)),
    status("mstdn.art", Asset.REDIS, Level.OK, 0, "in goal", age=6, size=300 << 20),
    status("toot.lan", Asset.REDIS, Level.OK, 0, "in goal", age=3, size=11 << 20),
)  # fmt: skip

HOSTS = (
    host("social.ex"),
    host("mstdn.art"),
    host("toot.lan", version="4.4.8"),
    host(
        "fedi.club",
        HostState.OFFLINE,
        message="fedi.club port 22: connection timed out",
        next_step="Check that it is on and reachable; it is asked again every 60s.",
    ),
)

VAULTS = (
    VaultStatus(
        name="eu-backup", where="s3://mb-eu", offsite=True, read_at=before(minutes=4), snapshots=412, bytes=1900 * GIB
    ),
    VaultStatus(
        name="local",
        where="/srv/backup",
        offsite=False,
        read_at=before(minutes=4),
        snapshots=388,
        bytes=1750 * GIB,
        free_bytes=931 * GIB,
    ),
)


def fleet(
    statuses: Sequence[AssetStatus] = STATUSES,
    hosts: Sequence[HostObservation] = HOSTS,
    vaults: Sequence[VaultStatus] = VAULTS,
) -> Fleet:
    """A fleet read at the frozen moment."""
    return Fleet(generated_at=NOW, assets=tuple(statuses), hosts=tuple(hosts), vaults=tuple(vaults))


def seen(
    configured: Config | None = None, made: Fleet | None = None, rows: Sequence[StorageRow] | None = None, **extra: Any
) -> Seen:
    """A fleet with what the storage screens know of its vaults."""
    shown = made or fleet()
    states = {True: StorageState.AWAY, False: StorageState.OK}
    plain = [
        StorageRow(
            name=one.name,
            kind="s3" if one.where.startswith("s3:") else "directory",
            where=one.where,
            state=StorageState.UNASKED if one.read_at is None and not one.error else states[bool(one.error)],
            said=one.error or one.warning,
            offsite=one.offsite,
            status=one,
            usage=VaultUsage(vault=one.name, bytes=one.bytes),
            hosts=(),
        )
        for one in shown.vaults
    ]
    return Seen(config=configured or config(), fleet=shown, storage=tuple(plain if rows is None else rows), **extra)


def job(host_name: str, asset: Asset, state: JobState, **extra: Any) -> JobSnapshot:
    """One job's newest snapshot."""
    return JobSnapshot(id=asset.value, host=host_name, asset=asset, state=state, **extra)


def run(
    number: str,
    jobs: Sequence[JobSnapshot],
    *,
    begun: datetime,
    ended: datetime | None = None,
    results: Sequence[JobResult] = (),
    **extra: Any,
) -> RunView:
    """One run."""
    values: dict[str, Any] = {"kind": "backup", "alive": ended is None, "lost": False, "pid": 4711}
    return RunView(
        id=f"{begun:%Y%m%dT%H%M%SZ}-{number}",
        host=jobs[0].host,
        begun_at=begun,
        ended_at=ended,
        jobs=tuple(jobs),
        results=tuple(results),
        **{**values, **extra},
    )


RUNNING = run(
    "c118",
    [
        job(
            "toot.lan", Asset.DATABASE, JobState.RUNNING, step="dump",
            done=int(2.99 * GIB), total=int(7.1 * GIB), rate=18.4 * (1 << 20),
        )
    ],
    begun=before(minutes=2, seconds=51),
)  # fmt: skip
LISTING = run(
    "c119",
    [
        job("mstdn.art", Asset.MEDIA, JobState.RUNNING, step="list", done=48210, unit="files", rate=2100.0),
        job("mstdn.art", Asset.SECRETS, JobState.QUEUED),
    ],
    begun=before(minutes=1),
)
DONE = run(
    "c117",
    [job("social.ex", Asset.REDIS, JobState.DONE, step="commit")],
    begun=before(minutes=52),
    ended=before(minutes=51),
    results=[
        JobResult(
            host="social.ex",
            asset=Asset.REDIS,
            state=JobState.DONE,
            snapshot="social.ex/redis/20261122T131011Z-0a1b",
            bytes=int(1.2 * GIB),
            seconds=41,
            vaults=("eu-backup", "local"),
        )
    ],
)
FAILED = run(
    "c116",
    [job("social.ex", Asset.DATABASE, JobState.FAILED, step="dump")],
    begun=before(hours=2),
    ended=before(hours=1, minutes=58),
    results=[
        JobResult(
            host="social.ex",
            asset=Asset.DATABASE,
            state=JobState.FAILED,
            seconds=2,
            error="pg_dump ended with status 1: no space left on device",
            next_step="Free 45G on the host.",
        )
    ],
)
LOST = run(
    "c115",
    [job("toot.lan", Asset.MEDIA, JobState.RUNNING, step="upload", done=GIB)],
    begun=before(hours=5),
    alive=False,
    lost=True,
)
RUNS = (RUNNING, LISTING, DONE, FAILED, LOST)

LOG = tuple(
    LogLine(at=before(seconds=171 - number), job="database", text=text)
    for number, text in enumerate(
        [
            "$ pg_dump --format=custom --compress=0 --verbose mastodon_production",
            "pg_dump: reading extensions",
            "pg_dump: identifying extension members",
            "pg_dump: reading schemas",
            *(
                f'pg_dump: dumping contents of table "public.{name}"'
                for name in ("accounts", "statuses", "media_attachments")
            ),
            "warning: the server is busy, the dump waits",
        ]
    )
)


def history(host_name: str, asset: Asset) -> History:
    """Twelve days of backups, the last two attempts failed."""
    snapshots = [
        snapshot(
            host_name,
            asset,
            before(days=3 + day, hours=4.2),
            int((41.2 - day * 1.7) * GIB),
            verified_at=before(days=1 + day) if day % 3 == 0 else None,
            drilled_at=before(days=8) if day == 6 else None,
            vaults=("eu-backup", "local") if day else ("eu-backup",),
            seconds=730.0 - day * 9,
        )
        for day in range(12)
    ]
    attempts = [
        Attempt(
            host=host_name,
            asset=asset,
            run=FAILED.id if number == 0 else f"old{number}",
            at=before(hours=2 + 24 * number),
            seconds=2,
            state=JobState.FAILED,
            error="pg_dump ended with status 1: no space left on device",
        )
        for number in range(2)
    ]
    attempts += [
        Attempt(
            host=host_name,
            asset=asset,
            run=one.run,
            at=one.at,
            seconds=one.seconds or 0,
            state=JobState.DONE,
            snapshot=one.id,
            bytes=one.bytes,
        )
        for one in snapshots[:9]
    ]
    return History(host=host_name, asset=asset, snapshots=tuple(snapshots), attempts=tuple(attempts))


@dataclass
class GivenSource:
    """A source with fixed values that notes what it is asked to do."""

    seen: Seen = field(default_factory=lambda: seen())
    views: tuple[RunView, ...] = RUNS
    lines: tuple[LogLine, ...] = LOG
    past: Callable[[str, Asset], History] = history
    refreshing: bool = False
    done: list[tuple[Any, ...]] = field(default_factory=list)
    error: str = ""

    def fleet(self) -> Seen:
        return self.seen

    def runs(self) -> tuple[RunView, ...]:
        return self.views

    def log(self, run: str, job: str | None, since: int) -> tuple[Sequence[LogLine], int]:
        return self.lines[since:], len(self.lines)

    def history(self, host: str, asset: Asset) -> History:
        return self.past(host, asset)

    def refresh(self, hosts: Sequence[str] | None) -> Callable[[], bool]:
        self.done.append(("refresh", hosts))
        return lambda: self.refreshing

    def back_up(self, targets: Mapping[str, Sequence[Asset]]) -> tuple[Started, ...]:
        self.done.append(("back_up", {name: tuple(assets) for name, assets in targets.items()}))
        return tuple(Started(host=name, run="new", error=self.error) for name in targets)

    def start(self, wish: Wish) -> str:
        self.done.append(("start", wish))
        return "new"

    def points(self, host: str) -> tuple[RestorePoint, ...]:
        return ()

    def plan(self, run: str) -> RestorePlan | None:
        return None

    def undo_words(self, restore: str, ask: Asks) -> tuple[str, ...]:
        return ()

    def vault(self, name: str) -> VaultDetail:
        return VaultDetail(name=name)

    def check_vault(self, name: str, config: VaultConfig) -> VaultReport:
        raise NotImplementedError

    def accept_vault_key(self, name: str, config: SftpVault, shown: HostKeyUnknown) -> None:
        raise NotImplementedError

    def add_vault(self, name: str, values: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def forget_vault(self, name: str) -> None:
        self.done.append(("forget", name))

    def plan_sync(self, target: str) -> Plan:
        return Plan()

    def plan_prune(self, hosts: Sequence[str], vaults: Sequence[str]) -> Plan:
        return Plan()

    def cancel(self, run: str, job: str | None) -> None:
        self.done.append(("cancel", run, job))

    def answer(self, run: str, question: str, secret: Secret) -> None:
        self.done.append(("answer", run, question, secret))


def app(source: GivenSource | None = None, **extra: Any) -> MastovaultApp:
    """The app on fixed values at the frozen moment; a fault in it fails the test."""
    made = MastovaultApp(PATHS, source=source or GivenSource(), clock=lambda: NOW, **{"refreshes": False, **extra})
    made.stays_up = False
    return made


def asking(view: RunView, prompt: str) -> RunView:
    """The same run, with a question."""
    return replace(view, questions=(Question(id="q1", job=view.jobs[0].id, prompt=prompt),))
