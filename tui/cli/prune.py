"""`mastovault prune`: remove what the retention no longer keeps, each snapshot with its reason."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import ConfigurationError
from backends.model import Asset, rfc3339
from tui.cli import show
from tui.cli.follow import Follower, Order
from tui.cli.read_only import require_change
from tui.cli.targets import chosen as chosen_assets
from tui.cli.vault import known

if TYPE_CHECKING:
    from backends.operations.prune import PrunePlan


@click.command("prune")
@click.argument("targets", metavar="[HOST[/ASSET]]...", nargs=-1)
@click.option("--vault", "vaults", metavar="NAME", multiple=True, help="Only in this vault; may be repeated.")
@click.option("--dry-run", is_flag=True, help="List every snapshot with what becomes of it and why; remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def command(
    paths: Paths, targets: Sequence[str], vaults: Sequence[str], dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Remove the snapshots that no policy keeps any more, and what only they referred to.

    Without a target those of every host. The last good snapshot, the last proven one, what a kept database needs and
    what is under an Object Lock always stay.
    """
    from backends.operations.prune import plan_prune

    config = load(paths.config_file)
    for name in vaults:
        known(config.vaults, name)
    if not config.hosts:
        raise ConfigurationError("there are no hosts yet", "`mastovault host add` adds one.")
    work = chosen_assets(config, targets, everything=not targets)
    if not dry_run:
        require_change("a prune")
    plan = plan_prune(config, paths, list(work), vaults=vaults)
    if dry_run:
        if as_json:
            show.document(_document(plan, work))
        else:
            _print(plan, work)
        return 3 if plan.away else 0
    if not yes:
        _confirm(plan, work)
    options: dict[str, Any] = {"vaults": list(vaults)}
    orders = {host: Order("prune", assets, options) for host, assets in work.items()}
    return Follower(paths, as_json=as_json, interactive=sys.stdin.isatty()).carry_out(orders, config.limits.runs)


def _confirm(plan: PrunePlan, work: dict[str, tuple[Asset, ...]]) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "a prune removes snapshots, and nobody is there to be asked", "Look with --dry-run, then add --yes."
        )
    _print(plan, work, kept=False)
    click.confirm("Remove them?", default=False, abort=True, err=True)


def _print(plan: PrunePlan, work: dict[str, tuple[Asset, ...]], *, kept: bool = True) -> None:
    count = 0
    for part in plan.parts:
        for verdict in part.verdicts:
            if verdict.snapshot.asset not in work[part.host]:
                continue
            count += not verdict.keep
            if kept or not verdict.keep:
                word = "keep  " if verdict.keep else "remove"
                click.echo(f"{word}  {part.vault}  {verdict.snapshot.id}  {'; '.join(verdict.why)}")
    for name, why in plan.away.items():
        click.echo(f"{name} did not answer, nothing is removed there: {why}")
    click.echo(f"{count} to remove, {show.size(_bytes(plan, work))} to be freed")


def _bytes(plan: PrunePlan, work: dict[str, tuple[Asset, ...]]) -> int:
    whole = all(verdict.snapshot.asset in work[part.host] for part in plan.parts for verdict in part.verdicts)
    if whole:
        return plan.bytes
    return sum(each.bytes for part in plan.parts for each in part.going if each.asset in work[part.host])


def _document(plan: PrunePlan, work: dict[str, tuple[Asset, ...]]) -> dict[str, Any]:
    return {
        "snapshots": [
            {
                "snapshot": verdict.snapshot.id,
                "vault": part.vault,
                "at": rfc3339(verdict.snapshot.at),
                "bytes": verdict.snapshot.bytes,
                "keep": verdict.keep,
                "why": list(verdict.why),
            }
            for part in plan.parts
            for verdict in part.verdicts
            if verdict.snapshot.asset in work[part.host]
        ],
        "bytes": _bytes(plan, work),
        "away": dict(plan.away),
    }
