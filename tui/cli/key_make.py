"""`mastovault key new`, and what making keys has in common."""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import Secret, utc_now
from tui.cli.key_paper import HandedOver, make_recovery, needs_ascii
from tui.cli.read_only import require_change

FILE = click.Path(path_type=Path)
TO_FILE = click.option(
    "--recovery-to", type=FILE, help="Write the recovery identity to this new file (a USB stick), without asking."
)
PAGE = click.option("--recovery-page", type=FILE, metavar="FILE.svg", help="Write a page to print, with a QR code.")
GIVEN = click.option("--recovery-recipient", metavar="AGE1...", help="Use a recovery recipient you already have.")
ASCII = click.option("--ascii", "ascii_only", is_flag=True, help="Draw the QR code without block characters.")
JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
NOT_SIGNED_YET = "Snapshots made so far are not signed: until there are newer ones, restoring asks for a typed word."


@dataclass(frozen=True, slots=True)
class Ways:
    """Where the recovery identity goes."""

    to: Path | None
    page: Path | None
    recipient: str | None

    @property
    def any(self) -> bool:
        """Whether something was said about it."""
        return bool(self.to or self.page or self.recipient)

    @property
    def elsewhere(self) -> bool:
        """Whether it is written to a file instead of being shown."""
        return bool(self.to or self.page)

    def require_free(self) -> None:
        """Raise `ConfigurationError` when something is in the way, before anything is made."""
        if self.recipient and (self.to or self.page):
            raise ConfigurationError(
                "a recovery recipient that is there already has no identity here to write",
                "Leave out --recovery-to and --recovery-page, or --recovery-recipient.",
            )
        for path in (self.to, self.page):
            if path is not None and (path.expanduser().exists() or path.expanduser().is_symlink()):
                raise ConfigurationError(f"{path} exists and is not overwritten", "Name a new file.")


@click.command("new")
@click.option("--identity", type=FILE, help="Where the identity goes (default: beside the configuration).")
@click.option("--passphrase", is_flag=True, help="Protect the identity with a passphrase, asked for.")
@click.option("--recipient", "recipients", multiple=True, metavar="AGE1...", help="A colleague who can read, too.")
@TO_FILE
@PAGE
@GIVEN
@click.option("--signing-only", is_flag=True, help="Only a signing key: for a machine that backs up and reads nothing.")
@ASCII
@JSON
@click.pass_obj
def new(
    paths: Paths,
    identity: Path | None,
    passphrase: bool,
    recipients: tuple[str, ...],
    recovery_to: Path | None,
    recovery_page: Path | None,
    recovery_recipient: str | None,
    signing_only: bool,
    ascii_only: bool,
    as_json: bool,
) -> None:
    """Make the identity that reads the backups, a recovery identity to keep elsewhere, and a signing key.

    Backups are encrypted to both. The recovery identity is not kept on this machine: it is shown once, to be written
    down, scanned or printed, because the day this machine burns is the day it is needed.
    """
    from backends.archive.keys import normal_recipients
    from backends.operations.keys_rotate import NewFiles, make_identity, save, signing_values

    require_change("a new key")
    config = load(paths.config_file)
    if signing_only:
        _new_signing_key(paths, config, as_json=as_json)
        return
    if config.encryption.identity or config.encryption.identity_command:
        raise ConfigurationError(
            f"there is an identity already: {config.encryption.identity or 'identity_command'}",
            "Backups made so far need it. `mastovault key check` tries it, `mastovault key rotate` makes a new one.",
        )
    place = (identity or paths.config_file.parent / "identity.age").expanduser().absolute()
    ways = Ways(recovery_to, recovery_page, recovery_recipient)
    ways.require_free()
    if place.exists():
        raise ConfigurationError(f"{place} exists and is not overwritten", "Name another place with --identity.")
    others = normal_recipients([*config.encryption.recipients, *recipients])
    chosen = new_passphrase() if passphrase else None
    handed = make_recovery(ways.recipient, elsewhere=ways.elsewhere, ascii_only=needs_ascii(ascii_only))
    now = utc_now()
    with NewFiles() as files:
        recipient = make_identity(files, place, chosen)
        signing, signers, public = signing_values(config, paths, files, anew=False, now=now)
        write_recovery(files, ways, handed, config, public, now)
        every = list(dict.fromkeys([*others, recipient, handed.recipient]))
        encryption = {"recipients": every, "identity": str(place), **recovery_values(handed, now), **signing}
        save(paths, encryption, signers, files)
    said(paths, recipient, handed, ways, as_json=as_json)


