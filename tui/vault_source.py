"""Where the storage screens get what they show; part of `tui.source`. Every method may block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from backends.config.paths import Paths
from backends.config.schema import Config, SftpVault, VaultConfig
from backends.errors import ConfigurationError, HostKeyUnknown
from tui import vaults
from tui.vaults import Plan, VaultDetail, row_of

if TYPE_CHECKING:
    from backends.catalog import Catalog
    from backends.operations.vault_check import VaultReport


_REPAIR = "its copy there is damaged"


class VaultSource(Protocol):
    """What the storage screens need of the engine."""

    def vault(self, name: str) -> VaultDetail:
        """What is in a vault, and what it lacks; from the cache."""
        ...

    def check_vault(self, name: str, config: VaultConfig) -> VaultReport:
        """Prove what a vault can do: this takes seconds. Never raises for the vault's fault."""
        ...

    def accept_vault_key(self, name: str, config: SftpVault, shown: HostKeyUnknown) -> None:
        """Write down the key of a vault's server, which the operator has compared. Raises `MastovaultError`."""
        ...

    def add_vault(self, name: str, values: Mapping[str, Any]) -> None:
        """Save a vault in the configuration. Raises `ConfigurationError`."""
        ...

    def forget_vault(self, name: str) -> None:
        """Take a vault out of the configuration; what is stored in it stays. Raises `MastovaultError`."""
        ...

    def plan_sync(self, target: str) -> Plan:
        """What a vault lacks, and from where it would come. Raises `MastovaultError`."""
        ...

    def plan_prune(self, hosts: Sequence[str], vaults: Sequence[str]) -> Plan:
        """Every snapshot of some hosts in some vaults (none: all), kept or removed. Raises `MastovaultError`."""
        ...


class EngineVaults:
    """The real engine."""

    def __init__(self, paths: Paths, catalog: Catalog) -> None:
        self._paths, self._catalog = paths, catalog

    def _load(self) -> Config:
        from backends.config.load import load

        return load(self._paths.config_file)

    def vault(self, name: str) -> VaultDetail:
        """Read it from the cache."""
        config = self._load()
        found = self._catalog.trusting(config.signers).snapshots()
        held = tuple(one for one in found if vaults.is_in(one, name))
        return VaultDetail(name=name, snapshots=held, lacks=vaults.lacking(found, config, name))

    def check_vault(self, name: str, config: VaultConfig) -> VaultReport:
        """Write, read, list, replace and remove something small there."""
        from backends.operations.vault_check import check_vault

        return check_vault(name, config, recipients=self._load().encryption.recipients)

    def accept_vault_key(self, name: str, config: SftpVault, shown: HostKeyUnknown) -> None:
        """Add it to the known_hosts file in use."""
        from backends.connection.host_keys import accept
        from backends.vault.sftp_link import ssh_settings

        accept(name, ssh_settings(config), shown)

    def add_vault(self, name: str, values: Mapping[str, Any]) -> None:
        """Write it into the file; comments and order stay."""
        from backends.config.save import add_vault

        add_vault(self._paths.config_file, name, values)

    def forget_vault(self, name: str) -> None:
        """Remove it from the file and the cache; nothing is asked of it."""
        from backends.operations.storage import forget_vault

        forget_vault(self._load(), self._paths, name)

    def plan_sync(self, target: str) -> Plan:
        """Look at the vaults, and compare what they hold."""
        from backends.operations.sync import plan_sync

        config = self._load()
        hosts = [host for host in config.hosts if target in config.vaults_of(host)]
        if not hosts:
            raise ConfigurationError(
                f"no host's backups go to {target}", "Add it to the `vaults` of a host, in config.toml."
            )
        made = plan_sync(config, self._paths, hosts, None, target)
        rows = [
            row_of(item.snapshot, vault=item.sources[0], goes=True, bytes=item.bytes, why=_REPAIR * item.repair)
            for item in made.items
        ]
        rows += [row_of(left.snapshot, vault="", goes=False, why=left.why) for left in made.left_out]
        notes = tuple(f"{name} could not be asked: {why}" for name, why in made.away.items())
        return Plan(rows=tuple(rows), bytes=made.bytes, free=made.free_bytes, notes=notes)

    def plan_prune(self, hosts: Sequence[str], vaults: Sequence[str]) -> Plan:
        """Look at the vaults, and judge every snapshot by the policies: what goes comes first."""
        from backends.operations.prune import plan_prune

        made = plan_prune(self._load(), self._paths, hosts, vaults=vaults)
        rows = [
            row_of(verdict.snapshot, vault=part.vault, goes=not verdict.keep, why=", ".join(verdict.why))
            for part in made.parts
            for verdict in part.verdicts
        ]
        rows.sort(key=lambda row: (row.goes, row.at), reverse=True)
        away = (f"{name} did not answer, nothing is removed there: {why}" for name, why in made.away.items())
        return Plan(rows=tuple(rows), bytes=made.bytes, notes=(*made.notes, *away))
