"""Restoring: the plan as a value, and carrying it out so that nothing live is lost whatever happens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import AssetFailed, ConfigurationError, ConnectionFailed, KeyUnavailable, MastovaultError
from backends.model import Asset, JobResult, Secret, SnapshotInfo
from backends.operations.choose import openable, sources
from backends.operations.line import ATTEMPTS, Line, pause
from backends.operations.locks import hold
from backends.operations.reading import reading
from backends.operations.restore_walk import Walk, outcome
from backends.operations.trust_words import trust_findings
from backends.progress import Job
from backends.restore.base import Target
from backends.restore.journal import new_journal, opened
from backends.restore.parts import actions_of, parts_of
from backends.restore.plan import Copy, Finding, Look, Phase, RestorePlan, RestoreRequest, StepInfo
from backends.restore.source import Source
from backends.restore.target import find_target, shown
from backends.restore.timing import expected

OnResult = Callable[[JobResult], None]
Ask = Callable[[str], Secret | None]

_KEPT = {
    Asset.DATABASE: "the database",
    Asset.SECRETS: "the settings and secrets",
    Asset.MEDIA: "the media",
    Asset.REDIS: "Redis",
}


def plan_restore(
    config: Config,
    paths: Paths,
    request: RestoreRequest,
    ask: Ask | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> RestorePlan:
    """Everything that can be known before a restore: nothing is changed on the target.

    Raises:
        ConfigurationError, KeyUnavailable, NotFound, VaultError: the request makes no sense, or cannot be read.
        ConnectionFailed, LoginRefused, DiscoveryFailed: why the target cannot be looked at.
    """
    _require_sane(config, request)
    link = Line(request.host, config.hosts[request.host])
    try:
        found = sources(config, Catalog(paths.cache_dir, config.signers), request.snapshots, ask, log)
        connection = link.connect(log, time.sleep, ask)
        target = find_target(connection, config.hosts[request.host], request, found)
        plan, _ = look_and_plan(config, paths, request, target, found)
        return plan
    finally:
        link.close()


def restore_host(
    config: Config,
    paths: Paths,
    request: RestoreRequest,
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: OnResult = lambda _result: None,
    planned: Callable[[bytes], None] = lambda _plan: None,
) -> list[JobResult]:
    """Carry a restore out.

    What fails before new data is live is rolled back; what could not be (the connection is gone for good, the process
    was killed) can be continued or rolled back later: see `undo.go_on`.

    Args:
        config: the configuration.
        paths: where state and cache are.
        request: what to restore; `request.confirm` must be what its plan asks for.
        jobs: where each asset reports to.
        run_id: the run this belongs to.
        on_result: told of each result.
        planned: told of the plan, as JSON, before anything is done.

    Returns:
        One result for each asset. Faults are results, never raised.
    """
    began = time.monotonic()
    main = next(iter(jobs.values()))
    line: Line | None = None
    try:
        _require_sane(config, request)
        line = Line(request.host, config.hosts[request.host])
        with (
            holding(paths, request, run_id),
            reading(run_id, "restored", main.log, main.check_cancelled) as leases,
        ):
            main.step("looking")
            catalog = Catalog(paths.cache_dir, config.signers)
            found = sources(config, catalog, request.snapshots, main.ask, main.log, leases)
            target, plan, looks = _look(config, paths, request, found, line, main)
            planned(plan.to_json())
            _require_go(plan)
            with opened(new_journal(paths.state_dir, request)) as journal:
                for name, look in looks.items():
                    journal.keep_facts(name, look.facts)
                actions = actions_of(request, journal.known.facts)
                walk = Walk(config, journal, actions, found, target, line, jobs)
                state = walk.forward()
                results = outcome(state, request, journal, began, walk.warnings)
    except MastovaultError as error:
        results = failed(request, error, began)
    finally:
        if line is not None:
            line.close()
    for result in results:
        on_result(result)
    return results


def _look(
    config: Config, paths: Paths, request: RestoreRequest, found: Mapping[Asset, Source], line: Line, job: Job
) -> tuple[Target, RestorePlan, dict[str, Look]]:
    """Look at the target; a line that is lost meanwhile is connected again, some times. Raises `ConnectionFailed`."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            connection = line.connect(job.log, _sleep(job), job.ask)
            target = find_target(connection, config.hosts[request.host], request, found)
            return (target, *look_and_plan(config, paths, request, target, found))
        except ConnectionFailed as error:
            job.check_cancelled()
            line.lose()
            if attempt == ATTEMPTS or not error.retryable:
                raise
            job.log(f"{error.sentence}; looking again ({attempt + 1} of {ATTEMPTS})")
            _sleep(job)(pause(attempt))
    raise AssertionError("unreachable")