def _new_signing_key(paths: Paths, config: Config, *, as_json: bool) -> None:
    from backends.operations.keys_rotate import NewFiles, machine_name, save, signing_values

    if config.encryption.signing_key is not None:
        raise ConfigurationError(
            f"there is a signing key already: {config.encryption.signing_key}",
            "`mastovault key rotate --compromised` makes a new one, too.",
        )
    with NewFiles() as files:
        encryption, signers, public = signing_values(config, paths, files, anew=False, now=utc_now())
        save(paths, encryption, signers, files)
    if as_json:
        click.echo(json.dumps({"signing_key": encryption["signing_key"], "public": public, "name": machine_name()}))
        return
    click.echo(f"signs with {encryption['signing_key']}")
    click.echo(f"Elsewhere: mastovault key trust {machine_name()} {public}")
    if not config.signers:
        click.echo(NOT_SIGNED_YET)


def write_recovery(files: Any, ways: Ways, handed: HandedOver, config: Config, public: str, now: datetime) -> None:
    """The recovery identity to where it was asked for. Raises `KeyUnavailable`."""
    from backends.operations.recovery_page import place_of, recovery_page

    if handed.identity is None:
        return
    if ways.to:
        files.identity(ways.to.expanduser().absolute(), handed.identity)
    if ways.page:
        vaults = [(name, place_of(its)) for name, its in config.vaults.items()]
        page = recovery_page(
            identity=handed.identity, recipient=handed.recipient, signing_key=public, vaults=vaults, made=now
        )
        files.page(ways.page.expanduser().absolute(), page)


def recovery_values(handed: HandedOver, now: datetime) -> dict[str, Any]:
    """What `[encryption]` says of a new recovery recipient."""
    return {
        "recovery": handed.recipient,
        "custody_confirmed": handed.recipient if handed.confirmed else None,
        "custody_confirmed_at": now.replace(microsecond=0) if handed.confirmed else None,
    }


def new_passphrase() -> Secret:
    """A new passphrase, typed twice. Raises `KeyUnavailable`."""
    if not sys.stdin.isatty():
        raise KeyUnavailable("a passphrase can only be typed, and there is no terminal", "Leave out --passphrase.")
    first = getpass.getpass("Passphrase: ")
    if not first or first != getpass.getpass("Once more: "):
        raise KeyUnavailable("the passphrases are empty or differ", "Try again; nothing was made.")
    return Secret(first)


def said(
    paths: Paths, recipient: str, handed: HandedOver | None, ways: Ways, *, as_json: bool, to_stderr: bool = False
) -> None:
    """What was made."""
    encryption = load(paths.config_file).encryption
    if as_json:
        click.echo(
            json.dumps(
                {
                    "identity": str(encryption.identity),
                    "recipient": recipient,
                    "recipients": list(encryption.recipients),
                    "recovery": encryption.recovery,
                    "custody_confirmed": encryption.custody_confirmed is not None,
                    "signing_key": str(encryption.signing_key),
                    "recovery_page": str(ways.page) if ways.page else None,
                    "old_identities": [str(path) for path in encryption.old_identities],
                }
            )
        )
    else:
        click.echo(f"identity   {encryption.identity}", err=to_stderr)
        click.echo(f"recipient  {recipient}", err=to_stderr)
        click.echo(f"recovery   {encryption.recovery}", err=to_stderr)
        click.echo(f"signs with {encryption.signing_key}", err=to_stderr)
    for path, what in ((ways.to, "recovery identity is in"), (ways.page, "recovery page is")):
        if path and handed:
            click.echo(f"The {what} {path}. Print it or move it off this machine, and remove it here.", err=True)
    if handed and handed.identity is not None and not handed.confirmed:
        click.echo("Then: mastovault key check --confirm-custody", err=True)
