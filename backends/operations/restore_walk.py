"""Walking through the steps of a restore, forward and back, with the journal ahead of every one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from backends.config.schema import Config
from backends.errors import ConnectionFailed, Damaged, MastovaultError
from backends.model import Asset, JobResult, JobState, Secret
from backends.operations.line import Line, pause
from backends.operations.mishap import internal
from backends.progress import Job
from backends.restore.base import Action, Target, Way, Work
from backends.restore.journal import Journal, State
from backends.restore.plan import Phase, RestoreRequest
from backends.restore.source import Source
from backends.restore.target import find_target
from backends.restore.timing import BYTES

_PATIENCE = 6
"""Connections tried in a row before a restore is left to be continued later: about two minutes."""
_SAME_STEP = 3
"""How often one step may be cut off before it counts as failed."""


class Walk:
    """One restore on its way. Not for several threads."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        actions: Sequence[Action],
        found: Mapping[Asset, Source],
        target: Target,
        line: Line,
        jobs: Mapping[Asset, Job],
    ) -> None:
        self._config, self._journal, self._line = config, journal, line
        self._request = journal.known.request
        self._actions, self._sources, self._target, self._jobs = list(actions), found, target, jobs
        self._main = jobs[min(jobs, key=list(Asset).index)]
        self._watched: dict[Asset, Job] = dict(jobs)
        self.warnings: list[str] = []
        """What failed after everything was in place and up again."""

    def forward(self) -> State:
        """Do what is not done yet; what fails before new data is live is rolled back.

        Raises:
            MastovaultError: what ended it. The journal says what became of it: rolled back, or open.
        """
        self._journal.set(BYTES, {asset.value: source.manifest.bytes for asset, source in self._sources.items()})
        last_swap = max((place for place, each in enumerate(self._actions) if each.info.phase.live), default=-1)
        for place, action in enumerate(self._actions):
            if action.info.id in self._journal.known.done:
                continue
            try:
                self._do(action)
            except MastovaultError as error:
                self._mark(action, "failed")
                if place <= last_swap or action.info.phase <= Phase.SWAP:
                    self._roll_back(error)
                    raise
                if action.info.phase is not Phase.AFTER:
                    raise self._attention(error) from None
                self.warnings.append(f"{action.info.name}: {error.sentence}")
                self._job(action).warn(self.warnings[-1])
        self._journal.end("done", "; ".join(self.warnings))
        return "done"

    def back(self, way: Way) -> State:
        """Take back every step that was begun, the last one first. Raises what keeps it from going on."""
        self._journal.walk(way)
        self._watched = {asset: _Unstoppable(job) for asset, job in self._jobs.items()}
        begun = self._journal.known.begun
        for action in [each for each in reversed(self._actions) if each.info.id in begun]:
            job = self._job(action)
            job.step(f"back: {action.info.name}")
            job.log(f"taking back: {action.info.name}")
            self._again(action, action.undo, way)
            self._journal.undone(action.info.id)
            self._mark(action, "undone")
        state: State = "rolled_back" if way == "rollback" else "undone"
        self._journal.end(state)
        return state

    def forget(self) -> State:
        """Give up everything that was kept for the way back."""
        for action in self._actions:
            self._job(action).step(f"forget: {action.info.name}")
            self._again(action, action.forget, "undo")
        self._journal.end("forgotten")
        return "forgotten"

    def _do(self, action: Action) -> None:
        began = time.monotonic()
        # Once new data is live Mastodon must come up again, whoever cancels; after that everything can wait.
        committed = Phase.SWAP < action.info.phase < Phase.AFTER
        self._watched = {asset: _Unstoppable(job) if committed else job for asset, job in self._jobs.items()}
        job = self._job(action)
        job.check_cancelled()
        self._journal.begin(action.info.id, live=action.info.phase.live)
        self._mark(action, "begun")
        job.step(action.info.name)
        job.log(f"{action.info.name}: {action.info.what}")
        self._again(action, action.do, "rollback")
        self._journal.done(action.info.id, time.monotonic() - began)
        self._mark(action, "done")

    def _again(self, action: Action, act: Callable[[Work], None], way: Way) -> None:
        """Carry a function of a step out; after a lost connection, or with the next copy of damaged bytes, again."""
        cut = 0
        while True:
            job = self._job(action)
            try:
                return act(self._work(job, way))
            except ConnectionFailed as error:
                job.check_cancelled()
                cut += 1
                if cut > _SAME_STEP or not error.retryable:
                    raise
                job.log(f"{error.sentence}; connecting again")
                self._reconnect(job)
            except Damaged as error:
                source = self._sources.get(action.info.asset) if action.info.asset else None
                if source is None or not source.give_up_copy(error):
                    raise
                job.log(f"{error.sentence} Trying the copy in {source.vaults[0].name}.")
            except MastovaultError:
                job.check_cancelled()  # what a cancel ended says something else about why
                raise
            except Exception as error:  # noqa: BLE001 - a bug in one step must not keep the others from being undone
                raise internal(error, "the restore") from None

    def _reconnect(self, job: Job) -> None:
        self._line.lose()
        time.sleep(pause(1) / 4)
        connection = self._line.connect(job.log, _waiting(job), job.ask, attempts=_PATIENCE)
        host = self._config.hosts[self._request.host]
        self._target = find_target(connection, host, self._request, self._sources)

    def _work(self, job: Job, way: Way) -> Work:
        return Work(
            request=self._request,
            target=self._target,
            sources=self._sources,
            job=job,
            memory=self._journal,
            way=way,
        )

    def _roll_back(self, error: MastovaultError) -> None:
        """Take back what was begun; what cannot be is left for later, and `error` says so."""
        said = error.sentence
        self._main.log(f"{said}; rolling back")
        try:
            self.back("rollback")
        except MastovaultError as second:
            self._journal.end("open", f"{said}; and rolling back stopped: {second.sentence}")
            error.reword(
                f"{said}; rolling back stopped: {second.sentence}",
                f"{second.next_step} Then `mastovault restore --roll-back {self._request.id}` goes on with it.".strip(),
            )
        else:
            self._journal.end("rolled_back", said)
            error.reword(f"{said.rstrip('.')}; rolled back, the live server is as it was")

    def _attention(self, error: MastovaultError) -> MastovaultError:
        """What to say when the new data is in place and Mastodon does not come up with it."""
        self._journal.end("attention", error.sentence)
        return error.reword(
            f"the new data is in place, but {error.sentence}",
            f"{error.next_step} Then `mastovault restore --resume {self._request.id}` goes on, "
            f"or `mastovault undo {self._request.id}` brings back what was there.".strip(),
        )

    def _job(self, action: Action) -> Job:
        asset = action.info.asset
        if asset in self._watched:
            return self._watched[asset]
        return self._watched[min(self._watched, key=list(Asset).index)]

    def _mark(self, action: Action, state: str) -> None:
        mark = getattr(self._main, "mark", None)
        if mark is not None:
            mark(action.info.id, state)


