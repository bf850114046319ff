"""The recovery page: one sheet of paper with which a stranger restores the backups, as SVG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape

from backends.archive.keys_paper import groups, qr_matrix
from backends.config.schema import DirectoryVault, S3Vault, VaultConfig
from backends.errors import KeyUnavailable
from backends.model import Secret
from backends.untrusted import clean

# As wide as A4 and as high as US Letter, in mm: it fits on a sheet of either.
_WIDTH, _HEIGHT = 210, 279
_LEFT = 18
_QR = 62
_GROUPS_IN_A_ROW = 5
_LONGEST = 92
"""Characters of a line of text at 3.2 mm."""
_VAULTS = 8
_BLANKS = 3
"""Lines to write on, when no vault was configured yet."""
_FAMILIES = {"sans": "Helvetica, Arial, sans-serif", "mono": "Courier New, Courier, monospace"}
_COMMANDS = (
    "age -d -i identity.age environment.tar.age | tar -x",
    "createdb -T template0 mastodon_production",
    "age -d -i identity.age database.pgdump.zst.age | zstd -d |",
    "    pg_restore -n public --no-owner --exit-on-error -d mastodon_production",
)


def recovery_page(
    *,
    identity: Secret,
    recipient: str,
    signing_key: str = "",
    vaults: Sequence[tuple[str, str]] = (),
    made: datetime,
) -> str:
    """The page as an SVG document. The identity is the only secret on it.

    Args:
        identity: the recovery identity.
        recipient: its public key.
        signing_key: the public part of this machine's signing key, in base64; empty when there is none.
        vaults: name and place of each vault, without credentials; see `place_of`.
        made: the date on it.
    """
    sheet = _Sheet()
    sheet.text(24, "Recovery key of Mastodon backups", size=7, weight="bold")
    sheet.text(
        31, f"Made by Mastovault on {made:%Y-%m-%d}. Keep it away from the servers and from the machine that backs up."
    )
    sheet.text(36, "Whoever holds this sheet can read every backup. Without it and the operator's own key nobody can.")
    _identity(sheet, identity)
    _public(sheet, recipient, signing_key)
    below = _places(sheet, vaults)
    _commands(sheet, below)
    sheet.text(262, "Kept by ______________________________________     Where ______________________________________")
    sheet.text(
        269, "Since ________________________     Last tried ________________________  (mastovault key check --recovery)"
    )
    return sheet.document()


def _identity(sheet: _Sheet, identity: Secret) -> None:
    sheet.text(47, "The recovery identity (secret)", size=4.2, weight="bold")
    sheet.qr(identity.reveal(), _LEFT, 51, _QR)
    mark, *data = groups(identity)
    x = _LEFT + _QR + 8
    sheet.text(60, mark, x=x, size=5, family="mono", secret=True)
    rows = [data[at : at + _GROUPS_IN_A_ROW] for at in range(0, len(data), _GROUPS_IN_A_ROW)]
    for number, row in enumerate(rows):
        sheet.text(70 + 9 * number, " ".join(row), x=x, size=5.6, family="mono", secret=True)
    sheet.text(99, "One line, without the spaces. After the first 1 it holds", x=x)
    sheet.text(104, "no I, O, B and no other 1: what looks like O is a zero.", x=x)


def _public(sheet: _Sheet, recipient: str, signing_key: str) -> None:
    sheet.text(123, "What belongs to it (not secret)", size=4.2, weight="bold")
    sheet.text(129, f"recipient    {recipient}", family="mono", size=2.9)
    if signing_key:
        sheet.text(134, f"signed by    {signing_key}", family="mono", size=2.9)


def _places(sheet: _Sheet, vaults: Sequence[tuple[str, str]]) -> int:
    """The vaults; returns where the next part begins."""
    sheet.text(144, "Where the backups are", size=4.2, weight="bold")
    lines = [f"{clean(name, 24):12} {clean(where, 400)}" for name, where in vaults] or ["_" * 80] * _BLANKS
    if len(lines) > _VAULTS:
        lines = [*lines[: _VAULTS - 1], f"and {len(lines) - _VAULTS + 1} more: ask whoever ran the servers"]
    y = 145
    for line in lines:
        y += 5
        sheet.text(y, line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…", family="mono", size=2.9)
    return y + 10


def _commands(sheet: _Sheet, top: int) -> None:
    sheet.text(top, "How to restore, without Mastovault", size=4.2, weight="bold")
    sheet.text(
        top + 6,
        "Debian: apt install age zstd postgresql-client. Type the identity into a file, identity.age. Then, in the",
    )
    sheet.text(
        top + 11,
        "newest directory below hosts/SERVER/secrets (first line) and hosts/SERVER/database (last) in a vault:",
    )
    for number, command in enumerate(_COMMANDS):
        sheet.text(top + 18 + 6 * number, command, family="mono", size=2.9)
    sheet.text(top + 44, "README.txt in every vault says the rest, media and Redis too.")


def place_of(config: VaultConfig) -> str:
    """Where a vault is, for somebody who has nothing but paper; without credentials."""
    if isinstance(config, DirectoryVault):
        return str(config.path)
    if isinstance(config, S3Vault):
        where = f"s3://{config.bucket}/{config.prefix}".rstrip("/")
        # An endpoint may be written with a user and a password before the @.
        scheme, mark, rest = (config.endpoint_url or "").partition("://")
        host = rest.rpartition("@")[2] if mark else scheme.rpartition("@")[2]
        return f"{where} at {host}" if host else f"{where} ({config.region or 'AWS'})"
    user, at, machine = config.address.rpartition("@")
    return f"sftp://{user.partition(':')[0]}{at}{machine}/{config.path.lstrip('/')}"


def write_page(path: Path, page: str) -> None:
    """Write the page to a new file (0600), at its place from the first byte: no copy of it lies anywhere else.

    Raises:
        KeyUnavailable: the file exists, which is never overwritten, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyUnavailable(f"{path} exists and is not overwritten", "Name a new file for the page.") from None
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(page.encode())
            file.flush()
            os.fsync(handle)
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # ours: it was new
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> KeyUnavailable:
    return KeyUnavailable(
        f"the recovery page could not be written to {path}: {error.strerror}", "Name a place that can be written."
    )


class _Sheet:
    """An SVG page with one unit a millimetre, so that it prints at its size."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(
        self,
        y: float,
        text: str,
        *,
        x: float = _LEFT,
        size: float = 3.2,
        weight: str = "normal",
        family: str = "sans",
        secret: bool = False,
    ) -> None:
        """One line of text, its base line at `y`."""
        marked = ' class="identity"' if secret else ""
        self._parts.append(
            f'<text{marked} x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" '
            f'font-family="{_FAMILIES[family]}" xml:space="preserve">{escape(text)}</text>'
        )

    def qr(self, text: str, x: float, y: float, size: float) -> None:
        """A QR code of `size`, its quiet zone included."""
        matrix = qr_matrix(text)
        path = "".join(
            f"M{column} {row}h1v1h-1z" for row, line in enumerate(matrix) for column, dark in enumerate(line) if dark
        )
        scale = size / len(matrix)
        self._parts.append(
            f'<path transform="translate({x:g} {y:g}) scale({scale:.5f})" shape-rendering="crispEdges" d="{path}"/>'
        )

    def document(self) -> str:
        """The whole document."""
        body = "\n".join(self._parts)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}mm" height="{_HEIGHT}mm" '
            f'viewBox="0 0 {_WIDTH} {_HEIGHT}">\n'
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>\n<g fill="#000000">\n{body}\n</g>\n</svg>\n'
        )
