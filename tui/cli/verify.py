"""`mastovault verify`: read what is stored, and decode it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError
from backends.model import Asset
from backends.operations.choose import resolve
from backends.operations.fleet import refresh_vaults
from tui.cli.follow import Follower, Order
from tui.cli.read_only import require_change

_LATEST = "latest"


@click.command("verify")
@click.argument("what", metavar="[SNAPSHOT|HOST[/ASSET]]", required=False)
@click.option("--all", "everything", is_flag=True, help="The newest snapshot of every asset of every host.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Of each snapshot only N objects, at random.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def command(paths: Paths, what: str | None, everything: bool, sample: int | None, as_json: bool) -> int:
    """Read every vault's copy of WHAT, decrypt and decode it, and record in the vault what was found.

    HOST is the newest snapshot of each of its assets. A manifest and the index of the media are always read whole.
    """
    require_change("a verification")
    config = load(paths.config_file)
    if bool(what) is everything:
        raise ConfigurationError("name one thing to verify", "Name a snapshot, HOST or HOST/ASSET; or use --all.")
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    work = chosen(config, catalog, what or "")
    follower = Follower(paths, as_json=as_json, interactive=sys.stdin.isatty())
    options = {"sample": sample} if sample else {}
    orders = {
        host: Order("verify", tuple(snapshots), {"snapshots": named(snapshots), **options})
        for host, snapshots in work.items()
    }
    return follower.carry_out(orders, config.limits.runs)


def chosen(config: Config, catalog: Catalog, what: str) -> dict[str, dict[Asset, str]]:
    """The snapshots to verify by host: those named, or the newest of everything when `what` is empty.

    Unlike for a restore the newest one counts here even when it failed an earlier verification. Where something is
    trusted, it is the newest of that.

    Raises:
        ConfigurationError: there are none.
    """
    host, _, rest = what.partition("/")
    name, _, moment = rest.partition("/")
    newest: dict[str, dict[Asset, str]] = {}
    for (its_host, asset), found in catalog.recent(1).items():
        snapshot = next((each for each in found if catalog.trust(each).good), found[0])
        wanted = its_host == host and name in {"", asset.value} if what else its_host in config.hosts
        if wanted and moment in {"", _LATEST}:
            newest.setdefault(its_host, {})[asset] = snapshot.id
    if newest or not what:
        if not newest:
            raise ConfigurationError("there are no snapshots yet", "`mastovault backup --all` makes some.")
        return {each: {asset: its[asset] for asset in Asset if asset in its} for each, its in newest.items()}
    named_ones = resolve(config, catalog, what)
    return {next(iter(named_ones.values())).host: {asset: info.id for asset, info in named_ones.items()}}


def named(snapshots: Mapping[Asset, str]) -> dict[str, str]:
    """Snapshots as the options of a run name them."""
    return {asset.value: snapshot for asset, snapshot in snapshots.items()}
