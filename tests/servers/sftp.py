"""SFTP servers for vaults: OpenSSH's on loopback, one for the whole run of the tests."""

from __future__ import annotations

import atexit
import getpass
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from backends.config.schema import SftpVault as SftpConfig
from backends.vault.sftp import SftpVault
from backends.vault.sftp_link import SftpLink
from tests.servers.openssh import OpenSSH

SUBSYSTEM = "Subsystem sftp internal-sftp"


@cache
def shared_server() -> OpenSSH:
    """One sshd with nothing special, started when it is first asked for. Skips where there is none."""
    directory = Path(tempfile.mkdtemp(prefix="mastovault-sftp-"))
    server = OpenSSH(directory, options=SUBSYSTEM)
    server.start()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(server.stop)
    return server


def config_for(server: OpenSSH, path: Path | str, *, user: str | None = None, **settings: Any) -> SftpConfig:
    """The configuration of a vault at a place on a server."""
    settings.setdefault("address", f"{user or getpass.getuser()}@127.0.0.1:{server.port}")
    settings.setdefault("identity_file", server.client_key)
    settings.setdefault("known_hosts", server.known_hosts)
    return SftpConfig(type="sftp", path=str(path), **settings)


def sftp_vault(place: Path) -> SftpVault:
    """A vault in a directory, on the shared server, over one connection for all of them: making one takes a while."""
    vault = SftpVault("v", config_for(shared_server(), place / "vault"))
    vault.link = _shared_link()
    return vault


@cache
def _shared_link() -> SftpLink:
    return SftpLink("v", config_for(shared_server(), "/"), patience=20)
