"""What the restore screens show in tests: points, plans, restores that wait for a decision, runs of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backends.errors import MastovaultError
from backends.model import Asset, JobResult, JobState, Secret, SnapshotInfo
from backends.operations.choose import RestorePoint
from backends.operations.restores import RestoreRecord
from backends.restore.plan import Copy, Finding, Phase, RestorePlan, Space, StepInfo, request_from_json
from backends.runs.view import Question, RunView
from tests.ui import given
from tui.source import Asks, Wish

RESTORE = "20261122t140211ab12"


def point(host: str, hours: float, assets: Sequence[Asset] = tuple(Asset), **older: SnapshotInfo) -> RestorePoint:
    """A restore point with copies of its own of some assets."""
    at = given.before(hours=hours)
    run = f"{at:%Y%m%dT%H%M%SZ}-0000ab12"
    sizes = {Asset.DATABASE: int(41.2 * given.GIB), Asset.SECRETS: 4096, Asset.MEDIA: 812 * given.GIB}
    own = {
        asset: given.snapshot(
            host,
            asset,
            at,
            sizes.get(asset, int(1.2 * given.GIB)),
            run=run,
            verified_at=given.before(hours=hours - 1) if hours > 50 else None,
            drilled_at=given.before(days=6) if hours > 150 else None,
        )
        for asset in assets
    }
    return RestorePoint(host=host, run=run, at=at, own=own, older={Asset(name): info for name, info in older.items()})


def points(host: str) -> tuple[RestorePoint, ...]:
    """Some days of restore points: whole ones, one of the database alone, one in part."""
    whole = point(host, 200.2)
    redis, secrets = whole.own[Asset.REDIS], whole.own[Asset.SECRETS]
    media = replace(whole.own[Asset.MEDIA], in_part=True)
    return (
        point(host, 4.2, (Asset.DATABASE,), secrets=secrets, media=media, redis=redis),
        point(host, 28.2, (Asset.DATABASE, Asset.SECRETS, Asset.REDIS), media=media),
        point(host, 76.2),
        whole,
    )


def _steps(name: str) -> tuple[StepInfo, ...]:
    def step(verb: str, phase: Phase, title: str, what: str, *commands: str, seconds: float | None = None) -> StepInfo:
        owner = "services" if phase in {Phase.STOP, Phase.START, Phase.HEALTH} else "database"
        asset = None if owner == "services" else Asset.DATABASE
        return StepInfo(
            id=f"{owner}.{verb}", asset=asset, phase=phase, name=title, what=what, commands=commands, seconds=seconds
        )

    before, beside = f"mastodon_before_{RESTORE}", f"mastodon_restore_{RESTORE}"
    return (
        step("fetch", Phase.STAGE, "fetch the dump", "41.2G into a staging directory beside the database",
             "mkdir -m 0700 /var/lib/postgresql/.mastovault-restore", seconds=320),
        step("load", Phase.STAGE, "restore beside", f"new database {beside}, the site stays up",
             f"createdb -T template0 {beside}", f"pg_restore -j4 --exit-on-error -d {beside} database.pgdump",
             seconds=720),
        step("prove", Phase.PROVE, "compare", "row counts, indexes and constraints against the snapshot", seconds=24),
        step("stop", Phase.STOP, "stop", "mastodon-web mastodon-sidekiq mastodon-streaming",
             "systemctl stop mastodon-web mastodon-sidekiq mastodon-streaming", seconds=2.1),
        step("swap", Phase.SWAP, "SWAP databases", f"the old one is kept as {before}",
             f"psql -c 'ALTER DATABASE mastodon_production RENAME TO {before}'",
             f"psql -c 'ALTER DATABASE {beside} RENAME TO mastodon_production'", seconds=0.4),
        step("start", Phase.START, "start", "mastodon-web mastodon-streaming",
             "systemctl start mastodon-web mastodon-streaming", seconds=3),
        step("health", Phase.HEALTH, "health, Sidekiq", f"{name} answers /health, then Sidekiq starts",
             "curl -fsS http://127.0.0.1:3000/health", seconds=6),
    )  # fmt: skip


FINDINGS = (
    Finding(level="ok", text="PostgreSQL 16.4 here, 16.2 in the dump", asset=Asset.DATABASE),
    Finding(level="ok", text="the secrets on the host open the dump", asset=Asset.DATABASE),
    Finding(level="note", text="the copy was never proven by a drill", way_out="Drill it first.", asset=Asset.DATABASE),
)
NO_ROOM = Finding(
    level="block",
    text="no room: 96.0G are needed below /var/lib/postgresql, 31.0G are free",
    way_out="Free 65G there, or set a tablespace on another disk.",
    asset=Asset.DATABASE,
)
OTHER_DOMAIN = Finding(
    level="block",
    text="the copy is of social.ex, this server is mstdn.art",
    way_out="Restore it where it came from.",
    asset=Asset.SECRETS,
    accept="domain",
)


def plan(wish: Wish, findings: Sequence[Finding] = FINDINGS, **changes: Any) -> RestorePlan:
    """The plan that a look with this wish makes."""
    import json

    if "directory" in wish.options:
        request = request_from_json(
            json.dumps(
                {"id": RESTORE, "host": wish.host, "snapshots": wish.options["snapshots"], "at": given.NOW.isoformat()}
            ).encode()
        )
        return RestorePlan(
            request=request,
            target=f"{wish.options['directory']} on this machine",
            copies=_copies(request.snapshots),
            steps=(
                StepInfo(id="database.write", asset=Asset.DATABASE, phase=Phase.STAGE, name="write", what="the dump"),
            ),
            findings=(Finding(level="ok", text="the directory is new"),),
            untouched=("every server",),
        )
    request = request_from_json(json.dumps(wish.options["request"]).encode())
    values: dict[str, Any] = {
        "request": request,
        "target": f"{wish.host} (mastodon@{wish.host}), Mastodon 4.5.3 in /home/mastodon/live",
        "copies": _copies(request.snapshots),
        "steps": _steps(wish.host),
        "findings": tuple(findings),
        "spaces": (Space(what="dump and new database", path="/var/lib/postgresql", need=96 << 30, free=120 << 30),),
        "lost": ("everything after 11-22 09:50 UTC (4h 12m) leaves the site: 212 posts, 3 accounts",),
        "untouched": ("media", "the settings and secrets", "Redis"),
        "seconds": 1077.5,
        "downtime_seconds": 5.5,
        "confirm": f"{wish.host}/{request.assets[0]}" if len(request.assets) == 1 else wish.host,
    }
    return RestorePlan(**{**values, **changes})


def _copies(snapshots: dict[Asset, str]) -> tuple[Copy, ...]:
    return tuple(
        Copy(
            asset=asset,
            snapshot=snapshot,
            at=given.before(hours=4.2),
            bytes=int(41.2 * given.GIB),
            vault="eu-backup",
            vaults=("eu-backup", "local"),
            verified_at=given.before(days=1),
        )
        for asset, snapshot in snapshots.items()
    )


def record(
    host: str, state: str, *can: str, assets: Sequence[Asset] = (Asset.DATABASE,), **extra: Any
) -> RestoreRecord:
    """A restore that this machine knows of."""
    sentences = {
        "done": "done; what was there before is kept",
        "interrupted": "interrupted at database.swap: continue it or roll it back",
        "attention": "the new data is in place, but Mastodon did not come up",
        "running": "at work (database.load)",
    }
    values: dict[str, Any] = {
        "id": RESTORE,
        "host": host,
        "assets": tuple(assets),
        "snapshots": {asset: f"{host}/{asset}/20261119T094800Z-0a1b" for asset in assets},
        "at": given.before(minutes=12),
        "state": state,
        "can": can,
        "sentence": sentences.get(state, state),
        "confirm": f"{host}/{assets[0]}" if len(assets) == 1 else host,
        "swapped_at": given.before(minutes=10),
    }
    return RestoreRecord(**{**values, **extra})


DONE_STEPS = tuple((step.id, "done") for step in _steps("social.ex"))


def restore_run(state: JobState, steps: Sequence[tuple[str, str]], **extra: Any) -> RunView:
    """A restore of social.ex/database on its way, or ended."""
    ended = state.ended
    job = given.job(
        "social.ex",
        Asset.DATABASE,
        state,
        step="restore beside",
        done=int(17.3 * given.GIB),
        total=int(41.2 * given.GIB),
        rate=96.0 * (1 << 20),
    )
    result = JobResult(
        host="social.ex",
        asset=Asset.DATABASE,
        state=state,
        seconds=1071,
        error="the copy does not load: duplicate key in index_users_on_email; rolled back, the live server is as it was"
        if state is JobState.FAILED
        else None,
        next_step="Choose an older copy." if state is JobState.FAILED else None,
        detail=f"restored; Mastodon was down for 5.6 s; what was there is kept for `mastovault undo {RESTORE}`",
    )
    return given.run(
        "c120",
        [job],
        begun=given.before(minutes=9),
        ended=given.before(minutes=1) if ended else None,
        results=[result] if ended else (),
        kind="restore",
        restore=RESTORE,
        steps=tuple(steps),
        **extra,
    )


WISH = Wish(
    kind="restore",
    host="social.ex",
    assets=(Asset.DATABASE,),
    options={
        "request": {
            "id": RESTORE,
            "host": "social.ex",
            "snapshots": {"database": "social.ex/database/20261122T095011Z-0a1b"},
            "at": given.NOW.isoformat(),
        }
    },
)
RUNNING = restore_run(JobState.RUNNING, (("database.fetch", "done"), ("database.load", "begun")))
DONE = restore_run(JobState.DONE, DONE_STEPS)
FAILED = restore_run(
    JobState.FAILED, (("database.fetch", "undone"), ("database.load", "undone"), ("database.prove", "failed"))
)
CUT = restore_run(
    JobState.RUNNING,
    (*((step, "done") for step, _ in DONE_STEPS[:4]), ("database.swap", "begun")),
    alive=False,
    lost=True,
)
REFUSED = JobResult(
    host="social.ex",
    asset=Asset.DATABASE,
    state=JobState.FAILED,
    error="social.ex port 22: connection refused",
    next_step="Check that sshd runs there, then R looks again.",
)


def _kind(number: int, kind: str, asset: Asset, detail: str) -> RunView:
    job = given.job("social.ex", asset, JobState.DONE, step="checked")
    result = JobResult(host="social.ex", asset=asset, state=JobState.DONE, seconds=190, detail=detail)
    begun = given.before(hours=number)
    return given.run(f"d12{number}", [job], begun=begun, ended=begun, results=[result], kind=kind)


KINDS = (
    _kind(1, "verify", Asset.MEDIA, "812G read again, every one of 1 204 118 files as stored"),
    _kind(2, "drill", Asset.DATABASE, "restored in 3 m 10 s; 84 tables, 212 indexes, newest post 09:48"),
    _kind(3, "extract", Asset.SECRETS, "3 files in /root/restored-social.ex"),
    _kind(4, "undo", Asset.DATABASE, "undone; Mastodon was down for 4.1 s"),
    *given.RUNS,
)


@dataclass
class RestoreSource(given.GivenSource):
    """A source whose looks end at once with a plan."""

    views: tuple[RunView, ...] = ()
    findings: tuple[Finding, ...] = FINDINGS
    look_fails: JobResult | None = None
    look_hangs: bool = False
    asks: str = ""
    refuses: str = ""
    lost: tuple[str, ...] = ("212 posts and 3 accounts made since the restore leave the site",)
    lost_error: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    plans: dict[str, RestorePlan] = field(default_factory=dict)
    has_points: bool = True
    number: int = 0

    def points(self, host: str) -> tuple[RestorePoint, ...]:
        return points(host) if self.has_points else ()

    def start(self, wish: Wish) -> str:
        if self.refuses:
            raise MastovaultError(self.refuses, "Look at the disk.")
        self.number += 1
        self.done.append(("start", wish))
        if wish.kind == "plan":
            return self._look(wish)
        jobs = [given.job(wish.host, asset, JobState.RUNNING, step="starting") for asset in wish.assets]
        restore = str(wish.options.get("request", {}).get("id", "") or wish.options.get("restore", ""))
        view = given.run(f"n{self.number:03}", jobs, begun=given.NOW, kind=wish.kind, restore=restore)
        if wish.kind == "restore":
            self.plans[view.id] = plan(wish)
        self.views = (view, *self.views)
        return view.id

    def _look(self, wish: Wish) -> str:
        job = given.job(wish.host, wish.assets[0], JobState.RUNNING, step="looking")
        ended = not (self.look_hangs or self.asks)
        results = [self.look_fails] if self.look_fails is not None else []
        view = given.run(
            f"p{self.number:03}",
            [job],
            begun=given.before(seconds=3),
            ended=given.NOW if ended else None,
            results=results,
            kind="plan",
            questions=(Question(id="q1", job=job.id, prompt=self.asks),) if self.asks else (),
        )
        if ended and self.look_fails is None:
            self.plans[view.id] = plan(wish, self.findings, **self.changes)
        self.views = (view, *self.views)
        return view.id

    def plan(self, run: str) -> RestorePlan | None:
        return self.plans.get(run)

    def undo_words(self, restore: str, ask: Asks) -> tuple[str, ...]:
        if self.lost_error:
            raise MastovaultError(self.lost_error)
        return self.lost

    def answer(self, run: str, question: str, secret: Secret) -> None:
        super().answer(run, question, secret)
        self.asks = ""

    def kinds(self) -> list[str]:
        """The kinds of runs that were started."""
        return [call[1].kind for call in self.done if call[0] == "start"]


def source(*records: RestoreRecord, **extra: Any) -> RestoreSource:
    """A source that knows these restores."""
    made = RestoreSource(**extra)
    made.seen = replace(made.seen, restores=records)
    for view in made.views:
        if view.kind == "restore":
            made.plans[view.id] = plan(WISH)
    return made
