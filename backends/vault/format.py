"""What every vault says of itself: its format, its id, who can read it, and how to restore without this tool."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from backends.errors import AlreadyExists, NotFound, VaultError, VaultFormatTooNew
from backends.model import rfc3339, utc_now
from backends.vault.base import Vault

FORMAT = 1
KEY = "mastovault.json"
README = "README.txt"
_MAX = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultFormat:
    """What `mastovault.json` says."""

    format: int
    id: str
    created: str
    recipients: tuple[str, ...]


def prepare(vault: Vault, recipients: Sequence[str]) -> None:
    """Make a vault ready to be written to; changes nothing when it is. Safe when two do it at once.

    Raises:
        VaultFormatTooNew: a newer Mastovault wrote it.
        VaultError: it cannot be read or written.
    """
    found = read_format(vault)
    if found is None:
        mine = VaultFormat(
            format=FORMAT, id=str(uuid.uuid4()), created=rfc3339(utc_now()), recipients=tuple(recipients)
        )
        try:
            vault.put_new(KEY, _document(mine))
        except AlreadyExists:
            prepare(vault, recipients)
            return
    elif set(found.recipients) != set(recipients):
        changed = VaultFormat(format=found.format, id=found.id, created=found.created, recipients=tuple(recipients))
        with vault.open_upload(KEY) as upload:
            upload.write(_document(changed))
            upload.commit()
    try:
        vault.read(README).close()
    except NotFound:
        with suppress(AlreadyExists):
            vault.put_new(README, README_TEXT.encode())


def read_format(vault: Vault) -> VaultFormat | None:
    """What a vault says of itself; None when it was never prepared.

    Raises:
        VaultFormatTooNew: a newer Mastovault wrote it.
        VaultError: it cannot be read, or what it says cannot be understood.
    """
    try:
        with vault.read(KEY) as stored:
            data = stored.read(_MAX + 1)
    except NotFound:
        return None
    try:
        if len(data) > _MAX:
            raise ValueError("too long")
        document = json.loads(data)
        number = document["format"]
        if type(number) is not int:
            raise TypeError("format")
        if number > FORMAT:
            raise VaultFormatTooNew(
                f"the vault {vault.name} was written by a newer Mastovault (format {number})", "Update Mastovault."
            )
        return VaultFormat(
            format=number,
            id=str(uuid.UUID(document["id"])),
            created=str(document["created"]),
            recipients=tuple(str(each) for each in document["recipients"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VaultError(
            f"{KEY} of the vault {vault.name} cannot be understood", "Put it back from a copy of the vault."
        ) from error


def _document(known: VaultFormat) -> bytes:
    document = {
        "format": known.format,
        "id": known.id,
        "created": known.created,
        "recipients": list(known.recipients),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


README_TEXT = """\
This directory holds backups of Mastodon servers, written by Mastovault.
They can be restored without Mastovault, with age, zstd, tar, psql and pg_restore alone.
"""
