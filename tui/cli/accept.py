"""`--accept HOST/WORD`: findings that are overridden by typing their word."""

from __future__ import annotations

from collections.abc import Sequence

from backends.errors import ConfigurationError


def accepted(host: str, texts: Sequence[str]) -> list[str]:
    """The words that were typed for a host. Raises `ConfigurationError` for one that is of another."""
    prefix = f"{host}/"
    for text in texts:
        if not text.startswith(prefix):
            raise ConfigurationError(f"{text!r} accepts nothing on {host}", f"Write --accept {prefix}WORD.")
    return [text.removeprefix(prefix) for text in texts]
