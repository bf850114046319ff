"""The configuration of a lab's fleet, with an encryption key of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyrage
import tomlkit

from backends.lab.ssh import login_name

if TYPE_CHECKING:
    from backends.lab.host import LabHost
    from backends.lab.lab import Lab


def write_configuration(lab: Lab) -> None:
    """Write `config.toml` and the identity beside it."""
    identity = pyrage.x25519.Identity.generate()
    key_file = lab.directory / "client/identity.age"
    key_file.touch(mode=0o600)
    key_file.write_text(f"# public key: {identity.to_public()}\n{identity}\n")

    document = tomlkit.document()
    document.add(tomlkit.comment("The fleet of a lab; `mastovault demo` makes it anew each time."))
    document["encryption"] = {"recipients": [str(identity.to_public())], "identity": str(key_file)}
    document["vaults"] = {
        "local": {"type": "directory", "path": str(lab.directory / "vaults/local")},
        # On this machine too, like all of the lab; it stands for storage elsewhere.
        "offsite": {"type": "directory", "path": str(lab.directory / "vaults/offsite"), "offsite": True},
    }
    document["hosts"] = {
        name: {
            "address": host.address,
            "vaults": list(host.plan.vaults),
            "identity_file": str(lab.directory / "client/id_ed25519"),
            "known_hosts": str(lab.directory / "client/known_hosts"),
            **(_servers(host) if host.plan.empty else {}),
        }
        for name, host in lab.hosts.items()
    }
    lab.config_file.touch(mode=0o600)
    lab.config_file.write_text(tomlkit.dumps(document))
    for place in (lab.paths.state_dir, lab.paths.cache_dir, lab.directory / "vaults"):
        place.mkdir(mode=0o700)
    for name in ("local", "offsite"):
        (lab.directory / "vaults" / name).mkdir()


def write_ssh_files(lab: Lab) -> None:
    """What ssh(1) needs to reach the hosts by their names: `ssh -F client/ssh_config social`."""
    client = lab.directory / "client"
    known = client / "known_hosts"
    known.write_text("".join(host.ssh.known_hosts_line for host in lab.hosts.values()))
    common = (
        "Host *\n  HostName 127.0.0.1\n  RequestTTY no\n  LogLevel ERROR\n  IdentitiesOnly yes\n"
        f"  User {login_name()}\n  IdentityFile {client / 'id_ed25519'}\n  UserKnownHostsFile {known}\n"
    )
    ports = "".join(f"Host {name}\n  Port {host.ssh.port}\n" for name, host in lab.hosts.items())
    (client / "ssh_config").write_text(ports + common)


def _servers(host: LabHost) -> dict[str, object]:
    """Where the servers of a host are that has no settings to say so."""
    return {
        "database_host": host.database.host,
        "database_port": host.database.port,
        "redis_url": f"redis://:{host.redis.password}@127.0.0.1:{host.redis.port}/0",
    }
