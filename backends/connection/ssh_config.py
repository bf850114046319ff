"""What ~/.ssh/config and /etc/ssh/ssh_config say about a host (ssh_config(5)), read by paramiko's SSHConfig.

Added to paramiko here: `Include`, `Match exec` that leaves the terminal alone, tokens in UserKnownHostsFile.
"""

from __future__ import annotations

import contextlib
import getpass
import glob
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko.config
from paramiko.ssh_exception import ConfigParseError, CouldNotCanonicalize

from backends.config.schema import HostConfig
from backends.connection.address import Address, parse_address
from backends.errors import ConfigurationError
from backends.untrusted import clean

SYSTEM_FILE = Path("/etc/ssh/ssh_config")
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_INCLUDE_DEPTH = 16
_MATCH_EXEC_TIMEOUT = 10.0
_BLOCK = re.compile(r"(host|match)[\s=]", re.IGNORECASE)
_INCLUDE = re.compile(r"include(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Everything needed to reach and log in to one host."""

    host: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    identities_only: bool
    """Offer no key of the agent that is not one of `identity_files`."""
    identities_named: bool
    """The files were asked for, as against the usual names in ~/.ssh."""
    known_hosts: tuple[Path, ...]
    host_key_alias: str | None = None
    jumps: tuple[Address, ...] = ()
    """Hosts to go through, the first one first."""
    proxy_command: str | None = None
    agent_socket: str | None = None
    """None means no agent."""


class SshConfig:
    """The parsed files."""

    def __init__(self, parsed: paramiko.config.SSHConfig) -> None:
        self._parsed = parsed

    def target(self, address: Address, host: HostConfig | None = None) -> SshTarget:
        """Resolve an address.

        Args:
            address: the host, as written.
            host: the host's own settings, which win; None for a host on the way (ProxyJump).

        Raises:
            ConfigurationError: a value of the file cannot be used.
        """
        found = self._lookup(address)
        own_identity = host.identity_file if host else None
        files = [own_identity.expanduser()] if own_identity else [Path(p).expanduser() for p in _several(found)]
        named = bool(files)
        jump = _value(found, "proxyjump")
        return SshTarget(
            host=_value(found, "hostname") or address.host,
            port=address.port or _port(_value(found, "port")),
            user=address.user or _value(found, "user") or _own_name(),
            identity_files=tuple(files) if named else tuple(_home() / ".ssh" / name for name in DEFAULT_KEYS),
            identities_only=bool(own_identity) or (_value(found, "identitiesonly") or "").lower() == "yes",
            identities_named=named,
            known_hosts=_known_hosts(found, address, host),
            host_key_alias=_value(found, "hostkeyalias"),
            jumps=_jumps(jump),
            proxy_command=None if jump else _value(found, "proxycommand"),
            agent_socket=_agent(found.get("identityagent")),
        )

    def _lookup(self, address: Address) -> Mapping[str, Any]:
        # The user and port that the address gives count for `Match user` and for %r and %p, as with ssh's -l and -p.
        lines = [f"User {address.user}"] if address.user else []
        lines += [f"Port {address.port}"] if address.port else []
        given = paramiko.config.SSHConfig.from_text("\n".join(lines))
        given._config += self._parsed._config  # type: ignore[attr-defined]
        try:
            with _match_exec():
                return given.lookup(address.host)
        except (ConfigParseError, CouldNotCanonicalize, ValueError, KeyError, OSError) as error:
            raise ConfigurationError(
                f"the ssh configuration of {clean(address.host, 100)} cannot be used: {clean(str(error), 200)}",
                "try `ssh -G` with the same name, and correct ~/.ssh/config",
            ) from None


def load_ssh_config() -> SshConfig:
    """Read the user's file, then the system's; the first value found counts.

    Raises:
        ConfigurationError: a line of a file cannot be read.
    """
    parsed = paramiko.config.SSHConfig()
    for file in (_home() / ".ssh" / "config", SYSTEM_FILE):
        try:
            parsed.parse(list(_lines(file, file.parent, 0)))
        except (ConfigParseError, ValueError) as error:
            raise ConfigurationError(
                f"{file} cannot be read: {clean(str(error), 200)}", f"correct that line of {file}"
            ) from None
    return SshConfig(parsed)


def _lines(file: Path, base: Path, depth: int) -> Iterator[str]:
    """The lines of a file with those of the files it includes in their place."""
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return
    block = "Host *"
    for raw in text.splitlines():
        line = raw.strip()
        include = _INCLUDE.fullmatch(line)
        if include is None:
            if _BLOCK.match(line):
                block = line
            yield line
        elif depth < _INCLUDE_DEPTH:
            for pattern in include[1].replace('"', "").split():
                for path in sorted(glob.glob(str(base / Path(pattern).expanduser()))):  # noqa: PTH207 (absolute too)
                    yield from _lines(Path(path), base, depth + 1)
            # What the included file began has ended with it.
            yield block


@contextlib.contextmanager
def _match_exec() -> Iterator[None]:
    """Let paramiko ask a shell for `Match exec`, as ssh does; what it uses itself reads the terminal's keys."""

    def run(command: str, **_: object) -> SimpleNamespace:
        try:
            # The user's own file says what to run, and that a shell runs it.
            argv = ("/bin/sh", "-c", command)
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_MATCH_EXEC_TIMEOUT)
        except (OSError, subprocess.TimeoutExpired):
            return SimpleNamespace(ok=False)
        return SimpleNamespace(ok=done.returncode == 0)

    vars(paramiko.config)["invoke"] = SimpleNamespace(run=run)
    yield


def _several(found: Mapping[str, Any]) -> list[str]:
    files = found.get("identityfile") or []
    return [str(file) for file in files if str(file).lower() != "none"]


def _value(found: Mapping[str, Any], key: str) -> str | None:
    value = found.get(key)
    return str(value) if value is not None and str(value).lower() != "none" else None


def _port(text: str | None) -> int:
    if text is None:
        return 22
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ConfigurationError(f"the Port {clean(text, 20)!r} in ~/.ssh/config is none", "correct it")
    return int(text)


def _jumps(value: str | None) -> tuple[Address, ...]:
    return tuple(parse_address(part.strip().removeprefix("ssh://")) for part in value.split(",")) if value else ()


def _known_hosts(found: Mapping[str, Any], address: Address, host: HostConfig | None) -> tuple[Path, ...]:
    if host is not None and host.known_hosts is not None:
        return (host.known_hosts.expanduser(),)
    named = found.get("userknownhostsfile")
    if named:
        tokens = {"%d": str(_home()), "%h": str(found.get("hostname") or address.host), "%n": address.host, "%%": "%"}
        replaced = re.sub("%[dhn%]", lambda match: tokens[match[0]], str(named))
        files = [Path(part).expanduser() for part in replaced.replace('"', "").split()]
        return tuple(file for file in files if file.name.lower() != "none") or (Path(os.devnull),)
    return (_home() / ".ssh" / "known_hosts", _home() / ".ssh" / "known_hosts2")


def _agent(value: str | None) -> str | None:
    default = os.environ.get("SSH_AUTH_SOCK") or None
    if value is None or value == "SSH_AUTH_SOCK":
        return default
    if value.lower() == "none":
        return None
    if value.startswith("$"):
        return os.environ.get(value.strip("${}")) or None
    return str(Path(value.replace("%d", str(_home()))).expanduser())


def _home() -> Path:
    return Path("~").expanduser()


def _own_name() -> str:
    return getpass.getuser()
