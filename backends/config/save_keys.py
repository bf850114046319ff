"""Changing the keys in `config.toml`: what belongs together changes at once, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from backends.config.save import change, table

_NOBODY: Mapping[str, str | None] = {}


def change_keys(path: Path, encryption: Mapping[str, Any], signers: Mapping[str, str | None] = _NOBODY) -> None:
    """Set keys of `[encryption]` and names in `[signers]` in one step; a value of None removes the key.

    Raises:
        ConfigurationError: the file is broken before or after, or cannot be written; it is then as it was.
    """

    def edit(document: tomlkit.TOMLDocument) -> None:
        for name, values in (("encryption", encryption), ("signers", signers)):
            if values:
                _set(document, name, values)

    change(path, edit)


def _set(document: tomlkit.TOMLDocument, name: str, values: Mapping[str, Any]) -> None:
    place = table(document, name)
    for key, value in values.items():
        if value is not None:
            place[key] = value
        elif key in place:
            place.remove(key)
    if not place:
        document.remove(name)
