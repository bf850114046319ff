"""What a run can be asked to do: each kind, and what it hands to the operations. Loaded when a run's turn has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from backends.config.paths import Paths
from backends.errors import ConfigurationError, MastovaultError
from backends.model import Asset, JobResult, JobState
from backends.runs.folder import Request, folder_of
from backends.runs.job import RunJob
from backends.runs.plans import PLAN

OnResult = Callable[[JobResult], None]
CarryOut = Callable[[Paths, Request, Mapping[Asset, RunJob], OnResult], None]


class Kind(NamedTuple):
    """One kind of run. `light` ones only look: they wait for nobody's turn."""

    carry_out: CarryOut
    light: bool = False


def _back_up(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.backup import back_up_host
    from backends.runs.recover import recover

    config = load(paths.config_file)
    recover(paths, config)
    back_up_host(config, paths, request.host, request.assets, jobs, request.id, on_result=on_result)


def _plan(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    """Make the plan of a restore, or of files here, and leave it in the run's folder."""
    from backends.config.load import load
    from backends.operations.restore import plan_restore

    config = load(paths.config_file)
    first = next(iter(jobs.values()))
    first.step("looking")
    if "directory" in request.options:
        from pathlib import Path

        from backends.operations.extract import plan_extract

        directory, subtree = Path(str(request.options["directory"])), str(request.options.get("subtree", ""))
        plan = plan_extract(
            config, paths, snapshots(request), directory, subtree=subtree, accept=_accepted(request), ask=first.ask
        )
    else:
        plan = plan_restore(config, paths, _restore_request(request), ask=first.ask, log=first.log)
    (folder_of(paths.state_dir, request.id) / PLAN).write_bytes(plan.to_json())
    for asset in jobs:
        on_result(JobResult(host=request.host, asset=asset, state=JobState.DONE))


def _restore(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.restore import restore_host

    def planned(plan: bytes) -> None:
        (folder_of(paths.state_dir, request.id) / PLAN).write_bytes(plan)

    restore_host(load(paths.config_file), paths, _restore_request(request), jobs, request.id, on_result, planned)


def _undo(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.undo import go_on

    restore, what = str(request.options["restore"]), str(request.options["what"])
    go_on(load(paths.config_file), paths, restore, what, jobs, request.id, on_result)


def _extract(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from pathlib import Path

    from backends.config.load import load
    from backends.operations.extract import extract

    directory, subtree = Path(str(request.options["directory"])), str(request.options.get("subtree", ""))
    config = load(paths.config_file)
    extract(
        config,
        paths,
        snapshots(request),
        directory,
        jobs,
        request.id,
        on_result,
        subtree=subtree,
        accept=_accepted(request),
    )


def _verify(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.verify import verify_host

    sample = request.options.get("sample")
    verify_host(
        load(paths.config_file),
        paths,
        request.host,
        snapshots(request),
        jobs,
        request.id,
        on_result,
        sample=None if sample is None else int(sample),
    )


def _drill(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.drill import drill_host

    on = request.options.get("on")
    config = load(paths.config_file)
    drill_host(
        config,
        paths,
        request.host,
        snapshots(request),
        jobs,
        request.id,
        on_result,
        on=str(on) if on else None,
        accept=_accepted(request),
    )


def _rewrap(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.rewrap import rewrap_host

    rewrap_host(load(paths.config_file), paths, request.host, jobs, request.id, on_result)


def _sync(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.sync import sync_host

    source = request.options.get("source")
    sync_host(
        load(paths.config_file),
        paths,
        request.host,
        jobs,
        request.id,
        on_result,
        source=str(source) if source else None,
        target=str(request.options.get("target") or ""),
        everything=request.options.get("all") is True,
    )


def _prune(paths: Paths, request: Request, jobs: Mapping[Asset, RunJob], on_result: OnResult) -> None:
    from backends.config.load import load
    from backends.operations.prune import prune_host

    config = load(paths.config_file)
    named: Any = request.options.get("vaults") or ()
    vaults = [str(name) for name in named if str(name) in config.vaults]
    prune_host(config, paths, request.host, jobs, request.id, on_result, vaults=vaults)


def snapshots(request: Request) -> dict[Asset, str]:
    """The snapshots that a request names. Raises `ConfigurationError` when it names none as it should."""
    found: Any = request.options.get("snapshots")
    try:
        return {Asset(asset): str(snapshot) for asset, snapshot in found.items()}
    except (AttributeError, ValueError):
        raise ConfigurationError("the request of this run names no snapshots") from None


def _accepted(request: Request) -> tuple[str, ...]:
    """The words of findings that the operator typed to go on all the same."""
    words: Any = request.options.get("accept") or ()
    return tuple(str(word) for word in words)


def _restore_request(request: Request) -> Any:
    from backends.restore.plan import request_from_json

    try:
        return request_from_json(json.dumps(request.options["request"]).encode())
    except (KeyError, ValueError):
        raise ConfigurationError("the request of this run cannot be understood") from None


KINDS: Mapping[str, Kind] = {
    "backup": Kind(_back_up),
    "plan": Kind(_plan, light=True),
    "restore": Kind(_restore),
    "undo": Kind(_undo),
    "extract": Kind(_extract),
    "verify": Kind(_verify),
    "drill": Kind(_drill),
    "rewrap": Kind(_rewrap),
    "sync": Kind(_sync),
    "prune": Kind(_prune),
}


def kind_of(request: Request) -> Kind:
    """What a request asks for. Raises `MastovaultError` for a kind that this version does not know."""
    kind = KINDS.get(request.kind)
    if kind is None:
        raise MastovaultError(
            f"this version knows no {request.kind} run", "Was it begun by another version of Mastovault?"
        )
    return kind
