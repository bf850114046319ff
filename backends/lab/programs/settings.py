"""`.env.production` of a lab host, as the stand-ins for Mastodon's programs read it."""

from __future__ import annotations

import sys

_REQUIRED = ("LOCAL_DOMAIN", "SECRET_KEY_BASE", "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY")


def read_settings(root: str) -> dict[str, str]:
    """All settings by name. Ends the program when the file or a secret is missing, as Rails does."""
    found: dict[str, str] = {}
    try:
        with open(f"{root}/.env.production", encoding="utf-8") as file:  # noqa: PTH123 - importing pathlib costs more
            lines = file.read().splitlines()
    except OSError as error:
        sys.exit(f"{root}/.env.production: {error.strerror}")
    for line in lines:
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and not name.startswith("#"):
            found.setdefault(name.strip(), value.strip().strip("'\""))
    missing = [name for name in _REQUIRED if not found.get(name)]
    if missing:
        sys.exit(f"KeyError: key not found: {', '.join(missing)}")
    return found
