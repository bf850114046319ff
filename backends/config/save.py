"""Changing `config.toml` without losing what the operator wrote in it: comments and order stay."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Table

from backends.config.load import load, read_text
from backends.errors import ConfigurationError


def change(path: Path, edit: Callable[[tomlkit.TOMLDocument], None]) -> None:
    """Apply an edit and write the file back, atomically; the result must still be a valid configuration.

    Raises:
        ConfigurationError: the file is broken before or after the edit, or cannot be written; it is then as it was.
    """
    load(path)
    document = tomlkit.parse(read_text(path) or "")
    edit(document)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigurationError(f"{path.parent} cannot be written: {error.strerror}", "Check its owner.") from None
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(tomlkit.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        load(draft)
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o777)
        draft.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def table(document: tomlkit.TOMLDocument, *names: str) -> Table:
    """The table at a path of names, made when it is not there."""
    place: Any = document
    for name in names:
        if name not in place:
            # A parent that only holds other tables needs no header of its own.
            place.add(name, tomlkit.table(is_super_table=name != names[-1]))
        place = place[name]
    found: Table = place
    return found


def add_host(path: Path, name: str, values: Mapping[str, Any]) -> None:
    """Add a host. Raises `ConfigurationError` when it is there already."""

    def edit(document: tomlkit.TOMLDocument) -> None:
        if name in document.get("hosts", {}):
            raise ConfigurationError(f"a host named {name} is already configured", "Choose another name.")
        table(document, "hosts", name).update(values)

    change(path, edit)


def forget_host(path: Path, name: str) -> None:
    """Remove a host from the configuration; its backups stay where they are. Raises `ConfigurationError`."""

    def edit(document: tomlkit.TOMLDocument) -> None:
        hosts = document.get("hosts", {})
        if name not in hosts:
            raise ConfigurationError(f"no host named {name} is configured", "`mastovault host list` shows them.")
        hosts.remove(name)

    change(path, edit)


def set_encryption(path: Path, values: Mapping[str, Any]) -> None:
    """Set keys of `[encryption]`; a value of None removes the key."""

    def edit(document: tomlkit.TOMLDocument) -> None:
        place = table(document, "encryption")
        for key, value in values.items():
            if value is not None:
                place[key] = value
            elif key in place:
                place.remove(key)

    change(path, edit)


def add_vault(path: Path, name: str, values: Mapping[str, Any]) -> None:
    """Add a vault. Raises `ConfigurationError` when it is there already."""

    def edit(document: tomlkit.TOMLDocument) -> None:
        if name in document.get("vaults", {}):
            raise ConfigurationError(f"a vault named {name} is already configured", "Choose another name.")
        table(document, "vaults", name).update(values)

    change(path, edit)


def forget_vault(path: Path, name: str) -> None:
    """Remove a vault from the configuration; what is stored in it stays. Raises `ConfigurationError`."""

    def edit(document: tomlkit.TOMLDocument) -> None:
        vaults = document.get("vaults", {})
        if name not in vaults:
            raise ConfigurationError(f"no vault named {name} is configured", "`mastovault vault list` shows them.")
        vaults.remove(name)

    change(path, edit)