class _Unstoppable:
    """A job whose cancel switch is out of reach: a way back is never left half-way because somebody is impatient."""

    def __init__(self, inner: Job) -> None:
        self._inner = inner
        self.id = inner.id

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        self._inner.step(name, total, unit)

    def advance(self, amount: int) -> None:
        self._inner.advance(amount)

    def log(self, line: str) -> None:
        self._inner.log(line)

    def warn(self, text: str) -> None:
        self._inner.warn(text)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def check_cancelled(self) -> None:
        pass

    def ask(self, prompt: str) -> Secret | None:
        return self._inner.ask(prompt)


def outcome(
    state: State, request: RestoreRequest, journal: Journal, began: float, warnings: Sequence[str] = ()
) -> list[JobResult]:
    """The results of a restore that came to its end."""
    down = journal.get("downtime_seconds")
    stood = f"; Mastodon was down for {down:.1f} s" if isinstance(down, int | float) else ""
    what = {
        "done": f"restored{stood}; what was there is kept, `mastovault undo {request.id}` brings it back",
        "rolled_back": "rolled back: the live server is as it was before",
        "undone": f"undone{stood}; what the restore had brought is kept until `mastovault undo {request.id} --forget`",
        "forgotten": "what was kept for the way back is removed",
    }.get(state, str(state))
    sizes = journal.get(BYTES) or {}
    return [
        JobResult(
            host=request.host,
            asset=asset,
            state=JobState.DONE,
            snapshot=request.snapshots.get(asset),
            bytes=sizes.get(asset.value, 0),
            seconds=time.monotonic() - began,
            in_part=bool(warnings),
            warnings=tuple(warnings),
            detail=what,
        )
        for asset in request.assets
    ]


def _waiting(job: Job) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            job.check_cancelled()
            time.sleep(min(0.1, left))

    return wait
