"""The effective settings: what the process is given first, then the dotenv files, each name where it comes first."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.mastodon import env_file, systemd
from backends.mastodon.systemd import Unit
from backends.model import Secret

DOTENV_NAMES = (".env.production.local", ".env.local", ".env.production", ".env")
"""In the order Rails loads them (dotenv-rails); the first definition of a name wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """All settings that count, the warnings on the way, and the names whose value only a command knows."""

    values: dict[str, Secret]
    warnings: tuple[str, ...] = ()
    computed: frozenset[str] = frozenset()


def effective(files: Sequence[tuple[str, str, bytes]], process: Mapping[str, Secret] | None = None) -> Effective:
    """Put settings together.

    Args:
        files: `(path, format, content)`: EnvironmentFiles (`systemd`) before dotenv files, which stand in load order.
            Files of the format `raw` are not looked into.
        process: what units set themselves (`Environment=`).

    Raises:
        DiscoveryFailed: a file is larger than a settings file can be.
    """
    given: dict[str, Secret] = {}
    warnings: list[str] = []
    computed: set[str] = set()
    for path, form, content in files:
        if form == "systemd":
            parsed = systemd.parse_environment_file(content, name=posixpath.basename(path))
            # The later file wins, and any file wins over Environment= (systemd.exec(5)).
            given.update(parsed.values)
            warnings += parsed.warnings
    values = {**(process or {}), **given}
    for path, form, content in files:
        if form == "dotenv":
            read = env_file.parse(content, name=posixpath.basename(path), defined=values)
            computed |= {name for name in read.computed if name not in values}
            for name, value in read.values.items():
                values.setdefault(name, value)
            warnings += read.warnings
    return Effective(values=values, warnings=tuple(warnings), computed=frozenset(computed))


def process_environment(units: Sequence[Unit]) -> dict[str, Secret]:
    """What the units set by `Environment=`, the web unit's first."""
    values: dict[str, Secret] = {}
    for unit in units:
        for name, value in unit.environment.items():
            values.setdefault(name, value)
    return values


def dotenv_paths(root: str) -> list[str]:
    """Where the dotenv files of an installation would be, in load order."""
    return [posixpath.join(root, name) for name in DOTENV_NAMES]
