"""The one door: from a host's configuration to a connection."""

from __future__ import annotations

from backends.config.schema import HostConfig
from backends.connection.address import LOCAL, parse_address
from backends.connection.base import Connection
from backends.connection.local import LocalConnection
from backends.connection.login import Ask
from backends.connection.reach import Timeouts, Way
from backends.connection.ssh import SshConnection
from backends.connection.ssh_config import load_ssh_config

_DEFAULTS = Timeouts()


def open_connection(
    name: str, host: HostConfig, *, ask: Ask | None = None, timeouts: Timeouts = _DEFAULTS
) -> Connection:
    """Connect to a host and log in.

    Args:
        name: what the host is called in the configuration, for messages.
        host: its settings.
        ask: asks the operator for a secret; None where nobody is there to be asked.
        timeouts: how long each step may take.

    Raises:
        ConnectionFailed: it cannot be reached.
        HostKeyUnknown: its key has not been accepted yet.
        HostKeyChanged: it shows another key than the accepted one.
        LoginRefused: it did not let us in.
        ConfigurationError: address, ~/.ssh/config or a `*_command` is wrong.
    """
    if host.address == LOCAL:
        return LocalConnection(name, host, ask)
    address = parse_address(host.address)
    way = Way(name, host, load_ssh_config(), ask, timeouts)
    return SshConnection(name, way.go(address), host, ask, timeouts, again=lambda: way.go(address))
