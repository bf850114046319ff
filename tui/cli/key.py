"""`mastovault key new|show|export|check`."""

from __future__ import annotations

import getpass
import io
import os
import sys
from pathlib import Path

import click

from backends.config import save
from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import Secret
from tui.cli.ask import ask

_CHECK_LETTERS = 6


@click.group("key")
def command() -> None:
    """Make, show, copy or check the encryption keys."""


@command.command("new")
@click.option(
    "--identity", type=click.Path(path_type=Path), help="Where the identity goes (default: beside the configuration)."
)
@click.option("--passphrase", is_flag=True, help="Protect the identity with a passphrase, asked for.")
@click.option(
    "--recovery-to",
    type=click.Path(path_type=Path),
    help="Write the recovery identity to this new file (a USB stick), without asking.",
)
@click.option("--recovery-recipient", metavar="AGE1...", help="Use a recovery recipient you already have.")
@click.pass_obj
def new(
    paths: Paths,
    identity: Path | None,
    passphrase: bool,
    recovery_to: Path | None,
    recovery_recipient: str | None,
) -> None:
    """Make the identity that reads the backups, and a recovery identity to keep elsewhere.

    Backups are encrypted to both. The recovery identity is not kept on this machine: it is shown once, to be written
    down or printed, because the day this machine burns is the day it is needed.
    """
    from backends.archive import keys

    config = load(paths.config_file)
    if config.encryption.identity:
        raise ConfigurationError(
            f"there is an identity already: {config.encryption.identity}",
            "Backups made so far need it. `mastovault key check` tries it; changing keys is a matter of its own.",
        )
    place = (identity or paths.config_file.parent / "identity.age").expanduser().absolute()
    if place.exists():
        raise ConfigurationError(f"{place} exists and is not overwritten", "Name another place with --identity.")
    chosen = _new_passphrase() if passphrase else None
    confirmed, recovery = _recovery(recovery_to, recovery_recipient)
    own, recipient = keys.new_identity()
    keys.write_identity(place, own, chosen)
    recipients = list(dict.fromkeys([*config.encryption.recipients, recipient, recovery]))
    save.set_encryption(
        paths.config_file,
        {
            "recipients": recipients,
            "identity": str(place),
            "recovery": recovery,
            "custody_confirmed": recovery if confirmed else None,
        },
    )
    click.echo(f"identity   {place}")
    click.echo(f"recipient  {recipient}")
    click.echo(f"recovery   {recovery}")


def _new_passphrase() -> Secret:
    if not sys.stdin.isatty():
        raise KeyUnavailable("a passphrase can only be typed, and there is no terminal", "Leave out --passphrase.")
    first = getpass.getpass("Passphrase: ")
    if not first or first != getpass.getpass("Once more: "):
        raise KeyUnavailable("the passphrases are empty or differ", "Try again; nothing was made.")
    return Secret(first)


def _recovery(to: Path | None, recipient: str | None) -> tuple[bool, str]:
    """The recovery recipient, and whether somebody is known to keep its identity."""
    from backends.archive import keys

    if recipient:
        keys.parse_recipients([recipient])
        return True, recipient
    identity, made = keys.new_identity()
    if to:
        keys.write_identity(to.expanduser().absolute(), identity, None)
        click.echo(f"The recovery identity is in {to}. Move it off this machine.", err=True)
        return False, made
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise KeyUnavailable(
            "a recovery copy is needed, and there is no terminal to show it on",
            "Add --recovery-to FILE (on a USB stick) or --recovery-recipient AGE1...",
        )
    click.echo(
        "\nThe recovery identity. Write it down or print it now; it is shown once and not kept here:\n", err=True
    )
    click.echo(f"    {identity.reveal()}\n", err=True)
    wanted = identity.reveal()[-_CHECK_LETTERS:]
    for _ in range(3):
        typed = click.prompt(f"Read the last {_CHECK_LETTERS} characters back from your copy", err=True, default="")
        if typed.strip().upper() == wanted:
            return True, made
        click.echo("That is not what was shown.", err=True)
    raise KeyUnavailable("the recovery copy was not confirmed; nothing was made", "Run `mastovault key new` again.")


@command.command("show")
@click.pass_obj
def show_keys(paths: Paths) -> None:
    """Show who can read the backups; never an identity."""
    encryption = load(paths.config_file).encryption
    for recipient in encryption.recipients:
        note = "  (recovery)" if recipient == encryption.recovery else ""
        click.echo(f"recipient  {recipient}{note}")
    if not encryption.recipients:
        click.echo("No recipient yet. `mastovault key new` makes one.")
    if encryption.identity:
        click.echo(f"identity   {encryption.identity}")
    kept = encryption.recovery is not None and encryption.custody_confirmed == encryption.recovery
    click.echo(f"recovery copy {'confirmed' if kept else 'NOT CONFIRMED'}")


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def export(paths: Paths, file: Path) -> None:
    """Copy the identity file, as it is, to FILE (0600); a passphrase on it stays on it."""
    source = _identity_path(paths)
    try:
        data = source.read_bytes()
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeyUnavailable(
            f"the identity was not copied: {error.strerror}", "FILE must be new and writable."
        ) from None
    with os.fdopen(handle, "wb") as copy:
        copy.write(data)
        copy.flush()
        os.fsync(copy.fileno())
    click.echo(f"{source} copied to {file}.")


@command.command("check")
@click.option("--confirm-custody", is_flag=True, help="Also record that the recovery copy is kept elsewhere.")
@click.pass_obj
def check(paths: Paths, confirm_custody: bool) -> None:
    """Prove that the identity opens what is encrypted to the configured recipients."""
    from backends.archive import codec, keys

    encryption = load(paths.config_file).encryption
    identities = keys.load_identities(_identity_path(paths), ask)
    stored = io.BytesIO()

    def keep(data: bytes) -> None:
        stored.write(data)

    codec.seal(io.BytesIO(b"mastovault"), keep, keys.parse_recipients(encryption.recipients), compress=True)
    stored.seek(0)
    if codec.unseal(stored, identities, ("zstd", "age")).read() != b"mastovault":
        raise KeyUnavailable("the identity gives back other bytes than were encrypted", "Do not rely on this identity.")
    click.echo(f"{encryption.identity} opens what is encrypted to {len(encryption.recipients)} recipients.")
    if confirm_custody:
        if not encryption.recovery:
            raise ConfigurationError("there is no recovery recipient", "`mastovault key new` makes one.")
        save.set_encryption(paths.config_file, {"custody_confirmed": encryption.recovery})
        click.echo("Custody of the recovery copy is recorded.")


def _identity_path(paths: Paths) -> Path:
    identity = load(paths.config_file).encryption.identity
    if identity is None:
        raise KeyUnavailable("no identity is configured on this machine", "`mastovault key new` makes one.")
    return identity.expanduser()
