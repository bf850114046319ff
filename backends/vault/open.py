"""Which module opens which kind of vault; a new kind is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable

from backends.config.schema import DirectoryVault as DirectoryConfig
from backends.config.schema import S3Vault, SftpVault, VaultConfig
from backends.vault.base import Vault


def open_vault(name: str, config: VaultConfig) -> Vault:
    """The vault that a `[vaults.NAME]` table describes; nothing is read or written yet."""
    return _KINDS[type(config)](name, config)


def _directory(name: str, config: VaultConfig) -> Vault:
    from backends.vault.directory import DirectoryVault

    if not isinstance(config, DirectoryConfig):
        raise TypeError(type(config).__name__)
    return DirectoryVault(name, config.path.expanduser().absolute(), offsite=bool(config.offsite))


def _s3(name: str, config: VaultConfig) -> Vault:
    from backends.vault import s3

    if not isinstance(config, S3Vault):
        raise TypeError(type(config).__name__)
    return s3.S3Vault(name, config)


def _sftp(name: str, config: VaultConfig) -> Vault:
    from backends.vault import sftp

    if not isinstance(config, SftpVault):
        raise TypeError(type(config).__name__)
    return sftp.SftpVault(name, config)


_KINDS: dict[type, Callable[[str, VaultConfig], Vault]] = {
    DirectoryConfig: _directory,
    S3Vault: _s3,
    SftpVault: _sftp,
}
