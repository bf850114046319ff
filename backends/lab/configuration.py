"""The configuration of a lab's fleet, with an encryption key of its own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pyrage
import tomlkit

from backends.archive.signing import new_signing_key
from backends.lab.bucket import REGION
from backends.lab.ssh import login_name

if TYPE_CHECKING:
    from backends.lab.host import LabHost
    from backends.lab.lab import Lab


_BUCKET = "mastovault-backups"


def write_configuration(lab: Lab, *, s3_vault: bool = False) -> None:
    """Write `config.toml` and the keys beside it; with `s3_vault` the vault `offsite` is a bucket of the lab."""
    identity = pyrage.x25519.Identity.generate()
    key_file = lab.directory / "client/identity.age"
    key_file.touch(mode=0o600)
    key_file.write_text(f"# public key: {identity.to_public()}\n{identity}\n")

    document = tomlkit.document()
    document.add(tomlkit.comment("The fleet of a lab; `mastovault demo` makes it anew each time."))
    signing_key = lab.directory / "client/signing.pem"
    document["signers"] = {"demo": new_signing_key(signing_key)}
    document["encryption"] = {
        "recipients": [str(identity.to_public())],
        "identity": str(key_file),
        "signing_key": str(signing_key),
    }
    document["vaults"] = {
        "local": _directory(lab, "local"),
        # On this machine too, like all of the lab; it stands for storage elsewhere.
        "offsite": _bucket(lab) if s3_vault else _directory(lab, "offsite", offsite=True),
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
    for vault in document["vaults"].values():
        if "path" in vault:
            Path(vault["path"]).mkdir()


def _directory(lab: Lab, name: str, **more: object) -> dict[str, object]:
    return {"type": "directory", "path": str(lab.directory / "vaults" / name), **more}


def _bucket(lab: Lab) -> dict[str, object]:
    """A vault in a bucket of the lab's S3 server; the credentials are in files that a command prints."""
    if lab.bucket is None:
        raise RuntimeError("the lab has no S3 server")
    lab.bucket.make(_BUCKET)
    commands = {}
    for name, value in (("access_key", lab.bucket.access_key), ("secret_key", lab.bucket.secret_key)):
        place = lab.directory / "client" / f"s3_{name}"
        place.touch(mode=0o600)
        place.write_text(f"{value}\n")
        commands[f"{name}_command"] = f"cat {shlex.quote(str(place))}"
    return {
        "type": "s3",
        "bucket": _BUCKET,
        "prefix": "fleet",
        "endpoint_url": lab.bucket.endpoint_url,
        "region": REGION,
        **commands,
        "offsite": True,
        "price_per_gb_month": 0.006,
        "currency": "EUR",
    }


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
