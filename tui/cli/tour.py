"""The demo where no terminal shows an app: the same round as commands, each shown as it would be typed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click

PROJECT = Path(__file__).parents[2]
"""Where `python -m tui` finds this very copy."""


def tour(host: str, lose: Callable[[], str]) -> int:
    """Look, back up, lose the posts of `host` by `lose`, bring them back, prove what is stored, and look again.

    Returns:
        The exit code of the first command that failed; 0 when the round is whole.
    """
    database = f"{host}/database"
    before = (("status",), ("backup", host), ("list", database))
    after = (("restore", database, "--confirm", database), ("verify", host), ("drill", host), ("status",))
    if code := _all(before):
        return code
    click.echo(f"\n{lose().splitlines()[0]}")
    return _all(after)


def _all(commands: tuple[tuple[str, ...], ...]) -> int:
    for words in commands:
        click.echo(f"\n$ {shlex.join(('mastovault', *words))}")
        sys.stdout.flush()
        code = subprocess.run(
            [sys.executable, "-m", "tui", *words], stdin=subprocess.DEVNULL, cwd=PROJECT, check=False
        ).returncode
        if code:
            return code
    return 0
