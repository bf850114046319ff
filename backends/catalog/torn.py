"""Snapshots that are not whole any more: what their manifests name, against what the vault lists.

A listing may lag behind, so nothing is said of an object before the vault was asked for it by its key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backends.catalog.store import Store
from backends.errors import NotFound, VaultError
from backends.untrusted import clean
from backends.vault.base import StoredObject, Vault

_ASK = 200
"""Objects that a vault is asked for in one refresh; what is beyond them comes in the next ones, the newest first."""
_BATCH = 2000
_SUSPECT = """
SELECT n.key, n.object, n.bytes FROM needs n
JOIN snapshots s ON s.vault = n.vault AND s.key = n.key
LEFT JOIN temp.listed l ON l.object = n.object
WHERE n.vault = ? AND l.bytes IS NOT n.bytes ORDER BY s.at DESC, n.key, n.object
"""


class Sizes:
    """The sizes of the objects that a vault lists, on disk: a vault may hold more of them than memory should."""

    def __init__(self, cache: sqlite3.Connection) -> None:
        self._cache = cache
        self._new: list[tuple[str, int]] = []
        cache.execute("CREATE TEMP TABLE listed (object TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID")

    def add(self, found: StoredObject) -> None:
        """Take one object in."""
        self._new.append((found.key, found.bytes))
        if len(self._new) >= _BATCH:
            self._keep()

    def suspects(self, vault: str) -> dict[str, dict[str, int]]:
        """By manifest, the newest first, its objects that are not listed with the length that they should have."""
        self._keep()
        found: dict[str, dict[str, int]] = {}
        for key, name, size in self._cache.execute(_SUSPECT, (vault,)):
            found.setdefault(key, {})[name] = size
        return found

    def _keep(self) -> None:
        self._cache.execute("BEGIN")
        self._cache.executemany("INSERT OR REPLACE INTO temp.listed VALUES (?, ?)", self._new)
        self._cache.execute("COMMIT")
        self._new.clear()


@contextmanager
def sizes(store: Store) -> Iterator[Sizes]:
    """Room for the sizes in a listing. Raises `CacheFailed`."""
    with store.reading() as cache:
        yield Sizes(cache)


def find_torn(store: Store, vault: Vault, listed: Sizes, beat: Callable[[], None]) -> None:
    """Note which of the known snapshots of a vault are torn, and forget what is whole again. Raises `CacheFailed`.

    What was found before and is still listed in the same way is not asked for again.
    """
    suspects = listed.suspects(vault.name)
    with store.reading() as cache:
        rows = cache.execute("SELECT key, object, why FROM torn WHERE vault = ?", (vault.name,)).fetchall()
    known = {key: (name, why) for key, name, why in rows}
    torn = {key: known[key] for key, objects in suspects.items() if key in known and known[key][0] in objects}
    asked = _Asked(vault, beat)
    for key, objects in suspects.items():
        if key not in torn and (found := asked.wrong_with(key, objects)):
            torn[key] = found
    if torn == known:
        return
    with store.writing() as cache:
        cache.execute("DELETE FROM torn WHERE vault = ?", (vault.name,))
        new = ((vault.name, key, name, why) for key, (name, why) in torn.items())
        cache.executemany("INSERT INTO torn VALUES (?, ?, ?, ?)", new)


class _Asked:
    """Asks a vault for the lengths of objects, each once, and no more than is bearable."""

    def __init__(self, vault: Vault, beat: Callable[[], None]) -> None:
        self._vault, self._beat = vault, beat
        self._known: dict[str, int | VaultError | None] = {}

    def wrong_with(self, manifest: str, objects: dict[str, int]) -> tuple[str, str] | None:
        """An object of a snapshot and what is wrong with it; None when nothing is known to be."""
        for name, size in objects.items():
            found = self._length(name)
            missing = isinstance(found, NotFound)
            if not missing and (found is None or isinstance(found, VaultError) or found == size):
                continue
            if isinstance(self._length(manifest), NotFound):
                return None  # pruned since it was listed
            what = clean(name.rpartition("/")[2], 80)
            return name, f"{what} is missing" if missing else f"{what} has {found} bytes instead of {size}"
        return None

    def _length(self, name: str) -> int | VaultError | None:
        if name not in self._known:
            if len(self._known) >= _ASK:
                return None
            self._beat()
            try:
                self._known[name] = self._vault.size(name)
            except VaultError as error:
                self._known[name] = error
        return self._known[name]
