"""`mastovault backup`: one run a host, followed until all have ended."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.model import Asset, AssetStatus, Level, utc_now
from backends.operations.fleet import load_fleet, refresh_vaults
from tui.cli.follow import Follower
from tui.cli.read_only import require_change
from tui.cli.targets import chosen

_SOON = 0.9
"""Part of a goal after which a copy is due: a daily timer that is a minute early must not leave it for another day."""


@click.command("backup")
@click.argument("targets", metavar="[HOST[/ASSET]]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every asset of every host.")
@click.option("--due", is_flag=True, help="Only what nears its goal, was never backed up or may have changed.")
@click.option("--json", "as_json", is_flag=True, help="One event a line on standard output, nothing else.")
@click.option("--dry-run", is_flag=True, help="Show every step with its exact command; change nothing.")
@click.pass_obj
def command(paths: Paths, targets: Sequence[str], everything: bool, due: bool, as_json: bool, dry_run: bool) -> int:
    """Back up assets now. The runs go on when this terminal is closed; Ctrl-C cancels them."""
    if not dry_run:
        require_change("a backup")
    config = load(paths.config_file)
    work = chosen(config, targets, everything=everything or (due and not targets))
    if due:
        work = _due(config, paths, work)
        if not work:
            if not as_json:
                click.echo("Nothing is due.")
            else:
                click.echo('{"event": "summary", "results": []}')
            return 0
    from backends.operations.backup import require_ready

    for host in work:
        require_ready(config, host)
    if dry_run:
        return _show_plans(config, work, as_json=as_json)
    code = Follower(paths, as_json=as_json, interactive=sys.stdin.isatty()).back_up(work, config.limits.runs)
    _look_at_new_hosts(paths, work)
    return code


def _look_at_new_hosts(paths: Paths, hosts: Iterable[str]) -> None:
    """A host that nobody has looked at yet would stay unknown in `status`, however good its backups are."""
    from backends.runs.refresh import start_refresh

    seen = {known.host for known in Catalog(paths.cache_dir).observations()}
    if new := [host for host in hosts if host not in seen]:
        start_refresh(paths, new).wait()


def _due(config: Config, paths: Paths, work: dict[str, tuple[Asset, ...]]) -> dict[str, tuple[Asset, ...]]:
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    now = utc_now()
    due: dict[str, list[Asset]] = {}
    for row in load_fleet(config, catalog, now).assets:
        if row.asset in work.get(row.host, ()) and _is_due(row, now):
            due.setdefault(row.host, []).append(row.asset)
    return {host: tuple(asset for asset in Asset if asset in assets) for host, assets in due.items()}


def _is_due(row: AssetStatus, now: datetime) -> bool:
    # Kept by a provider, or nothing there yet.
    if row.level is Level.OK and row.newest is None:
        return False
    # Without a goal in days (secrets) the copy is compared with the host each time: that is how a change is seen.
    if row.newest is None or row.goal_seconds is None or row.newest.verify_failed:
        return True
    return (now - row.newest.at).total_seconds() >= row.goal_seconds * _SOON


def _show_plans(config: Config, work: dict[str, tuple[Asset, ...]], *, as_json: bool) -> int:
    from backends.errors import MastovaultError
    from backends.operations.backup import plan
    from tui.cli import show

    code = 0
    document = []
    for host, assets in work.items():
        try:
            plans = plan(config, host, assets)
        except MastovaultError as error:
            code = error.exit_code
            click.echo(f"mastovault: {error.sentence}\n  {error.next_step}".rstrip(), err=True)
            continue
        for each in plans:
            steps = [{"name": step.name, "what": step.what, "command": step.command} for step in each.steps]
            document.append(
                {
                    "host": host,
                    "asset": each.asset.value,
                    "steps": steps,
                    "warnings": list(each.warnings),
                    "blocked": each.blocked or None,
                }
            )
            if as_json:
                continue
            click.echo(f"{host}/{each.asset}" + (f"  cannot run: {each.blocked}" if each.blocked else ""))
            for number, step in enumerate(each.steps, 1):
                click.echo(f"  {number} {step.name}: {step.what}")
                if step.command:
                    click.echo(f"      $ {step.command}")
            for warning in each.warnings:
                click.echo(f"  note: {warning}")
    if as_json:
        show.document({"plans": document})
    return code
