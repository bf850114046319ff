"""`mastovault key new|show|check|rotate|rewrap|export|page|trust`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import utc_now
from backends.operations.custody import custody_of
from tui.cli.key_check import check, custody_json, custody_words
from tui.cli.key_make import new
from tui.cli.key_rotate import rewrap_command, rotate
from tui.cli.read_only import require_change


@click.group("key")
def command() -> None:
    """Make, show, try, change or copy the keys: who reads the backups, and who signs them."""


command.add_command(new)
command.add_command(check)
command.add_command(rotate)
command.add_command(rewrap_command)


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def show_keys(paths: Paths, as_json: bool) -> None:
    """Show who can read the backups and who signs them; never an identity."""
    config = load(paths.config_file)
    encryption = config.encryption
    custody = custody_of(encryption, utc_now())
    signing = _signing(config)
    if as_json:
        document = {
            "recipients": [
                {"recipient": each, "recovery": each == encryption.recovery} for each in encryption.recipients
            ],
            "identity": str(encryption.identity) if encryption.identity else None,
            "identity_command": encryption.identity_command is not None,
            "old_identities": [str(path) for path in encryption.old_identities],
            "recovery": encryption.recovery,
            "custody": custody_json(custody),
            "signing": signing,
            "signers": _signers(config),
        }
        click.echo(json.dumps(document))
        return
    for recipient in encryption.recipients:
        note = "  (recovery)" if recipient == encryption.recovery else ""
        click.echo(f"recipient  {recipient}{note}")
    if not encryption.recipients:
        click.echo("No recipient yet. `mastovault key new` makes one.")
    if encryption.identity:
        click.echo(f"identity   {encryption.identity}")
    if encryption.identity_command:
        click.echo("identity   from identity_command")
    for path in encryption.old_identities:
        click.echo(f"old        {path}")
    if signing:
        said = f"{signing['public']}  {signing['fingerprint']}" if signing["public"] else signing["error"]
        click.echo(f"signs with {signing['path']}")
        click.echo(f"           {said}")
    click.echo(f"custody of the recovery copy {custody_words(custody)}")


def _signing(config: Config) -> dict[str, Any] | None:
    """This machine's signing key; None when it has none."""
    from backends.archive.keys_paper import fingerprint
    from backends.archive.signing import load_signer, signer_name

    path = config.encryption.signing_key
    if path is None:
        return None
    found: dict[str, Any] = {"path": str(path), "public": None, "fingerprint": None, "name": None, "error": None}
    try:
        public = load_signer(path.expanduser()).public
    except KeyUnavailable as error:
        return {**found, "error": error.sentence}
    trusted = public in {key.strip() for key in config.signers.values()}
    name = signer_name(public, config.signers) if trusted else None
    return {**found, "public": public, "fingerprint": fingerprint(public), "name": name}


def _signers(config: Config) -> list[dict[str, str | None]]:
    from backends.archive.keys_paper import fingerprint
    from backends.archive.signing import is_public_key

    return [
        {"name": name, "public": key, "fingerprint": fingerprint(key) if is_public_key(key.strip()) else None}
        for name, key in config.signers.items()
    ]


@command.command("trust")
@click.argument("name", required=False)
@click.argument("public", required=False)
@click.option("--list", "listing", is_flag=True, help="Who is trusted.")
@click.option("--forget", metavar="NAME", help="Trust NAME no more.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def trust(paths: Paths, name: str | None, public: str | None, listing: bool, forget: str | None, as_json: bool) -> None:
    """Trust the snapshots that NAME signs with the key PUBLIC, which `mastovault key show` prints on NAME's machine."""
    from backends.operations import keys_rotate

    config = load(paths.config_file)
    if sum((name is not None, listing, forget is not None)) != 1 or (name is not None and public is None):
        raise ConfigurationError("name whom to trust", "mastovault key trust NAME PUBLIC, --list, or --forget NAME")
    if name is not None and public is not None:
        require_change("trusting a signer")
        keys_rotate.trust(config, paths, name, public)
    elif forget is not None:
        require_change("forgetting a signer")
        keys_rotate.forget_signer(config, paths, forget)
    config = load(paths.config_file)
    if as_json:
        click.echo(json.dumps({"signers": _signers(config)}))
        return
    for each in _signers(config):
        click.echo(f"{each['name']}  {each['public']}  {each['fingerprint'] or 'NO PUBLIC KEY'}")
    if not config.signers:
        click.echo("No signer is configured: nobody checks who wrote a snapshot.")


@command.command("page")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "source", metavar="FILE", help="Read the recovery identity from this file (- standard input).")
@click.pass_obj
def page(paths: Paths, file: Path, source: str | None) -> None:
    """Make the recovery page anew, with today's vaults; the recovery identity is typed from its copy."""
    from backends.operations.recovery_page import place_of, recovery_page, write_page
    from tui.cli.key_paper import read_recovery

    config = load(paths.config_file)
    identity = read_recovery(source, config.encryption.recovery)
    signing = _signing(config)
    document = recovery_page(
        identity=identity,
        recipient=config.encryption.recovery or "",
        signing_key=(signing or {}).get("public") or "",
        vaults=[(name, place_of(its)) for name, its in config.vaults.items()],
        made=utc_now(),
    )
    write_page(file.expanduser(), document)
    click.echo(f"The recovery page is {file}. Print it or move it off this machine, and remove it here.")


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


def _identity_path(paths: Paths) -> Path:
    identity = load(paths.config_file).encryption.identity
    if identity is None:
        raise KeyUnavailable("no identity is configured on this machine", "`mastovault key new` makes one.")
    return identity.expanduser()
