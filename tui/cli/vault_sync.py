"""`mastovault vault sync`: fill what one vault lacks from the others, without the hosts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError
from tui.cli import show
from tui.cli.follow import Follower, Order
from tui.cli.read_only import require_change
from tui.cli.vault import known

if TYPE_CHECKING:
    from backends.operations.sync_plan import SyncPlan


@click.command("sync")
@click.argument("target")
@click.option("--from", "source", metavar="VAULT", help="Only what this vault holds; else all others.")
@click.option("--host", "hosts", metavar="HOST", multiple=True, help="Only this host's snapshots; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Also what nobody trusted has signed.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied; copy nothing.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def command(
    paths: Paths,
    target: str,
    source: str | None,
    hosts: Sequence[str],
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Copy to the vault TARGET the snapshots that it lacks, as they are: no host and no key is needed.

    Newest first; what is there already is not copied again, so that it can be stopped and begun anew at any time.
    """
    config = load(paths.config_file)
    known(config.vaults, target)
    if source is not None and known(config.vaults, source) == target:
        raise ConfigurationError("a vault cannot be synced from itself", "Name another one with --from.")
    wanted = _hosts(config, hosts, target)
    if dry_run:
        return _show(paths, config, wanted, source, target, as_json=as_json, all_=everything)
    require_change("a sync")
    options: dict[str, Any] = {"target": target, "all": everything}
    if source:
        options["source"] = source
    orders = {host: Order("sync", config.hosts[host].assets, options) for host in wanted}
    return Follower(paths, as_json=as_json, interactive=sys.stdin.isatty()).carry_out(orders, config.limits.runs)


def _hosts(config: Config, named: Sequence[str], target: str) -> list[str]:
    for host in named:
        if host not in config.hosts:
            raise ConfigurationError(f"no host named {host} is configured", "`mastovault host list` shows them.")
    found = list(named) or [host for host in config.hosts if target in config.vaults_of(host)]
    if not found:
        raise ConfigurationError(
            f"no host's backups go to {target}", "Add it to the `vaults` of a host, or name one with --host."
        )
    return found


def _show(
    paths: Paths, config: Config, hosts: Sequence[str], source: str | None, target: str, *, as_json: bool, all_: bool
) -> int:
    from backends.operations.sync import plan_sync

    plan = plan_sync(config, paths, hosts, source, target, everything=all_)
    if as_json:
        show.document(_document(plan))
    else:
        _print(plan)
    return 0 if plan.fits else 1


def _print(plan: SyncPlan) -> None:
    for name, why in plan.away.items():
        click.echo(f"{name} cannot be read: {why}")
    for item in plan.items:
        word = "repair" if item.repair else "copy"
        click.echo(f"{word:7}{item.snapshot.id}  {show.size(item.bytes)}  from {', '.join(item.sources)}")
    for each in plan.left_out:
        click.echo(f"leave  {each.snapshot.id}  {each.why}")
    room = "" if plan.free_bytes is None else f", {show.size(plan.free_bytes)} free there"
    short = "" if plan.fits else ": NOT ENOUGH ROOM"
    click.echo(f"{len(plan.items)} snapshots, {show.size(plan.bytes)} to {plan.target}{room}{short}")


def _document(plan: SyncPlan) -> dict[str, Any]:
    return {
        "target": plan.target,
        "source": plan.source,
        "bytes": plan.bytes,
        "free_bytes": plan.free_bytes,
        "fits": plan.fits,
        "copy": [
            {
                "snapshot": item.snapshot.id,
                "bytes": item.bytes,
                "sources": list(item.sources),
                "repair": item.repair,
            }
            for item in plan.items
        ],
        "leave": [{"snapshot": each.snapshot.id, "why": each.why} for each in plan.left_out],
        "away": dict(plan.away),
    }
