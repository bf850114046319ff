"""Which snapshots other keys than the current ones open."""

from __future__ import annotations

from collections.abc import Sequence

from backends.archive.keys import normal_recipients
from backends.archive.keys_known import known_identities
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, MastovaultError
from backends.model import Asset
from backends.operations.fleet import refresh_vaults
from backends.operations.keys import Needed, needed
from backends.untrusted import clean


def to_rewrap(config: Config, paths: Paths, hosts: Sequence[str] = ()) -> dict[str, tuple[Asset, ...]]:
    """The assets by host of which there are snapshots for other recipients than the configured ones.

    Without `hosts` of all that any vault holds.

    Raises:
        ConfigurationError: a named host has no snapshots.
        CacheFailed: the cache cannot be used.
    """
    wanted = set(normal_recipients(config.encryption.recipients))
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    held = catalog.snapshots()
    if unknown := [host for host in hosts if host not in {each.host for each in held}]:
        raise ConfigurationError(
            f"no vault holds snapshots of {clean(unknown[0], 80)}", "`mastovault list` shows them."
        )
    found: dict[str, set[Asset]] = {}
    for snapshot in held:
        if hosts and snapshot.host not in hosts:
            continue
        try:
            if set(catalog.manifest(snapshot.id).recipients) != wanted:
                found.setdefault(snapshot.host, set()).add(snapshot.asset)
        except MastovaultError:  # said by the listing
            continue
    return {host: tuple(asset for asset in Asset if asset in found[host]) for host in sorted(found)}


def needed_now(config: Config, paths: Paths) -> list[str]:
    """A sentence for each old identity that can be opened without asking: how many snapshots need it."""
    if not config.encryption.old_identities:
        return []
    try:
        catalog = Catalog(paths.cache_dir, config.signers)
        known = known_identities(config.encryption)
        return [needed_words(each) for each in needed(catalog, known, catalog.snapshots())]
    except MastovaultError as error:
        return [f"How many snapshots need the old identity is not known: {error.sentence}"]


def needed_words(found: Needed) -> str:
    """Whether an old identity can go."""
    if not found.snapshots:
        return (
            f"old identity {found.source}: no snapshot needs it any more; "
            "take it out of old_identities, and destroy it when no copy of a vault is left elsewhere"
        )
    many = "1 snapshot needs it" if found.snapshots == 1 else f"{found.snapshots} snapshots need it"
    return f"old identity {found.source}: {many}, the newest is {found.newest}"
