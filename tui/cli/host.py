"""`mastovault host add|probe|list|forget`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from backends.catalog import Catalog
from backends.config import save
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import HostConfig
from backends.errors import ConfigurationError, DiscoveryFailed, HostKeyUnknown, MastovaultError
from backends.mastodon.installation import Installation
from backends.mastodon.kinds import explain
from backends.model import HostState, rfc3339
from backends.untrusted import clean
from tui.cli import show
from tui.cli.ask import ask

if TYPE_CHECKING:
    from backends.connection.base import Connection

_Seen = TypeVar("_Seen")


@click.group("host")
def command() -> None:
    """Add, probe, list or forget hosts."""


def _host(paths: Paths, name: str) -> HostConfig:
    hosts = load(paths.config_file).hosts
    if name not in hosts:
        raise ConfigurationError(f"no host named {name} is configured", "`mastovault host list` shows them.")
    return hosts[name]


@command.command("add")
@click.argument("name")
@click.argument("address")
@click.option("--become", type=click.Choice(["none", "sudo", "su"]), default="none", show_default=True)
@click.option("--identity-file", type=click.Path(), help="The SSH key for this host; else ~/.ssh/config and the agent.")
@click.option("--accept-key", metavar="SHA256:...", help="Accept the host key with this fingerprint without asking.")
@click.option("--bare", is_flag=True, help="A machine without Mastodon, to restore onto: connect, and look no further.")
@click.option("--no-probe", is_flag=True, help="Save it without connecting.")
@click.pass_obj
def add(
    paths: Paths,
    name: str,
    address: str,
    become: str,
    identity_file: str | None,
    accept_key: str | None,
    bare: bool,
    no_probe: bool,
) -> None:
    """Connect to ADDRESS (user@host:port, an alias of ~/.ssh/config, or `local`), look, and save it as NAME."""
    values: dict[str, Any] = {"address": address}
    if become != "none":
        values["become"] = become
    if identity_file:
        values["identity_file"] = identity_file
    if name in load(paths.config_file).hosts:
        raise ConfigurationError(f"a host named {name} is already configured", "Choose another name.")
    host = HostConfig.model_validate(values)
    if bare and not no_probe:
        _with_connection(name, host, accept_key, lambda _connection: None)
    elif not no_probe:
        _print(_found(name, host, accept_key))
    save.add_host(paths.config_file, name, values)
    then = f"restore SOURCE --to {name}` restores onto it" if bare else f"backup {name}` backs it up"
    click.echo(f"{name} is saved in {paths.config_file}. `mastovault {then}.")


def _found(name: str, host: HostConfig, accept_key: str | None) -> Installation:
    try:
        return _discover(name, host, accept_key)
    except DiscoveryFailed as error:
        raise error.reword(error.sentence, f"{error.next_step} Add --bare to restore onto it.".strip()) from None


def _discover(name: str, host: HostConfig, accept_key: str | None) -> Installation:
    from backends.mastodon.discovery import discover

    return _with_connection(name, host, accept_key, lambda connection: discover(connection, name, host))


def _with_connection(name: str, host: HostConfig, accept_key: str | None, look: Callable[[Connection], _Seen]) -> _Seen:
    """Connect, after the host's key was trusted, and look."""
    from backends.connection.host_keys import accept
    from backends.connection.open import open_connection

    try:
        with open_connection(name, host, ask=ask) as connection:
            return look(connection)
    except HostKeyUnknown as error:
        if not trusted(error, accept_key):
            raise
        accept(name, host, error)
    with open_connection(name, host, ask=ask) as connection:
        return look(connection)


def trusted(error: HostKeyUnknown, accept_key: str | None) -> bool:
    """Whether the operator accepts a key: by its fingerprint on the command line, else asked where somebody is."""
    if accept_key is not None:
        return accept_key == error.fingerprint
    if not sys.stdin.isatty():
        return False
    click.echo(f"{error.key_type} key, not seen before:\n  {error.fingerprint}", err=True)
    click.echo("On the server's console run:  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", err=True)
    return click.confirm("Does the fingerprint match?", default=False, err=True)


@command.command("probe")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def probe(paths: Paths, name: str, as_json: bool) -> None:
    """Connect and show what is there; nothing is changed on the host."""
    found = _discover(name, _host(paths, name), None)
    if as_json:
        show.document(_json(found))
    else:
        _print(found)


