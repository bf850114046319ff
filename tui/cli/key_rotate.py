"""`mastovault key rotate` and `mastovault key rewrap`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import utc_now
from tui.cli.ask import ask
from tui.cli.key_make import (
    ASCII,
    FILE,
    GIVEN,
    JSON,
    NOT_SIGNED_YET,
    PAGE,
    TO_FILE,
    Ways,
    new_passphrase,
    recovery_values,
    said,
    write_recovery,
)
from tui.cli.key_paper import make_recovery, needs_ascii
from tui.cli.read_only import require_change


@click.command("rotate")
@click.option("--identity", type=FILE, help="Where the new identity goes (default: beside the configuration).")
@click.option("--passphrase", is_flag=True, help="Protect the new identity with a passphrase, asked for.")
@click.option("--recipient", "recipients", multiple=True, metavar="AGE1...", help="One more who can read from now on.")
@click.option("--drop", multiple=True, metavar="AGE1...", help="Who shall not read what is backed up from now on.")
@click.option("--recovery", is_flag=True, help="Make a new recovery identity, too.")
@TO_FILE
@PAGE
@GIVEN
@click.option("--compromised", is_flag=True, help="Somebody else may have the keys: make a new signing key, too.")
@click.option("--rewrap", is_flag=True, help="Then encrypt the old snapshots anew, for the new keys.")
@ASCII
@JSON
@click.pass_obj
def rotate(
    paths: Paths,
    identity: Path | None,
    passphrase: bool,
    recipients: tuple[str, ...],
    drop: tuple[str, ...],
    recovery: bool,
    recovery_to: Path | None,
    recovery_page: Path | None,
    recovery_recipient: str | None,
    compromised: bool,
    rewrap: bool,
    ascii_only: bool,
    as_json: bool,
) -> int:
    """Make a new identity for what is backed up from now on; the old one is kept for what it opens.

    It cannot take back what somebody has copied: who had a key and the vault's content keeps reading that.
    """
    from backends.archive.keys import normal_recipients
    from backends.operations.keys_rotate import NewFiles, free_name, make_identity, rotated, save, signing_values

    require_change("a new key")
    config = load(paths.config_file)
    if not config.encryption.recipients:
        raise ConfigurationError("there are no keys yet", "`mastovault key new` makes them.")
    ways = Ways(recovery_to, recovery_page, recovery_recipient)
    ways.require_free()
    recovery = recovery or ways.any
    own, notes = _own(config, drop)
    now = utc_now()
    place = identity.expanduser().absolute() if identity else None
    place = place or free_name(paths.config_file.parent.absolute() / f"identity-{now:%Y%m%d}.age")
    if place.exists():
        raise ConfigurationError(f"{place} exists and is not overwritten", "Name another place with --identity.")
    extra = normal_recipients(recipients)
    rotated(config.encryption, own, "", drop=drop, recovery="" if recovery else None)
    chosen = new_passphrase() if passphrase else None
    handed = None
    if recovery:
        handed = make_recovery(ways.recipient, elsewhere=ways.elsewhere, ascii_only=needs_ascii(ascii_only))
    with NewFiles() as files:
        recipient = make_identity(files, place, chosen)
        signing, signers, public = signing_values(config, paths, files, anew=compromised, now=now)
        if handed:
            write_recovery(files, ways, handed, config, public, now)
        after = rotated(config.encryption, own, recipient, drop=drop, recovery=handed.recipient if handed else None)
        old = [str(path) for path in config.encryption.old_identities]
        before = config.encryption.identity
        if before is not None and before.expanduser().exists():
            old.append(str(before))
        encryption: dict[str, Any] = {
            "recipients": list(dict.fromkeys([*after, *extra])),
            "identity": str(place),
            "old_identities": list(dict.fromkeys(old)) or None,
            **(recovery_values(handed, now) if handed else {}),
            **signing,
        }
        save(paths, encryption, signers, files)
    said(paths, recipient, handed, ways, as_json=as_json and not rewrap, to_stderr=as_json)
    if not config.signers and not as_json:
        click.echo(NOT_SIGNED_YET)
    _advise(paths, notes, compromised=compromised, rewrap=rewrap, quiet=as_json)
    return _rewrap(paths, (), as_json=as_json) if rewrap else 0


def _own(config: Config, drop: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The recipients of the identities at hand, which are replaced; without any the operator says which to drop."""
    from backends.archive.keys_known import known_identities

    notes: list[str] = []
    try:
        known = known_identities(config.encryption, ask, notes.append)
    except KeyUnavailable as error:
        if not drop:
            raise error.reword(
                error.sentence, "If it is lost, say whose recipient it was: add --drop AGE1... for each that is lost."
            ) from None
        return [], [f"note: {error.sentence}; going on without it"]
    return [each.recipient for each in known if not each.old], notes


def _advise(paths: Paths, notes: list[str], *, compromised: bool, rewrap: bool, quiet: bool) -> None:
    """What is left to do."""
    from backends.operations.keys_needed import needed_now

    for note in notes:
        click.echo(note, err=True)
    if quiet:
        return
    for line in needed_now(load(paths.config_file), paths):
        click.echo(line)
    click.echo("Snapshots from now on are for the new recipients: back up now. What is there stays as it is.")
    if compromised:
        click.echo("Who had the old key and a copy of the vault keeps reading that copy: change what was in it")
        click.echo("(Mastodon's secrets, passwords), and the credentials of the vaults. The old signing key is still")
        click.echo("trusted, for your old snapshots; `mastovault key trust --forget NAME` ends that.")
    if not rewrap:
        click.echo("`mastovault key rewrap` encrypts the old snapshots anew.")


@click.command("rewrap")
@click.argument("hosts", metavar="[HOST...]", nargs=-1)
@JSON
@click.pass_obj
def rewrap_command(paths: Paths, hosts: tuple[str, ...], as_json: bool) -> int:
    """Encrypt the old snapshots anew, so that exactly the current recipients can read them.

    Needs an identity that opens them. Each is replaced only when the new one is complete; it can be broken off and
    called again at any time.
    """
    require_change("encrypting anew")
    return _rewrap(paths, hosts, as_json=as_json)


def _rewrap(paths: Paths, hosts: tuple[str, ...], *, as_json: bool) -> int:
    from backends.operations.keys_needed import to_rewrap
    from tui.cli.follow import Follower, Order

    config = load(paths.config_file)
    work = to_rewrap(config, paths, hosts)
    if not work:
        if as_json:
            click.echo(json.dumps({"event": "summary", "results": []}))
        else:
            click.echo("Every snapshot is for the current recipients; there is nothing to encrypt anew.")
        return 0
    follower = Follower(paths, as_json=as_json, interactive=sys.stdin.isatty())
    orders = {host: Order("rewrap", assets) for host, assets in work.items()}
    return follower.carry_out(orders, config.limits.runs)
