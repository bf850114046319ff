"""New keys: files first, then the configuration in one step, and nothing left behind when that fails."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backends.archive.keys import new_identity, normal_recipients, write_identity
from backends.archive.signing import is_public_key, load_signer, new_signing_key, signer_name
from backends.config.paths import Paths
from backends.config.save_keys import change_keys
from backends.config.schema import Config, Encryption
from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import Secret
from backends.operations.locks import whoami
from backends.operations.recovery_page import write_page
from backends.untrusted import clean

SIGNING_KEY = "signing.pem"


class NewFiles:
    """Files of a change of keys. Those that were made are removed again, unless the change was completed."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for path in self._made:
            with suppress(OSError):
                path.unlink()

    def complete(self) -> None:
        """Keep them: the configuration names them now."""
        self._made.clear()

    def identity(self, path: Path, identity: Secret, passphrase: Secret | None = None) -> None:
        """Write an identity. Raises `KeyUnavailable`."""
        write_identity(path, identity, passphrase)
        self._made.append(path)

    def page(self, path: Path, page: str) -> None:
        """Write a recovery page. Raises `KeyUnavailable`."""
        write_page(path, page)
        self._made.append(path)

    def signing_key(self, path: Path) -> str:
        """Make a signing key; returns its public part. Raises `KeyUnavailable`."""
        public = new_signing_key(path)
        self._made.append(path)
        return public


def machine_name() -> str:
    """Under which name this user on this machine signs: `root@backup`."""
    return clean(f"{whoami()}@{socket.gethostname() or 'localhost'}", 80)


def free_name(wanted: Path) -> Path:
    """A path that is not taken: the wanted one, or one with a number."""
    number = 2
    path = wanted
    while path.exists() or path.is_symlink():
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        number += 1
    return path


def signing_values(
    config: Config, paths: Paths, files: NewFiles, *, anew: bool, now: datetime
) -> tuple[dict[str, Any], dict[str, str | None], str]:
    """The signing key of this machine: the one it has, or a new one.

    Args:
        config: the configuration.
        paths: a new key goes beside the configuration file.
        files: keeps track of what was made.
        anew: make a new one although there is one; the old one stays trusted under a name that says so.
        now: for that name.

    Returns:
        What to set in `[encryption]`, what in `[signers]`, and the public key.

    Raises:
        KeyUnavailable: the key that is configured cannot be read, or none can be written.
    """
    path = config.encryption.signing_key
    name = machine_name()
    before = "" if path is None else _public(path, lenient=anew)
    if path is not None and not anew:
        known = before in {key.strip() for key in config.signers.values()}
        return {}, {} if known else {_free_signer(config, name): before}, before
    base = f"signing-{now:%Y%m%d}.pem" if path is not None else SIGNING_KEY
    made = free_name(paths.config_file.parent.absolute() / base)
    public = files.signing_key(made)
    signers: dict[str, str | None] = {name: public}
    held = config.signers.get(name)
    if held is not None and held.strip() != public:
        signers[_free_signer(config, f"{name} before {now:%Y-%m-%d}")] = held
    return {"signing_key": str(made)}, signers, public


def _public(path: Path, *, lenient: bool) -> str:
    try:
        return load_signer(path.expanduser()).public
    except KeyUnavailable:
        if lenient:  # it is replaced because it is lost
            return ""
        raise


def _free_signer(config: Config, name: str) -> str:
    number, found = 2, name
    while found in config.signers:
        found, number = f"{name} {number}", number + 1
    return found


def rotated(
    encryption: Encryption, own: Sequence[str], new: str, *, drop: Sequence[str] = (), recovery: str | None = None
) -> list[str]:
    """Who can read new snapshots after a rotation.

    Args:
        encryption: `[encryption]` as it is.
        own: recipients of the identities that are at hand; the new one takes their place.
        new: the recipient of the new identity.
        drop: who shall read no more.
        recovery: the new recovery recipient, in place of the old one; None keeps it.

    Raises:
        ConfigurationError: one to drop is no recipient, or is the recovery recipient, which is only replaced.
    """
    before = normal_recipients(encryption.recipients)
    gone = set(normal_recipients(drop))
    if unknown := sorted(gone - set(before)):
        raise ConfigurationError(
            f"{unknown[0]} is no recipient, so it cannot be dropped", "`mastovault key show` lists them."
        )
    kept = encryption.recovery
    if kept in gone and recovery is None:
        raise ConfigurationError(
            "that is the recovery recipient, without which a lost machine loses the backups",
            "Add --recovery: a new one takes its place.",
        )
    old = set(own) | gone
    if kept is not None:
        (old.discard if recovery is None else old.add)(kept)
    after = [each for each in before if each not in old]
    return list(dict.fromkeys([new, *after, *([recovery] if recovery else [])]))


def save(paths: Paths, encryption: dict[str, Any], signers: dict[str, str | None], files: NewFiles) -> None:
    """Write the configuration; from here on the new files stay. Raises `ConfigurationError`."""
    change_keys(paths.config_file, encryption, signers)
    files.complete()


def trust(config: Config, paths: Paths, name: str, public: str) -> None:
    """Trust what a key signs. Raises `ConfigurationError` when it is none, or the name has another one."""
    public = public.strip()
    if not is_public_key(public):
        raise ConfigurationError(
            "that is no public signing key", "It has 44 characters and ends in =; `mastovault key show` prints it."
        )
    if not name.strip() or len(name) > 80 or clean(name) != name:
        raise ConfigurationError("a signer needs a name of up to 80 plain characters", "For example: me@backup")
    if config.signers.get(name, public).strip() != public:
        raise ConfigurationError(
            f"{name} is trusted with another key", f"Take that away first: mastovault key trust --forget {name!r}"
        )
    held = {key.strip() for key in config.signers.values()}
    if public in held and name not in config.signers:
        raise ConfigurationError(
            f"that key is trusted already, as {signer_name(public, config.signers)}", "One name is enough."
        )
    change_keys(paths.config_file, {}, {name: public})


def forget_signer(config: Config, paths: Paths, name: str) -> None:
    """Trust a signer no more. Raises `ConfigurationError` when there is none of that name."""
    if name not in config.signers:
        raise ConfigurationError(
            f"nobody named {clean(name, 80)} is trusted", "`mastovault key trust --list` shows them."
        )
    change_keys(paths.config_file, {}, {name: None})


def make_identity(files: NewFiles, place: Path, passphrase: Secret | None) -> str:
    """A new identity in a new file; returns its recipient. Raises `KeyUnavailable`."""
    identity, recipient = new_identity()
    files.identity(place, identity, passphrase)
    return recipient
