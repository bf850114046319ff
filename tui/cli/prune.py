"""`mastovault prune`: remove what the retention no longer keeps, each snapshot with its reason."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
    from backends.operations.prune import PrunePlan, VaultPrune
    from backends.retention import Verdict

Work = Mapping[str, tuple[Asset, ...]]


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
    if dry_run or not yes:
        if not dry_run:
            _require_somebody()
        plan = plan_prune(config, paths, list(work), vaults=vaults)
        if dry_run:
            _show(plan, work, as_json=as_json)
            return 3 if plan.away else 0
        _print(plan, work, kept=False, err=as_json)
        click.confirm("Remove them?", default=False, abort=True, err=True)
    options: dict[str, Any] = {"vaults": list(vaults)}
    orders = {host: Order("prune", assets, options) for host, assets in work.items()}
    return Follower(paths, as_json=as_json, interactive=sys.stdin.isatty()).carry_out(orders, config.limits.runs)


def _require_somebody() -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "a prune removes snapshots, and nobody is there to be asked", "Look with --dry-run, then add --yes."
        )


def _show(plan: PrunePlan, work: Work, *, as_json: bool) -> None:
    if as_json:
        show.document(_document(plan, work))
    else:
        _print(plan, work)


def _print(plan: PrunePlan, work: Work, *, kept: bool = True, err: bool = False) -> None:
    """Every snapshot with its reason, then what goes from each vault; on standard error where JSON is wanted."""
    for part in plan.parts:
        for verdict in _judged(part, work):
            if kept or not verdict.keep:
                word = "keep  " if verdict.keep else "remove"
                click.echo(f"{word}  {part.vault}  {verdict.snapshot.id}  {'; '.join(verdict.why)}", err=err)
    for note in plan.notes:
        click.echo(note, err=err)
    for name, why in plan.away.items():
        click.echo(f"{name} did not answer, nothing is removed there: {why}", err=err)
    vaults = _by_vault(plan, work)
    for name, (count, size) in vaults.items() if len(vaults) > 1 else ():
        click.echo(f"{name}: {count} to remove, up to {show.size(size)} to be freed", err=err)
    count, size = sum(each[0] for each in vaults.values()), sum(each[1] for each in vaults.values())
    click.echo(f"{count} to remove, up to {show.size(size)} to be freed", err=err)


def _judged(part: VaultPrune, work: Work) -> list[Verdict]:
    return [verdict for verdict in part.verdicts if verdict.snapshot.asset in work[part.host]]


def _by_vault(plan: PrunePlan, work: Work) -> dict[str, tuple[int, int]]:
    """How many snapshots and bytes go, by vault."""
    found: dict[str, tuple[int, int]] = {}
    for part in plan.parts:
        count, size = found.get(part.vault, (0, 0))
        count += sum(not verdict.keep for verdict in _judged(part, work))
        size += sum(part.freed.get(asset, 0) for asset in work[part.host])
        found[part.vault] = count, size
    return found


def _document(plan: PrunePlan, work: Work) -> dict[str, Any]:
    vaults = _by_vault(plan, work)
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
            for verdict in _judged(part, work)
        ],
        "vaults": [{"vault": name, "remove": count, "bytes": size} for name, (count, size) in vaults.items()],
        "bytes": sum(size for _, size in vaults.values()),
        "notes": list(plan.notes),
        "away": dict(plan.away),
    }
