"""Asking the operator for a secret on the terminal."""

from __future__ import annotations

import getpass
import sys

from backends.model import Secret


def ask(prompt: str) -> Secret | None:
    """What is typed, unseen; None where there is no terminal, or nothing was typed."""
    if not sys.stdin.isatty():
        return None
    return Secret(getpass.getpass(f"{prompt}: ")) or None