def _json(found: Installation) -> dict[str, Any]:
    database, media = found.database, found.media
    return {
        "host": found.host,
        "kind": found.kind.value,
        "supported": found.kind.supported,
        "root": clean(found.root),
        "user": clean(found.user),
        "version": clean(found.version),
        "domain": clean(found.domain),
        "units": [clean(unit) for unit in found.units],
        "database": database
        and {
            "host": clean(database.host),
            "port": database.port,
            "name": clean(database.name),
            "user": clean(database.user),
            "server_version": database.server_version,
        },
        "redis": [
            {"role": place.role, "host": clean(place.unix_path or place.host), "port": place.port, "db": place.database}
            for place in found.redis
        ],
        "media": media
        and {
            "kind": media.kind.value,
            "path": media.path and clean(media.path),
            "provider": clean(media.provider),
            "bucket": clean(media.bucket),
        },
        "secret_files": [
            {"path": clean(file.path), "mode": f"{file.mode:04o}", "owner": clean(file.owner), "bytes": file.bytes}
            for file in found.secret_files
        ],
        "warnings": [clean(text) for text in found.warnings],
    }


def _print(found: Installation) -> None:
    click.echo(f"{found.host}: {found.kind.value} Mastodon {clean(found.version) or '(version unknown)'}")
    if not found.kind.supported:
        click.echo(f"  it {explain(found.kind)}")
    lines = [("root", f"{clean(found.root)}  user {clean(found.user)}  {clean(found.domain)}")]
    if found.units:
        lines.append(("services", ", ".join(clean(unit) for unit in found.units)))
    if found.database:
        place = found.database
        version = f"PostgreSQL {place.server_version // 10000}" if place.server_version else "not asked"
        lines.append(("database", clean(f"{place.name} at {place.host}:{place.port} as {place.user}  {version}")))
    lines += [("secrets", clean(f"{file.path}  {file.mode:04o} {file.owner}")) for file in found.secret_files]
    if found.media:
        lines.append(("media", clean(found.media.path or f"{found.media.provider} bucket {found.media.bucket}")))
    for role in found.redis:
        lines.append(
            ("redis", clean(f"{role.role}: {role.unix_path or f'{role.host}:{role.port}'} db {role.database}"))
        )
    for label, text in lines:
        click.echo(f"  {label:<9} {text}")
    for warning in found.warnings:
        click.echo(f"  warning   {clean(warning)}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def list_hosts(paths: Paths, as_json: bool) -> None:
    """The configured hosts and what the last look at each ended in."""
    config = load(paths.config_file)
    seen = {each.host: each for each in Catalog(paths.cache_dir).observations()}
    if as_json:
        show.document(
            {
                "hosts": [
                    {
                        "host": name,
                        "address": host.address,
                        "state": (seen[name].state if name in seen else HostState.UNASKED).value,
                        "asked_at": rfc3339(seen[name].asked_at) if name in seen else None,
                        "assets": [asset.value for asset in host.assets],
                    }
                    for name, host in config.hosts.items()
                ]
            }
        )
        return
    if not config.hosts:
        click.echo("No hosts yet. `mastovault host add NAME ADDRESS` adds one.")
        return
    show.rows(
        ("HOST", "ADDRESS", "STATE", "VERSION", "MESSAGE"),
        (
            (name, host.address, each.state.value, each.version, each.message)
            if (each := seen.get(name))
            else (name, host.address, HostState.UNASKED.value, "", "")
            for name, host in config.hosts.items()
        ),
    )


@command.command("forget")
@click.argument("name")
@click.option("--confirm", metavar="NAME", help="The name again, instead of being asked.")
@click.pass_obj
def forget(paths: Paths, name: str, confirm: str | None) -> None:
    """Take a host out of the configuration. Its backups stay in the vaults."""
    _host(paths, name)
    if confirm is None and sys.stdin.isatty():
        confirm = click.prompt(f"Its backups stay. Type {name} to forget it", default="", show_default=False)
    if confirm != name:
        raise MastovaultError(f"{name} was not forgotten", f"Confirm with --confirm {name}.")
    save.forget_host(paths.config_file, name)
    click.echo(f"{name} is forgotten; its backups are still in the vaults.")
