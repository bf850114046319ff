"""Is this the host we know? Strict: what is not known is refused, what has changed is refused loudly."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from backends.config.schema import HostConfig
from backends.connection import known_hosts
from backends.connection.address import parse_address
from backends.connection.ssh_config import SshTarget, load_ssh_config
from backends.connection.transport import KEY_TYPES
from backends.errors import ConfigurationError, HostKeyChanged, HostKeyUnknown
from backends.untrusted import clean

GLOBAL_FILES = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
# Which signature algorithms go with a key type of known_hosts; the others have one of their own name.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


class UnknownHere(HostKeyUnknown):
    """An unknown key that remembers under which name, in which file, it would be accepted."""

    known_as: str = ""
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class HostKeys:
    """What the known_hosts files say about one host."""

    name: str
    """The host's name in the configuration, for messages."""
    known_as: str
    """Its name in known_hosts."""
    bare_name: str
    """The same without a port: a key known for it is good for every port, as OpenSSH has it."""
    file: Path
    """Where an accepted key is written."""
    entries: tuple[known_hosts.Entry, ...]

    @classmethod
    def of(cls, name: str, target: SshTarget) -> HostKeys:
        """Read the files that count for a host."""
        bare = (target.host_key_alias or target.host).lower()
        known_as = bare if target.host_key_alias else known_hosts.lookup_name(target.host, target.port)
        entries = known_hosts.read((*target.known_hosts, *GLOBAL_FILES))
        mine = tuple(entry for entry in entries if entry.speaks_of(known_as) or entry.speaks_of(bare))
        return cls(name, known_as, bare, target.known_hosts[0], mine)

    def algorithms(self) -> tuple[str, ...]:
        """Host key algorithms to ask for first, so that the host shows a key that is known already."""
        kinds = known_hosts.known_types(self.entries, self.known_as) or known_hosts.known_types(
            self.entries, self.bare_name
        )
        wanted = [algorithm for kind in kinds for algorithm in _ALGORITHMS.get(kind, (kind,))]
        return tuple(algorithm for algorithm in wanted if algorithm in KEY_TYPES)

    def check(self, key_type: str, key: bytes) -> None:
        """Pass when the key is the one that is known.

        Raises:
            HostKeyUnknown: no key is known for the host.
            HostKeyChanged: another one is, or this one was revoked.
        """
        shown = known_hosts.fingerprint(key)
        for entry in self.entries:
            if entry.marker == known_hosts.REVOKED and entry.key == key:
                raise HostKeyChanged(
                    f"{self.name} shows a host key that was REVOKED: {shown} ({_where(entry)})",
                    "do not connect; a revoked key may be in other hands. Ask whoever revoked it",
                )
        known = [entry for entry in self.entries if not entry.marker]
        if any(entry.key == key for entry in known):
            return
        for_it = [entry for entry in known if entry.speaks_of(self.known_as)]
        if for_it:
            raise self._changed(for_it, key_type, shown)
        raise self._unknown(key_type, key, shown)

    def _changed(self, known: list[known_hosts.Entry], key_type: str, shown: str) -> HostKeyChanged:
        same_type = [entry for entry in known if entry.key_type == key_type]
        expected = (same_type or known)[0]
        return HostKeyChanged(
            f"THE HOST KEY OF {self.name} HAS CHANGED: accepted was {known_hosts.fingerprint(expected.key)}, the host "
            f"now shows {shown} ({clean(key_type, 50)}). Somebody may be listening in, or the host was installed anew",
            f"compare with `ssh-keygen -lf` on the server's own console. Only if the new key is right, remove the old "
            f"one with `ssh-keygen -R {clean(self.known_as, 200)} -f {expected.file}` and accept the new one",
        )

    def _unknown(self, key_type: str, key: bytes, shown: str) -> HostKeyUnknown:
        kind = clean(key_type, 50)
        error = UnknownHere(
            f"the host key of {self.name} is not known yet: {kind} {shown}",
            f"compare it with `ssh-keygen -lf {_key_file(kind)}` on the server's own console, then accept it with "
            f"`mastovault host add`, or with `ssh-keyscan` after the same comparison",
            fingerprint=shown,
            key_type=key_type,
            key_base64=base64.b64encode(key).decode("ascii"),
        )
        error.known_as = self.known_as
        error.file = self.file
        return error


def accept(name: str, host: HostConfig, error: HostKeyUnknown) -> Path:
    """Write the key that was shown, and compared by the operator, to the known_hosts file in use.

    Returns:
        the file.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    if isinstance(error, UnknownHere) and error.file is not None:
        known_as, file = error.known_as, error.file
    else:
        keys = HostKeys.of(name, load_ssh_config().target(parse_address(host.address), host))
        known_as, file = keys.known_as, keys.file
    try:
        known_hosts.append(file, known_as, error.key_type, error.key_base64)
    except OSError as problem:
        raise ConfigurationError(
            f"the host key of {name} cannot be written to {file}: {problem.strerror}",
            f"make {file} writable, or name another file as known_hosts of the host",
        ) from None
    return file


def _where(entry: known_hosts.Entry) -> str:
    return f"{entry.file} line {entry.line}"


def _key_file(kind: str) -> str:
    names = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}
    return f"/etc/ssh/ssh_host_{names.get(kind, 'ecdsa')}_key.pub"