def look_and_plan(
    config: Config, paths: Paths, request: RestoreRequest, target: Target, found: Mapping[Asset, Source]
) -> tuple[RestorePlan, dict[str, Look]]:
    """The plan, and what each part's look gave. Raises `ConnectionFailed`."""
    looks: dict[str, Look] = {}
    for name, part in parts_of(request).items():
        try:
            looks[name] = part.look(request, target, found)
        except AssetFailed as error:
            blocked = Finding(level="block", text=error.sentence, way_out=error.next_step, asset=part.asset)
            looks[name] = Look(findings=(blocked,))
    untrusted = trust_findings(found.values(), config.signers)
    findings = [*untrusted, *_readable(found), *(finding for look in looks.values() for finding in look.findings)]
    blocked_parts = {name for name, look in looks.items() if not look.facts}
    actions = actions_of(request, {name: look.facts for name, look in looks.items() if name not in blocked_parts})
    steps = tuple(_timed(paths, request, action.info, found) for action in actions)
    known = {snapshot.id: snapshot for snapshot in Catalog(paths.cache_dir, config.signers).snapshots()}
    plan = RestorePlan(
        request=request,
        target=shown(target, config.hosts[request.host].address),
        copies=tuple(_copy(source, known) for source in found.values()),
        steps=steps,
        findings=tuple(findings),
        spaces=tuple(space for look in looks.values() for space in look.spaces),
        lost=tuple(text for look in looks.values() for text in look.lost),
        untouched=(
            *(words for asset, words in _KEPT.items() if asset not in request.assets),
            *(text for look in looks.values() for text in look.untouched),
        ),
        seconds=_sum(steps, lambda _step: True),
        downtime_seconds=_sum(steps, lambda step: Phase.STOP <= step.phase <= Phase.START),
        confirm=confirmation(request),
    )
    return plan, looks


def confirmation(request: RestoreRequest) -> str:
    """What must be typed: `<host>/<asset>`, or `<host>` for more than one asset."""
    assets = request.assets
    return f"{request.host}/{assets[0]}" if len(assets) == 1 else request.host


def failed(request: RestoreRequest, error: MastovaultError, began: float) -> list[JobResult]:
    """The results of a restore that did not even begin."""
    from backends.operations.mishap import failure

    return [failure(request.host, asset, error, began) for asset in request.assets]


@contextlib.contextmanager
def holding(paths: Paths, request: RestoreRequest, run_id: str) -> Any:
    """Keep backups and other restores of the target away while this one works. Raises `Locked`."""
    with contextlib.ExitStack() as stack:
        for asset in Asset:
            stack.enter_context(hold(paths.state_dir, request.host, asset, run_id, "restored"))
        yield


def _require_sane(config: Config, request: RestoreRequest) -> None:
    if request.host not in config.hosts:
        raise ConfigurationError(f"no host named {request.host} is configured", "`mastovault host list` shows them.")
    if not request.assets:
        raise ConfigurationError("nothing was chosen to restore", "`mastovault list` shows the snapshots.")
    for asset, snapshot in request.snapshots.items():
        if snapshot.split("/")[1:2] != [asset.value]:
            raise ConfigurationError(f"{snapshot} is no snapshot of {asset}", "`mastovault list` shows them.")


def _require_go(plan: RestorePlan) -> None:
    """Raise for a plan that must not run."""
    if plan.blocked:
        first, more = plan.blocked[0], len(plan.blocked) - 1
        also = f" (and {more} more: `restore --plan` shows them)" if more else ""
        override = f" Or type {plan.request.host}/{first.accept} to do it all the same." if first.accept else ""
        raise AssetFailed(f"{first.text}{also}; nothing was changed", f"{first.way_out}{override}".strip())
    if plan.request.confirm != plan.confirm:
        raise ConfigurationError(
            f"a restore in place must be confirmed by typing {plan.confirm}; nothing was changed",
            f"Give --confirm {plan.confirm}, or use --plan to only look.",
        )


def _readable(found: Mapping[Asset, Source]) -> list[Finding]:
    """Whether each snapshot can be opened with the identity at hand, and is not known to be damaged."""
    findings = []
    for asset, source in found.items():
        if source.damage:
            text = f"{source.manifest.id} is damaged in every vault: {source.damage}"
            findings.append(Finding(level="block", text=text, way_out="Choose another snapshot.", asset=asset))
            continue
        try:
            openable(source)
        except KeyUnavailable:
            raise
        except MastovaultError as error:
            findings.append(
                Finding(level="block", text=error.sentence, way_out="Choose another snapshot or vault.", asset=asset)
            )
    return findings


def _timed(paths: Paths, request: RestoreRequest, info: StepInfo, found: Mapping[Asset, Source]) -> StepInfo:
    """The step with the time that history expects, where there is one."""
    source = found.get(info.asset) if info.asset else None
    size = source.manifest.bytes if source else 0
    seconds = expected(paths.state_dir, request.host, info.id, size)
    return info if seconds is None else replace(info, seconds=seconds)


def _sum(steps: tuple[StepInfo, ...], wanted: Callable[[StepInfo], bool]) -> float | None:
    known = [step.seconds for step in steps if wanted(step) and step.seconds is not None]
    return round(sum(known), 1) if known else None


def _copy(source: Source, known: Mapping[str, SnapshotInfo]) -> Copy:
    manifest = source.manifest
    info = known.get(manifest.id)
    names = tuple(vault.name for vault in source.vaults)
    return Copy(
        asset=manifest.asset,
        snapshot=manifest.id,
        at=manifest.started_at,
        bytes=manifest.bytes,
        vault=names[0] if names else "",
        vaults=names,
        verified_at=info.verified_at if info else None,
        drilled_at=info.drilled_at if info else None,
        in_part=manifest.in_part,
    )


def _sleep(job: Job) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            job.check_cancelled()
            time.sleep(min(0.1, left))

    return wait
