"""The machine that a restore goes to: what is there, and on a machine without settings what will be there."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace

from backends.archive.manifest import Manifest
from backends.config.schema import HostConfig
from backends.connection.base import Connection
from backends.errors import DiscoveryFailed
from backends.mastodon.database_place import database_place
from backends.mastodon.database_probe import probe_database
from backends.mastodon.discovery import discover
from backends.mastodon.environment import effective
from backends.mastodon.host_files import FileState, read_files
from backends.mastodon.installation import Installation, InstallKind
from backends.mastodon.kinds import require_supported
from backends.mastodon.look import look
from backends.mastodon.media_place import media_place
from backends.mastodon.redis_roles import redis_roles
from backends.model import Asset, Secret
from backends.restore.base import Target
from backends.restore.plan import RestoreRequest
from backends.restore.source import Source
from backends.untrusted import clean

_ROOT = "/home/mastodon/live"
_USER = "mastodon"
_SETTINGS = ".env.production"


def find_target(
    connection: Connection, host: HostConfig, request: RestoreRequest, sources: Mapping[Asset, Source]
) -> Target:
    """Look at the target.

    Where it has no settings, those of the secrets that are being restored say where things will be; what the host's
    configuration says (`database_host`, `redis_url`, ...) wins. After a restore has put other settings in place, the
    ones that were kept aside still say how the servers of this machine are reached.

    Raises:
        DiscoveryFailed: there is no Mastodon, nor secrets to say where one should be.
        ConnectionFailed: the connection is gone.
    """
    secrets = sources.get(Asset.SECRETS)
    bare = False
    try:
        found = discover(connection, request.host, host)
        require_supported(found)
    except DiscoveryFailed:
        # Something is there and cannot be read, or is of a kind that is only recognised: not a bare machine.
        if secrets is None or not _is_bare(connection):
            raise
        found, bare = _intended(request, host, secrets.manifest), True
    kept = _kept_settings(connection, host, request, found)
    if kept is not None:
        found = _with(connection, host, found, kept)
    elif secrets is not None and not _has_settings(found):
        from backends.restore.secrets_source import environment_of

        found = _with(connection, host, found, environment_of(secrets).values)
    return Target(
        name=request.host,
        connection=connection,
        installation=found,
        become=host.become,
        bare=bare,
        same_host=all(source.manifest.host == request.host for source in sources.values()),
    )


def shown(target: Target, address: str) -> str:
    """For people: `social (mastodon@social.example), Mastodon 4.6.5 in /home/mastodon/live`."""
    here = target.installation
    what = (
        "no Mastodon is installed" if target.bare else f"Mastodon {here.version or '(version unknown)'} in {here.root}"
    )
    return clean(f"{target.name} ({address}), {what}", 300)


def _has_settings(found: Installation) -> bool:
    return any(posixpath.basename(file.path).startswith(".env") for file in found.secret_files)


def _is_bare(connection: Connection) -> bool:
    """Whether nothing on the machine looks like Mastodon."""
    seen = look(connection)
    return not (seen.units or seen.roots or seen.containers or seen.nixos or seen.yunohost)


def _intended(request: RestoreRequest, host: HostConfig, manifest: Manifest) -> Installation:
    """What a bare machine will be, from the paths of the secrets' snapshot."""
    files = manifest.facts.get("files")
    first = files[0] if isinstance(files, list) and files and isinstance(files[0], dict) else {}
    path = str(first.get("path", ""))
    root = host.root or (posixpath.dirname(path) if path.startswith("/") else _ROOT)
    return Installation(
        host=request.host,
        kind=InstallKind.NATIVE,
        root=clean(root, 300),
        user=host.user or clean(str(first.get("owner") or _USER), 100),
        version=clean(str(manifest.facts.get("mastodon_version", "")), 60),
    )


def _kept_settings(
    connection: Connection, host: HostConfig, request: RestoreRequest, found: Installation
) -> Mapping[str, Secret] | None:
    """The settings that this restore moved aside, when it has."""
    path = posixpath.join(found.root, f"{_SETTINGS}.before-{request.id}")
    others = [found.user, host.become_user] if host.become != "none" else []
    read = read_files(connection, [path], [None, *(user for user in others if user)])
    file = read.files.get(path)
    if file is None or file.state is not FileState.READ:
        return None
    return effective([(path, "dotenv", file.content)]).values


def _with(
    connection: Connection, host: HostConfig, found: Installation, environment: Mapping[str, Secret]
) -> Installation:
    """The installation as these settings make it."""
    values = {**found.environment, **environment}
    seen = look(connection)
    place = database_place(values, host, sockets=seen.socket_paths, user=found.user, login_user=connection.login_user)
    place = probe_database(connection, place, user=found.user, program_dirs=seen.program_dirs)
    roles, _ = redis_roles(values, host.redis_url)
    return replace(
        found,
        domain=found.domain or clean(values.get("LOCAL_DOMAIN", Secret("")).reveal(), 253),
        environment=dict(values),
        database=place,
        redis=roles,
        media=media_place(values, found.root),
        machine_id=found.machine_id or seen.machine_id,
    )
