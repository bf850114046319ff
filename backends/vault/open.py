"""Which module opens which kind of vault; a new kind is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable

from backends.config.schema import DirectoryVault as DirectoryConfig
from backends.config.schema import S3Vault, SftpVault, VaultConfig
from backends.errors import ConfigurationError
from backends.vault.base import Vault


def open_vault(name: str, config: VaultConfig) -> Vault:
    """The vault that a `[vaults.NAME]` table describes; nothing is read or written yet.

    Raises:
        ConfigurationError: its kind is not there in this release.
    """
    return _KINDS[type(config)](name, config)


def _directory(name: str, config: VaultConfig) -> Vault:
    from backends.vault.directory import DirectoryVault

    if not isinstance(config, DirectoryConfig):
        raise TypeError(type(config).__name__)
    return DirectoryVault(name, config.path.expanduser().absolute(), offsite=bool(config.offsite))


def _sftp(name: str, config: VaultConfig) -> Vault:
    from backends.vault import sftp

    if not isinstance(config, SftpVault):
        raise TypeError(type(config).__name__)
    return sftp.SftpVault(name, config)


def _not_yet(name: str, config: VaultConfig) -> Vault:
    raise ConfigurationError(
        f"the vault {name} is of the type {config.type}, which is not supported yet in this release",
        "Use a vault of the type directory for now.",
    )


_KINDS: dict[type, Callable[[str, VaultConfig], Vault]] = {
    DirectoryConfig: _directory,
    S3Vault: _not_yet,
    SftpVault: _sftp,
}
