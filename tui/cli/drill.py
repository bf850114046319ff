"""`mastovault drill`: the proof that a snapshot can be restored."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import ConfigurationError
from backends.operations.choose import resolve
from backends.operations.fleet import refresh_vaults
from tui.cli.accept import accepted
from tui.cli.follow import Follower, Order
from tui.cli.read_only import require_change
from tui.cli.verify import named


@click.command("drill")
@click.argument("what", metavar="SNAPSHOT|POINT|HOST[/ASSET]")
@click.option("--on", metavar="HOST", help="Make the throwaway database on this host's PostgreSQL, instead of here.")
@click.option("--accept", multiple=True, metavar="HOST/WORD", help="Go on although this was found, by its word.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def command(paths: Paths, what: str, on: str | None, accept: Sequence[str], as_json: bool) -> int:
    """Restore WHAT into a throwaway place, compare it with what was backed up, and record the proof.

    The place is a PostgreSQL of our own on this machine (extra `drill`), which is removed at the end. Nothing of any
    server is changed; with --on, a database `mastovault_drill_…` is made there and dropped again.
    """
    require_change("a drill")
    config = load(paths.config_file)
    if on is not None and on not in config.hosts:
        raise ConfigurationError(f"no host named {on} is configured", "`mastovault host list` shows them.")
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    found = resolve(config, catalog, what)
    host = next(iter(found.values())).host
    options: dict[str, object] = {"snapshots": named({asset: info.id for asset, info in found.items()})}
    if on is not None:
        options["on"] = on
    if accept:
        options["accept"] = accepted(host, accept)
    follower = Follower(paths, as_json=as_json, interactive=sys.stdin.isatty())
    return follower.carry_out({host: Order("drill", tuple(found), options)})
