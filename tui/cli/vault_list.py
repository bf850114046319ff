"""`mastovault vault list`: the vaults, what they hold, how much room and what it costs."""

from __future__ import annotations

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.model import rfc3339, utc_now
from backends.operations.fleet import load_fleet, refresh_vaults
from tui.cli import show


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def command(paths: Paths, as_json: bool) -> None:
    """The vaults, what they hold and how much room is left."""
    config = load(paths.config_file)
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    vaults = load_fleet(config, catalog, utc_now()).vaults
    if as_json:
        show.document(
            {
                "vaults": [
                    {
                        "vault": vault.name,
                        "where": vault.where,
                        "offsite": vault.offsite,
                        "snapshots": vault.snapshots,
                        "bytes": vault.bytes,
                        "free_bytes": vault.free_bytes,
                        "read_at": vault.read_at and rfc3339(vault.read_at),
                        "error": vault.error or None,
                    }
                    for vault in vaults
                ]
            }
        )
        return
    if not vaults:
        click.echo("No vaults yet. `mastovault vault add NAME PLACE` adds one.")
        return
    show.rows(
        ("VAULT", "WHERE", "OFF-SITE", "SNAPSHOTS", "SIZE", "FREE", "STATE"),
        (
            (
                vault.name,
                vault.where,
                "yes" if vault.offsite else "no",
                str(vault.snapshots),
                show.size(vault.bytes),
                show.size(vault.free_bytes),
                vault.error or "good",
            )
            for vault in vaults
        ),
    )
