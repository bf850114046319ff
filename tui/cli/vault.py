"""`mastovault vault add|check|list|sync|forget`: where the backups are kept."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import ConfigurationError
from backends.operations.storage import forget_vault, require_unused
from tui.cli.read_only import require_change

_MODULES = {
    "add": "vault_add",
    "check": "vault_check",
    "list": "vault_list",
    "sync": "vault_sync",
}


class _Vault(click.Group):
    """The subcommands by name, each loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order a new user meets them."""
        return [*_MODULES, "forget"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one subcommand's module."""
        if cmd_name in _MODULES:
            found: click.Command = import_module(f"tui.cli.{_MODULES[cmd_name]}").command
            return found
        return super().get_command(ctx, cmd_name)


@click.group("vault", cls=_Vault)
def command() -> None:
    """Add, check, list, sync or forget the vaults."""


@command.command("forget")
@click.argument("name")
@click.option("--confirm", metavar="NAME", help="The name once more: what is stored there stays, but is seen no more.")
@click.pass_obj
def forget(paths: Paths, name: str, confirm: str | None) -> None:
    """Take a vault out of the configuration; nothing is deleted in it."""
    require_change("forgetting a vault")
    config = load(paths.config_file)
    require_unused(config, paths, name)
    if confirm != name:
        raise ConfigurationError(
            f"forgetting {name} needs its name once more", f"Add: --confirm {name}. What is stored there stays."
        )
    forget_vault(config, paths, name)
    click.echo(f"{name} is forgotten. What is stored there stays.")


def known(vaults: Any, name: str) -> str:
    """A vault's name. Raises `ConfigurationError` when it is not configured."""
    if name not in vaults:
        raise ConfigurationError(f"no vault named {name} is configured", "`mastovault vault list` shows them.")
    return name


def chosen(vaults: Any, names: Sequence[str]) -> list[str]:
    """The named vaults, or all of them. Raises `ConfigurationError`."""
    if not vaults:
        raise ConfigurationError("there are no vaults yet", "`mastovault vault add NAME PLACE` adds one.")
    return [known(vaults, name) for name in names] or list(vaults)
