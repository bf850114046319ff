"""`mastovault config check|show|path`."""

from __future__ import annotations

import click

from backends.config.load import load
from backends.config.paths import Paths
from tui.cli import show


@click.group("config")
def command() -> None:
    """Check, show or locate the configuration."""


@command.command("path")
@click.pass_obj
def path(paths: Paths) -> None:
    """Print where the configuration is read from."""
    click.echo(paths.config_file)


@command.command("check")
@click.pass_obj
def check(paths: Paths) -> None:
    """Read the configuration and say what is wrong with it."""
    config = load(paths.config_file)
    if not paths.config_file.exists():
        click.echo(f"{paths.config_file} does not exist yet; `mastovault key new` and `mastovault host add` make it.")
        return
    click.echo(f"{paths.config_file} is good: {len(config.hosts)} hosts, {len(config.vaults)} vaults.")
    for lack in lacks(paths):
        click.echo(f"  but {lack}")


def lacks(paths: Paths) -> list[str]:
    """What must still be configured before a backup can run, a sentence each."""
    config = load(paths.config_file)
    found = []
    if not config.encryption.recipients:
        found.append("no recipient can read the backups yet: run `mastovault key new`")
    if not config.vaults:
        found.append("no vault is configured: run `mastovault vault add NAME DIRECTORY`")
    if not config.hosts:
        found.append("no host is configured: run `mastovault host add NAME ADDRESS`")
    return found


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def show_config(paths: Paths, as_json: bool) -> None:
    """Show the configuration in force, defaults included. It never holds a secret."""
    config = load(paths.config_file)
    if as_json:
        show.document(config.model_dump(mode="json"))
        return
    click.echo(f"configuration  {paths.config_file}")
    click.echo(f"recipients     {', '.join(config.encryption.recipients) or 'none'}")
    for name, vault in config.vaults.items():
        click.echo(f"vault {name}    {vault.type}  {getattr(vault, 'path', None) or getattr(vault, 'bucket', '')}")
    goals = []
    for name, host in config.hosts.items():
        for asset in host.assets:
            goal = config.goal(name, asset)
            goals.append((name, host.address, asset.value, show.span(goal.total_seconds()) if goal else "on-change"))
    if goals:
        show.rows(("host", "address", "asset", "goal"), goals)
