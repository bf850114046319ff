"""The first look at a host: one script, no rights, nothing changed (what it finds is told in docs/discovery.md)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from backends.connection.base import Command, Connection, sh
from backends.errors import BecomeRefused, CommandFailed
from backends.mastodon.systemd import PROPERTIES, Unit, parse_units
from backends.untrusted import clean

TIMEOUT = 60.0

_SCRIPT = r"""
mark=$1 properties=$2; shift 2
section() { printf '\n%s %s\n' "$mark" "$1"; }
limited() { if command -v timeout >/dev/null; then timeout 10 "$@"; else "$@"; fi; }
section machine; cat /etc/machine-id
section marks
[ -e /etc/NIXOS ] && echo nixos
[ -d /etc/yunohost/apps ] && echo yunohost
section units
command -v systemctl >/dev/null && limited systemctl --no-pager show --all -p "$properties" '*.service'
section programs
for each in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do [ -x "$each/pg_dump" ] && printf '%s\n' "$each"; done
section sockets
for each in /var/run/postgresql/.s.PGSQL.* /tmp/.s.PGSQL.*; do [ -S "$each" ] && printf '%s\n' "$each"; done
section roots
for each in "$@" "$HOME/live" /var/www/*/live; do
  [ -f "$each/lib/mastodon/version.rb" ] && printf '%s\0' "$each"
done
section containers
format='{{.Image}}|{{.Names}}|{{.Label "com.docker.compose.project.working_dir"}}'
for socket in /var/run/docker.sock /run/docker.sock; do
  [ -S "$socket" ] || continue
  command -v docker >/dev/null && { limited docker ps -a --format "$format" || echo denied; }
  break
done
command -v podman >/dev/null && limited podman ps -a --format "$format"
section end
"""

_CLUSTER = r"""
command -v kubectl >/dev/null || exit 0
if command -v timeout >/dev/null; then limit='timeout 10'; else limit=; fi
$limit kubectl get pods --all-namespaces -l app.kubernetes.io/name=mastodon -o name
"""

FALLBACK_ROOTS = ("/home/mastodon/live", "/opt/mastodon/live", "/srv/mastodon/live", "/opt/mastodon", "/srv/mastodon")
_IMAGE = re.compile(r"(?:^|/)mastodon(?:-streaming)?(?:[:@]|$)")


@dataclass(frozen=True, slots=True)
class Container:
    """One container of Mastodon's."""

    image: str
    name: str
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the first look saw; raw text of the host, cleaned where it is shown."""

    machine_id: str = ""
    nixos: bool = False
    yunohost: bool = False
    units: tuple[Unit, ...] = ()
    program_dirs: tuple[str, ...] = ()
    socket_paths: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    containers: tuple[Container, ...] = ()
    containers_denied: bool = False


def look(connection: Connection) -> Look:
    """Look around as the login user.

    Raises:
        ConnectionFailed: the connection is gone.
        CommandFailed: the host's shell did not do what it was told.
    """
    mark = f"mastovault-{secrets.token_hex(16)}"
    command = Command(sh(_SCRIPT, mark, PROPERTIES, *FALLBACK_ROOTS), env={"LC_ALL": "C"})
    done = connection.run(command, timeout=TIMEOUT)
    sections = _sections(done.stdout, mark)
    if "end" not in sections:
        said = clean(done.stderr, 300).strip()
        raise CommandFailed(
            f"the shell of {clean(connection.host, 100)} did not answer as expected" + (f": {said}" if said else ""),
            "Log in by hand and see whether `sh` works there and nothing else answers.",
            status=done.status,
        )
    return parse_look(sections)


def _sections(output: bytes, mark: str) -> dict[str, bytes]:
    _, *parts = output.split(b"\n" + mark.encode() + b" ")
    named = (part.partition(b"\n") for part in parts)
    return {name.decode("ascii", "replace"): content for name, _, content in named}


def parse_look(sections: dict[str, bytes]) -> Look:
    """Read the sections that the script printed; never raises."""

    def text(name: str) -> str:
        return sections.get(name, b"").decode("utf-8", "replace")

    machine = text("machine").strip()
    marks = text("marks").split()
    containers = text("containers").splitlines()
    roots = (part.decode("utf-8", "surrogateescape") for part in sections.get("roots", b"").split(b"\0"))
    return Look(
        machine_id=machine if re.fullmatch(r"[0-9a-f]{32}", machine) else "",
        nixos="nixos" in marks,
        yunohost="yunohost" in marks,
        units=tuple(unit for unit in parse_units(text("units")) if unit.may_serve),
        program_dirs=tuple(text("programs").splitlines()),
        socket_paths=tuple(text("sockets").splitlines()),
        roots=tuple(dict.fromkeys(root.rstrip("/") for root in roots if root.startswith("/"))),
        containers=_containers(containers),
        containers_denied="denied" in containers,
    )


def _containers(lines: Sequence[str]) -> tuple[Container, ...]:
    split = (line.split("|", 2) for line in lines[:1000])
    return tuple(Container(*parts) for parts in split if len(parts) == 3 and _IMAGE.search(parts[0]))


def containers_as(connection: Connection, user: str) -> tuple[Container, ...]:
    """Ask docker once more with more rights; nothing when they are not granted."""
    command = Command(
        ("docker", "ps", "-a", "--format", '{{.Image}}|{{.Names}}|{{.Label "com.docker.compose.project.working_dir"}}'),
        as_user=user,
    )
    try:
        return _containers(connection.run(command, timeout=20.0).text.splitlines())
    except (BecomeRefused, CommandFailed):
        return ()


def has_pods(connection: Connection) -> bool:
    """Whether a Kubernetes that the login user can ask runs Mastodon."""
    try:
        return "pod/" in connection.run(Command(sh(_CLUSTER)), timeout=20.0).text
    except CommandFailed:
        return False
