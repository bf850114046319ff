"""What a restore calls its databases and its staging directory, and how names and values become part of SQL."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable
from dataclasses import replace

from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace

MAX_BYTES = 63
"""PostgreSQL cuts longer names (NAMEDATALEN)."""
_OURS = re.compile(r"_(restore|before)_(\d{8}t\d{6}\w*)$", re.ASCII)
_DIGEST = 6


def restored_name(live: str, restore: str) -> str:
    """The database that a restore fills beside the live one, and where it is again after an undo."""
    return _beside(live, f"_restore_{restore}")


def before_name(live: str, restore: str) -> str:
    """Where the live database is kept after the swap."""
    return _beside(live, f"_before_{restore}")


def beside(place: DatabasePlace, restore: str) -> DatabasePlace:
    """The restored database before its swap, reached as Mastodon reaches the live one."""
    return replace(place, name=restored_name(place.name, restore))


def staging_directory(parent: str, restore: str) -> str:
    """The private directory that holds the dump while it is loaded."""
    return posixpath.join(parent, f".mastovault-restore-{restore}")


def made_by_restores(names: Iterable[str], live: str) -> dict[str, tuple[str, str]]:
    """Databases that restores of this live one made: name to `restore` or `before`, and the restore's id."""
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        match = _OURS.search(name)
        if match and name in {restored_name(live, match[2]), before_name(live, match[2])}:
            found[name] = (match[1], match[2])
    return found


def _beside(live: str, suffix: str) -> str:
    if len((live + suffix).encode()) <= MAX_BYTES:
        return live + suffix
    # Two long names that begin alike must not become one.
    digest = hashlib.sha256(live.encode()).hexdigest()[:_DIGEST]
    room = MAX_BYTES - len(suffix.encode()) - _DIGEST - 1
    return f"{live.encode()[:room].decode('utf-8', 'ignore')}_{digest}{suffix}"


def identifier(name: str) -> str:
    """A name as SQL. Raises `AssetFailed` for one that PostgreSQL cannot have."""
    return '"' + _sane(name).replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL, whatever `standard_conforming_strings` says. Raises `AssetFailed` when it holds a NUL."""
    quoted = _sane(text, empty=True).replace("'", "''")
    return " E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in quoted else f"'{quoted}'"


def _sane(text: str, *, empty: bool = False) -> str:
    if "\0" in text or not (text or empty):
        raise AssetFailed("A name in the database's settings is empty or holds a NUL.", "Look at DB_NAME and DB_USER.")
    return text
