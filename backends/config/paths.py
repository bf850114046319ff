"""Where the configuration, the state and the cache are (XDG, overridden by the environment)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from platformdirs import PlatformDirs

_DIRS = PlatformDirs("mastovault", appauthor=False)


@dataclass(frozen=True, slots=True)
class Paths:
    """The three places outside the vaults. Only the configuration is worth keeping; the rest can be made again."""

    config_file: Path
    state_dir: Path
    cache_dir: Path

    @classmethod
    def find(cls, config: Path | None = None) -> Self:
        """The paths in force: `config` wins, then MASTOVAULT_CONFIG, then the XDG directories.

        MASTOVAULT_STATE_DIR and MASTOVAULT_CACHE_DIR move the other two.
        """
        return cls(
            config_file=(config or _from("MASTOVAULT_CONFIG") or _DIRS.user_config_path / "config.toml").absolute(),
            state_dir=(_from("MASTOVAULT_STATE_DIR") or _DIRS.user_state_path).absolute(),
            cache_dir=(_from("MASTOVAULT_CACHE_DIR") or _DIRS.user_cache_path).absolute(),
        )

    def environment(self) -> dict[str, str]:
        """What a child process needs to find the same places."""
        return {
            "MASTOVAULT_CONFIG": str(self.config_file),
            "MASTOVAULT_STATE_DIR": str(self.state_dir),
            "MASTOVAULT_CACHE_DIR": str(self.cache_dir),
        }


def _from(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None
