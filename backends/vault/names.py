"""Which keys a vault takes: the one gate between a text and a place in a vault."""

from __future__ import annotations

import re

from backends.errors import VaultError
from backends.untrusted import clean

PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
"""One part of a key. None begins with a dot: those are temporary files, and nothing that ends up as `..`."""
_KEY = re.compile(rf"{PART.pattern}(?:/{PART.pattern})*")
MAX_KEY = 1000


def valid_key(key: str) -> bool:
    """Whether a text is a key: relative, `/`-separated parts of `[A-Za-z0-9._-]`, none of them begins with a dot."""
    return len(key) <= MAX_KEY and _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Return a key as it is. Raises `VaultError` when it could lead out of the vault."""
    if not valid_key(key):
        raise VaultError(
            f"{clean(key, 80)!r} is no name that a vault takes", "Names hold letters, digits, dots and dashes."
        )
    return key
