"""Reading a vault into the cache: only what is new in it, and nothing that is not what it says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from backends.archive.layout import manifest_key
from backends.catalog.listing import Listed, Seen, list_vault
from backends.catalog.reading import read_new, remove
from backends.catalog.store import BESIDE, TABLES, Store
from backends.catalog.torn import find_torn, sizes
from backends.catalog.usage import keep_usage
from backends.errors import NotFound, VaultError
from backends.model import utc_now
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.format import VaultFormat, read_format

_LOOK_EVERY = timedelta(days=1)
"""How often a vault is asked for its settings: that costs requests, and hardly anybody changes them."""
_MAX_RECIPIENTS = 100


def refresh(store: Store, vault: Vault, also: Collection[str] = (), beat: Callable[[], None] = lambda: None) -> None:
    """Bring the cache up to date with a vault. A vault that is away keeps its last known content, with the error.

    Args:
        store: the cache.
        vault: the vault.
        also: ids of snapshots that are known to have been committed to it, whether it lists them yet or not.
        beat: told now and then that it goes on.

    Raises:
        CacheFailed: the cache cannot be used.
    """
    try:
        found = _bring_in(store, vault, also, beat)
    except VaultError as error:
        with store.writing() as cache:
            note_failure(cache, vault.name, vault.where, offsite=vault.offsite, error=error.sentence)
        return
    beat()
    recipients = [clean(each, 120) for each in found.recipients[:_MAX_RECIPIENTS]] if found else []
    with store.writing() as cache:
        cache.execute(
            "UPDATE vaults SET read_at = ?, error = '', free = ?, machine = ?, recipients = ? WHERE name = ?",
            (utc_now().timestamp(), _free(vault), vault.machine_id(), json.dumps(recipients), vault.name),
        )
    if found:
        _look(store, vault, utc_now())


def forget(cache: sqlite3.Connection, name: str) -> None:
    """Remove everything known of a vault."""
    for table in (*TABLES, *BESIDE):
        cache.execute(f"DELETE FROM {table} WHERE vault = ?", (name,))  # noqa: S608
    cache.execute("DELETE FROM vaults WHERE name = ?", (name,))


def note_failure(cache: sqlite3.Connection, name: str, where: str, *, offsite: bool, error: str) -> None:
    """Remember that a vault did not answer; what was known of another place of that name is forgotten."""
    row = cache.execute("SELECT place FROM vaults WHERE name = ?", (name,)).fetchone()
    if row is not None and row[0] != where:
        forget(cache, name)
    cache.execute(
        "INSERT INTO vaults (name, place, offsite, error, vault_id, stored) VALUES (?, ?, ?, ?, '', 0)"
        " ON CONFLICT (name) DO UPDATE SET error = excluded.error, offsite = excluded.offsite",
        (name, where, offsite, error),
    )


def _bring_in(store: Store, vault: Vault, also: Collection[str], beat: Callable[[], None]) -> VaultFormat | None:
    """Returns what the vault says of itself. Raises `VaultError` when it is away."""
    found = read_format(vault)
    _settle(store, vault, found.id if found else "")
    with store.reading() as cache:
        known = _known(cache, vault.name)
    with sizes(store) as seen:
        listed = list_vault(vault, seen, beat)
        late = {key for key in map(manifest_key, also) if key not in listed.records}
        new = [key for key, is_now in listed.records.items() if known.get(key) != is_now]
        read_new(store, vault, [*new, *late], listed.records, beat)
        gone = _gone(vault, [key for key in known if key not in listed.records and key not in late], beat)
        with store.writing() as cache:
            remove(cache, vault.name, gone)
            _keep_sizes(cache, vault.name, listed)
        find_torn(store, vault, seen, beat)
    return found


def _gone(vault: Vault, hidden: Sequence[str], beat: Callable[[], None]) -> list[str]:
    """Which records that are not listed any more are not there: listings of some providers lag behind."""
    gone = []
    for key, data in vault.read_many(hidden, 0):
        beat()
        if isinstance(data, NotFound):
            gone.append(key)
    return gone


def _keep_sizes(cache: sqlite3.Connection, vault: str, listed: Listed) -> None:
    since = dict(cache.execute("SELECT key, since FROM packs WHERE vault = ?", (vault,)))
    gone = ((vault, key) for key in since.keys() - listed.shared)
    cache.executemany("DELETE FROM packs WHERE vault = ? AND key = ?", gone)
    keep_usage(cache, vault, listed.used, listed.came(since), utc_now())
    cache.execute("UPDATE vaults SET stored = ? WHERE name = ?", (listed.bytes, vault))


def _settle(store: Store, vault: Vault, vault_id: str) -> None:
    """Forget what is known of another vault that had this name.

    Raises:
        VaultError: the vault has vanished from its place, which is what an unmounted disk looks like.
    """
    with store.writing() as cache:
        row = cache.execute("SELECT place, vault_id FROM vaults WHERE name = ?", (vault.name,)).fetchone()
        same_place = row is not None and row[0] == vault.where
        if same_place and row[1] and not vault_id:
            raise VaultError(f"there is no vault in {vault.where} any more", "Is its disk mounted?")
        if row is not None and (not same_place or row[1] not in {"", vault_id}):
            forget(cache, vault.name)
            row = None
        if row is None:
            cache.execute(
                "INSERT INTO vaults (name, place, offsite, error, vault_id, stored) VALUES (?, ?, ?, '', ?, 0)",
                (vault.name, vault.where, vault.offsite, vault_id),
            )
        else:
            cache.execute(
                "UPDATE vaults SET offsite = ?, vault_id = ? WHERE name = ?", (vault.offsite, vault_id, vault.name)
            )


def _known(cache: sqlite3.Connection, name: str) -> dict[str, Seen]:
    query = " UNION ALL ".join(f"SELECT key, size, modified FROM {table} WHERE vault = :name" for table in TABLES)  # noqa: S608
    return {key: Seen(size, modified) for key, size, modified in cache.execute(query, {"name": name})}


def _look(store: Store, vault: Vault, now: datetime) -> None:
    """Ask a vault for its settings, once a day."""
    with store.reading() as cache:
        row = cache.execute("SELECT looked_at FROM vaults WHERE name = ?", (vault.name,)).fetchone()
    if row is None or (row[0] is not None and 0 <= now.timestamp() - row[0] < _LOOK_EVERY.total_seconds()):
        return
    look = vault.look()
    try:
        exclusive = vault.exclusive()
    except VaultError:
        exclusive = None
    with store.writing() as cache:
        cache.execute(
            "UPDATE vaults SET looked_at = ?, versioning = ?, object_lock = ?, note = ?, exclusive = ? WHERE name = ?",
            (now.timestamp(), look.versioning, clean(look.object_lock, 80), clean(look.note), exclusive, vault.name),
        )


def _free(vault: Vault) -> int | None:
    try:
        return vault.free_bytes()
    except VaultError:
        return None
