"""The `*_command` settings: a program of the operator's that prints a secret."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from backends.errors import ConfigurationError
from backends.model import Secret
from backends.untrusted import clean

TIMEOUT = 60.0
"""Seconds; a password manager may ask its user first."""


def secret_from(command: str, setting: str) -> Secret:
    """Run a command without a shell and take its output, less one line break at its end, as a secret.

    Args:
        command: as written in the configuration.
        setting: the name of the setting, for the message.

    Raises:
        ConfigurationError: it could not be run, failed, or printed nothing. Its output is never shown.
    """
    try:
        argv = [str(Path(part).expanduser()) if part.startswith("~") else part for part in shlex.split(command)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
    except (ValueError, OSError, RuntimeError, IndexError, subprocess.TimeoutExpired) as error:
        why = f"took longer than {TIMEOUT:.0f} seconds" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise ConfigurationError(f"{setting} could not be run: {clean(why, 200)}", _next(setting)) from None
    if done.returncode != 0:
        said = clean(done.stderr, 200).strip()
        raise ConfigurationError(
            f"{setting} failed with status {done.returncode}" + (f": {said}" if said else ""), _next(setting)
        )
    text = done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not text:
        raise ConfigurationError(f"{setting} printed nothing", _next(setting))
    return Secret(text)


def _next(setting: str) -> str:
    return f"try the command of {setting} in a terminal; it runs without a shell and must print the secret"
