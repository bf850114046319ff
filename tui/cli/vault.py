"""`mastovault vault add|list`: where the backups are kept."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from backends.catalog import Catalog
from backends.config import save
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import DirectoryVault
from backends.errors import ConfigurationError, VaultError
from backends.model import rfc3339, utc_now
from backends.operations.fleet import load_fleet, refresh_vaults
from tui.cli import show


@click.group("vault")
def command() -> None:
    """Add or list the vaults."""


@command.command("add")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--offsite", is_flag=True, help="The directory is on another site's storage.")
@click.pass_obj
def add(paths: Paths, name: str, path: Path, offsite: bool) -> None:
    """Add the directory PATH as a vault, after writing, reading, listing and deleting an object in it."""
    config = load(paths.config_file)
    if name in config.vaults:
        raise ConfigurationError(f"a vault named {name} is already configured", "Choose another name.")
    place = path.expanduser().absolute()
    _prove(name, place)
    values = {"type": "directory", "path": str(place), **({"offsite": True} if offsite else {})}
    save.add_vault(paths.config_file, name, values)
    click.echo(f"{name} is saved in {paths.config_file}; hosts that name no vault use it.")


def _prove(name: str, place: Path) -> None:
    from backends.vault.open import open_vault

    vault = open_vault(name, DirectoryVault(type="directory", path=place))
    key, data = f"probe-{secrets.token_hex(8)}", secrets.token_bytes(64)
    vault.put_new(key, data)
    try:
        with vault.read(key) as stored:
            same = stored.read() == data
        listed = [found.key for found in vault.list(key)] == [key]
    finally:
        vault.delete(key)
    if not (same and listed):
        raise VaultError(f"{place} does not give back what was written to it", "Choose another directory.")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def list_vaults(paths: Paths, as_json: bool) -> None:
    """The vaults, what they hold and how much room is left."""
    config = load(paths.config_file)
    catalog = Catalog(paths.cache_dir)
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
        click.echo("No vaults yet. `mastovault vault add NAME DIRECTORY` adds one.")
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
