"""`mastovault --read-only COMMAND`: what changes something is refused."""

from __future__ import annotations

import click

from backends.errors import ConfigurationError

KEY = "mastovault.read_only"


def require_change(what: str) -> None:
    """Raise `ConfigurationError` when the command line began with --read-only; `what` names what it refuses."""
    if click.get_current_context().meta.get(KEY):
        raise ConfigurationError(
            f"{what} changes something and this is read-only; nothing was done", "Leave --read-only out to do it."
        )
