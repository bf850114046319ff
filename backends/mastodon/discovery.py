"""Finding the Mastodon on a host: a few read-only questions, each with the least right (docs/discovery.md)."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backends.config.schema import HostConfig
from backends.connection.base import Connection
from backends.errors import DiscoveryFailed
from backends.mastodon.database_place import database_place
from backends.mastodon.database_probe import probe_database
from backends.mastodon.env_file import too_large
from backends.mastodon.environment import Effective, dotenv_paths, effective, process_environment
from backends.mastodon.host_files import FilesRead, FileState, HostFile, read_files, reads_as
from backends.mastodon.installation import Installation, InstallKind, SecretFile
from backends.mastodon.kinds import explain, kind_of
from backends.mastodon.look import FALLBACK_ROOTS, Look, containers_as, has_pods, look
from backends.mastodon.media_place import media_place
from backends.mastodon.redis_roles import redis_roles
from backends.mastodon.systemd import Unit
from backends.mastodon.version import parse_version
from backends.model import Secret
from backends.untrusted import clean

_VERSION_FILE = "lib/mastodon/version.rb"
_MAX_ROOTS = 8


@dataclass(frozen=True, slots=True)
class _Found:
    root: str
    units: tuple[Unit, ...]
    read: FilesRead
    others: tuple[str, ...]

    def file(self, path: str) -> HostFile:
        return self.read.files[path]


def discover(connection: Connection, host_name: str, host: HostConfig) -> Installation:
    """Find the Mastodon of a host.

    Raises:
        DiscoveryFailed: there is none, or its settings cannot be read.
        ConnectionFailed: the connection is gone.
        CommandFailed: the host's shell does not work.
    """
    seen = look(connection)
    found = _find_root(connection, host, seen)
    if seen.containers_denied and host.become != "none" and not (found and found.units):
        # Beside containers the code is only a clone, so this must be known before it counts as native.
        seen = replace(seen, containers=(*seen.containers, *containers_as(connection, host.become_user)))
    kind = kind_of(seen, found.root if found else "", found.units if found else ())
    if found is None or not kind.supported:
        return _recognised(connection, host_name, host, seen, kind, found)
    return _native(connection, host_name, host, seen, found)


def _find_root(connection: Connection, host: HostConfig, seen: Look) -> _Found | None:
    if host.root:
        if not host.root.startswith("/"):
            raise DiscoveryFailed(f"the root {clean(host.root, 200)!r} is not an absolute path", "Correct `root`.")
        candidates = [host.root.rstrip("/") or "/"]
    else:
        own = sorted((unit for unit in seen.units), key=lambda unit: (not unit.named_so, not unit.active, unit.rank))
        candidates = list(dict.fromkeys([*(unit.directory for unit in own), *seen.roots]))[:_MAX_ROOTS]
    read = _read(connection, host, seen, candidates)
    roots = [root for root in candidates if read.files[_version_path(root)].state is FileState.READ]
    if roots:
        chosen = roots[0]
        units = tuple(unit for unit in seen.units if unit.directory == chosen)
        return _Found(chosen, units, read, tuple(roots[1:]))
    if host.root:
        raise _no_root(connection, host, read)
    named = {unit.directory for unit in seen.units if unit.named_so}
    hidden = [root for root in candidates if root in named and read.files[_version_path(root)].state.lacks_right]
    if hidden:
        sentence, step = reads_as(read, _version_path(hidden[0]), connection.login_user, host.become)
        raise DiscoveryFailed(sentence, step)
    return None


def _read(connection: Connection, host: HostConfig, seen: Look, roots: Sequence[str]) -> FilesRead:
    units = [unit for unit in seen.units if unit.directory in roots]
    paths = [path for root in roots for path in (_version_path(root), *dotenv_paths(root))]
    paths += [path for unit in units for path in (*unit.environment_files, *unit.drop_ins)]
    own = [unit.user for unit in sorted(units, key=lambda unit: not unit.named_so) if unit.user]
    users = [None, *([host.user] if host.user else own[:1]), *([host.become_user] if host.become != "none" else [])]
    return read_files(connection, paths, users)


def _version_path(root: str) -> str:
    return posixpath.join(root, _VERSION_FILE)


def _no_root(connection: Connection, host: HostConfig, read: FilesRead) -> DiscoveryFailed:
    root = clean(host.root or "", 300)
    file = read.files[_version_path(host.root.rstrip("/") or "/" if host.root else "/")]
    if file.state.lacks_right:
        return DiscoveryFailed(*reads_as(read, file.path, connection.login_user, host.become))
    return DiscoveryFailed(
        f"{root} holds no Mastodon: {root}/{_VERSION_FILE} does not exist",
        "Correct `root` for this host, or leave it out to have it found.",
    )


def _recognised(
    connection: Connection, host_name: str, host: HostConfig, seen: Look, kind: InstallKind, found: _Found | None
) -> Installation:
    """An installation of a kind that is only recognised, or the error that there is none."""
    if kind is InstallKind.UNKNOWN and has_pods(connection):
        kind = InstallKind.KUBERNETES
    units = found.units if found else seen.units
    if kind is InstallKind.UNKNOWN or (kind is InstallKind.NIXOS and not found and not units):
        raise _nothing(connection, seen)
    root = found.root if found else next((each.directory for each in seen.containers if each.directory), "")
    return Installation(
        host=host_name,
        kind=kind,
        root=root,
        user=host.user or next((unit.user for unit in units if unit.user), ""),
        version=parse_version(found.file(_version_path(root)).content) if found else "",
        units=tuple(unit.id for unit in units),
        machine_id=seen.machine_id,
        warnings=(f"this Mastodon {explain(kind)}",),
    )


def _nothing(connection: Connection, seen: Look) -> DiscoveryFailed:
    looked = ", ".join(("its systemd services", *FALLBACK_ROOTS[:1], "~/live", "/var/www/*/live", "docker"))
    denied = f"; {connection.login_user} may not ask docker" if seen.containers_denied else ""
    return DiscoveryFailed(
        f"no Mastodon was found on {clean(connection.host, 100)} (looked at {looked}{denied})",
        "Set `root` for this host when it lies elsewhere.",
    )


def _native(connection: Connection, host_name: str, host: HostConfig, seen: Look, found: _Found) -> Installation:
    sources = secret_sources(found)
    settings = _settings(connection, host, found, sources)
    version_file = found.file(_version_path(found.root))
    user = host.user or next((unit.user for unit in found.units if unit.user), "") or version_file.owner
    environment = settings.values
    place = database_place(environment, host, sockets=seen.socket_paths, user=user, login_user=connection.login_user)
    place = probe_database(connection, place, user=user, program_dirs=seen.program_dirs)
    roles, redis_warnings = redis_roles(environment, host.redis_url)
    files = tuple(
        SecretFile(
            path=file.path,
            mode=file.mode,
            owner=file.owner,
            group=file.group,
            bytes=file.bytes,
            format=form,
            read_as=file.read_as,
        )
        for file, form in sources
    )
    warnings = [*settings.warnings, *place.warnings, *redis_warnings]
    if not any(form == "dotenv" for _, form in sources):
        warnings.insert(0, f"{clean(found.root, 300)}/.env.production does not exist")
    if found.others:
        others = ", ".join(clean(each, 200) for each in found.others)
        warnings.append(f"there are more installations on this host: {others} (`root` chooses)")
    return Installation(
        host=host_name,
        kind=InstallKind.NATIVE,
        root=found.root,
        user=user,
        version=parse_version(version_file.content),
        domain=clean(environment.get("LOCAL_DOMAIN", Secret("")).reveal(), 253),
        units=tuple(unit.id for unit in found.units),
        environment=environment,
        secret_files=files,
        database=place,
        redis=roles,
        media=media_place(environment, found.root),
        machine_id=seen.machine_id,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def secret_sources(found: _Found) -> list[tuple[HostFile, str]]:
    """The files that hold settings or secrets and exist, with their format, in the order that settings are taken."""
    paths = [(path, "systemd") for unit in found.units for path in unit.environment_files]
    paths += [(path, "dotenv") for path in dotenv_paths(found.root)]
    paths += [(path, "raw") for unit in found.units for path in unit.drop_ins]
    present = [(found.file(path), form) for path, form in dict(paths).items() if path in found.read.files]
    kept = []
    for file, form in present:
        if file.state in {FileState.ABSENT, FileState.SPECIAL}:
            continue
        # Most drop-ins only tune a service.
        if form == "raw" and file.state is FileState.READ and b"Environment" not in file.content:
            continue
        kept.append((file, form))
    return kept


def _settings(
    connection: Connection, host: HostConfig, found: _Found, sources: Sequence[tuple[HostFile, str]]
) -> Effective:
    for file, form in sources:
        if file.state is FileState.LARGE and form != "raw":
            raise too_large(file.path, file.bytes)
        if file.state is not FileState.READ and form != "raw":
            sentence, step = reads_as(found.read, file.path, connection.login_user, host.become)
            raise DiscoveryFailed(sentence, step)
    contents = [(file.path, form, file.content) for file, form in sources]
    return effective(contents, process_environment(found.units))
