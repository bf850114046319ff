"""`mastovault restore`: the plan, and carrying it out."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError
from backends.model import Asset, SnapshotInfo, utc_now
from backends.operations.choose import resolve
from backends.operations.fleet import refresh_vaults
from backends.restore.plan import RedisChoice, RestorePlan, RestoreRequest, request_to_json
from tui.cli import show_plan
from tui.cli.accept import accepted
from tui.cli.ask import ask
from tui.cli.follow import Follower, Order
from tui.cli.read_only import require_change


@click.command("restore")
@click.argument("source", metavar="SNAPSHOT|POINT|HOST[/ASSET]", required=False)
@click.option("--to", "to", metavar="HOST|DIR", help="Another host, or a new directory here for the plain files.")
@click.option("--plan", "only_plan", is_flag=True, help="Show every step with its exact commands; change nothing.")
@click.option("--confirm", metavar="NAME", help="What the plan asks to be typed: HOST/ASSET, or HOST.")
@click.option("--only", "only", metavar="ASSET,...", help="Of a restore point, only these assets.")
@click.option(
    "--redis",
    type=click.Choice([choice.value for choice in RedisChoice]),
    default="restore",
    help="Bring Redis back, or start it empty.",
)
@click.option("--path", "subtree", default="", help="Media: only what is below this path.")
@click.option("--exact", is_flag=True, help="Media: move aside what the snapshot does not hold.")
@click.option("--accept", multiple=True, metavar="HOST/WORD", help="Go on although this was found, by its word.")
@click.option("--resume", metavar="ID", help="Go on with an interrupted restore.")
@click.option("--roll-back", metavar="ID", help="Take back an interrupted restore.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def command(
    paths: Paths,
    source: str | None,
    to: str | None,
    only_plan: bool,
    confirm: str | None,
    only: str | None,
    redis: str,
    subtree: str,
    exact: bool,
    accept: Sequence[str],
    resume: str | None,
    roll_back: str | None,
    as_json: bool,
) -> int:
    """Restore SOURCE: beside the live data first, proven, then swapped in. What was there is kept for `undo`."""
    if not only_plan:
        require_change("a restore")
    config = load(paths.config_file)
    follower = Follower(paths, as_json=as_json, interactive=sys.stdin.isatty())
    if resume or roll_back:
        from tui.cli.undo import go_on

        return go_on(paths, follower, (resume or roll_back or ""), "resume" if resume else "rollback")
    if not source:
        raise ConfigurationError("nothing is named to restore", "Name a snapshot, a restore point, HOST or HOST/ASSET.")
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    chosen = _only(resolve(config, catalog, source), only)
    snapshots = {asset: snapshot.id for asset, snapshot in chosen.items()}
    directory = _directory(config, to)
    if directory is not None:
        words = accepted(next(iter(chosen.values())).host, accept)
        return _files_here(config, paths, follower, snapshots, directory, subtree, words, only_plan, as_json)
    request = _request(chosen, to, redis, subtree, exact, accept)
    if only_plan:
        return _show_plan(config, paths, request, as_json=as_json)
    if confirm is None and sys.stdin.isatty() and not as_json:
        confirm = _look_and_ask(config, paths, request)
    return _carry_out(follower, request, confirm or "")


def _only(chosen: dict[Asset, SnapshotInfo], only: str | None) -> dict[Asset, SnapshotInfo]:
    if only is None:
        return chosen
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := wanted - {*Asset}:
        raise ConfigurationError(f"{', '.join(sorted(unknown))} is no asset", f"The assets are {', '.join(Asset)}.")
    kept = {asset: snapshot for asset, snapshot in chosen.items() if asset.value in wanted}
    if not kept:
        raise ConfigurationError(f"there is no snapshot of {only} in it", "`mastovault list` shows what there is.")
    return kept


def _directory(config: Config, to: str | None) -> Path | None:
    """Where files are to go here; None for a host."""
    if to is None or to in config.hosts:
        return None
    if "/" in to or to.startswith("."):
        return Path(to).expanduser().absolute()
    raise ConfigurationError(
        f"no host named {to} is configured", "A directory is named with a slash in it, for example ./files."
    )


def _request(
    chosen: dict[Asset, SnapshotInfo],
    to: str | None,
    redis: str,
    subtree: str,
    exact: bool,
    accept: Sequence[str],
) -> RestoreRequest:
    now = utc_now()
    host = to or next(iter(chosen.values())).host
    empty = redis == RedisChoice.EMPTY
    return RestoreRequest(
        id=f"{now:%Y%m%dt%H%M%S}{secrets.token_hex(2)}",
        host=host,
        snapshots={asset: info.id for asset, info in chosen.items() if not (empty and asset is Asset.REDIS)},
        redis=RedisChoice(redis),
        subtree=subtree,
        exact=exact,
        accept=tuple(accepted(host, accept)),
        at=now,
    )


def _show_plan(config: Config, paths: Paths, request: RestoreRequest, *, as_json: bool) -> int:
    plan = _made(config, paths, request, quiet=as_json)
    if as_json:
        click.echo(plan.to_json().decode())
    else:
        show_plan.plan(plan)
    return 1 if plan.blocked else 0


def _made(config: Config, paths: Paths, request: RestoreRequest, *, quiet: bool) -> RestorePlan:
    from backends.operations.restore import plan_restore

    return plan_restore(config, paths, request, ask, lambda line: None if quiet else click.echo(line, err=True))


def _look_and_ask(config: Config, paths: Paths, request: RestoreRequest) -> str:
    """Show the plan and let the operator type its name; what is typed is compared by the run."""
    plan = _made(config, paths, request, quiet=False)
    show_plan.plan(plan)
    if plan.blocked:
        return ""
    typed: str = click.prompt(f"Type {plan.confirm} to restore (anything else leaves all as it is)", default="")
    return typed


def _carry_out(follower: Follower, request: RestoreRequest, confirm: str) -> int:
    document = json.loads(request_to_json(request))
    document["confirm"] = confirm
    return follower.carry_out({request.host: Order("restore", request.assets, {"request": document})})


def _files_here(
    config: Config,
    paths: Paths,
    follower: Follower,
    snapshots: dict[Asset, str],
    directory: Path,
    subtree: str,
    accept: Sequence[str],
    only_plan: bool,
    as_json: bool,
) -> int:
    from backends.operations.extract import plan_extract

    if only_plan:
        plan = plan_extract(config, paths, snapshots, directory, subtree=subtree, accept=accept, ask=ask)
        if as_json:
            click.echo(plan.to_json().decode())
        else:
            show_plan.plan(plan)
        return 1 if plan.blocked else 0
    host = next(iter(snapshots.values())).partition("/")[0]
    options = {
        "snapshots": {asset.value: snapshot for asset, snapshot in snapshots.items()},
        "directory": str(directory),
        "subtree": subtree,
        "accept": list(accept),
    }
    return follower.carry_out({host: Order("extract", tuple(snapshots), options)})
