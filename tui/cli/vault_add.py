"""`mastovault vault add`: a vault is proved before it is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from backends.config import save
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import HOST_NAME, SftpVault, VaultConfig
from backends.config.vault_place import vault_config, vault_values
from backends.errors import ConfigurationError, VaultError
from tui.cli.read_only import require_change
from tui.cli.vault_check import show_report

if TYPE_CHECKING:
    from backends.operations.vault_check import VaultReport

_TEXTS = {
    "endpoint_url": ("--endpoint", "URL", "S3: the provider's address; left out: AWS."),
    "region": ("--region", "NAME", "S3: the bucket's region."),
    "profile": ("--profile", "NAME", "S3: a profile of ~/.aws."),
    "access_key_env": ("--access-key-env", "VARIABLE", "S3: the variable that holds the access key's id."),
    "secret_key_env": ("--secret-key-env", "VARIABLE", "S3: the variable that holds the secret key."),
    "access_key_command": ("--access-key-command", "COMMAND", "S3: prints the access key's id."),
    "secret_key_command": ("--secret-key-command", "COMMAND", "S3: prints the secret key."),
    "storage_class": ("--storage-class", "CLASS", "S3: for example STANDARD_IA."),
    "identity_file": ("--identity-file", "FILE", "SFTP: the SSH key."),
    "known_hosts": ("--known-hosts", "FILE", "SFTP: where the server's key is known from."),
    "password_command": ("--password-command", "COMMAND", "SFTP: prints the password."),
}


def _texts(function: Any) -> Any:
    for name, (flag, shown, said) in reversed(_TEXTS.items()):
        function = click.option(flag, name, metavar=shown, help=said)(function)
    return function


@click.command("add")
@click.argument("name")
@click.argument("place")
@_texts
@click.option("--addressing", type=click.Choice(["auto", "path", "virtual"]), help="S3: how the bucket is addressed.")
@click.option("--sse", type=click.Choice(["AES256", "aws:kms"]), help="S3: the provider's own encryption, too.")
@click.option("--lock-days", type=click.IntRange(1, 3650), help="S3: put every object under an Object Lock.")
@click.option("--offsite/--onsite", default=None, help="Whether it is at another site; guessed when left out.")
@click.option("--price", type=click.FloatRange(0), metavar="AMOUNT", help="What a gigabyte costs a month.")
@click.option("--currency", metavar="CODE", help="Of the price: EUR, USD, ...")
@click.option("--accept-key", metavar="SHA256:...", help="SFTP: accept the server's key with this fingerprint.")
@click.pass_obj
def command(
    paths: Paths, /, name: str, place: str, price: float | None, accept_key: str | None, **settings: Any
) -> None:
    """Add a vault at PLACE: a directory, s3://BUCKET/PREFIX or sftp://USER@HOST:PORT/PATH.

    It is saved only when an object could be written, read, listed and replaced there. Credentials that may not delete
    are fine: backups go on with them, prune does not.
    """
    require_change("adding a vault")
    config = load(paths.config_file)
    if not HOST_NAME.fullmatch(name):
        raise ConfigurationError(
            f"the name {name!r} cannot be used", "Names hold letters, digits, dots, dashes and underscores."
        )
    if name in config.vaults:
        raise ConfigurationError(f"a vault named {name} is already configured", "Choose another name.")
    values = vault_values(place, {**settings, "price_per_gb_month": price})
    report = _proved(name, vault_config(values), accept_key)
    show_report(report)
    if not report.usable:
        raise VaultError(f"{name} is not saved: it cannot be used as a vault", "Mend what is said above, try again.")
    save.add_vault(paths.config_file, name, values)
    click.echo(f"{name} is saved in {paths.config_file}; hosts that name no vault use it.")
    if len(config.vaults) and config.hosts:
        click.echo(f"`mastovault vault sync {name}` copies there what the other vaults hold.")


def _proved(name: str, config: VaultConfig, accept_key: str | None) -> VaultReport:
    """Check the vault, once more when the operator accepts its server's key."""
    from backends.operations.vault_check import check_vault

    report = check_vault(name, config)
    if report.host_key is not None and isinstance(config, SftpVault):
        from backends.connection.host_keys import accept
        from backends.vault.sftp_link import ssh_settings
        from tui.cli.host import trusted

        if trusted(report.host_key, accept_key):
            accept(name, ssh_settings(config), report.host_key)
            report = check_vault(name, config)
    return report
