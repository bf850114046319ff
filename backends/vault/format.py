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
They can be restored without Mastovault: with age, zstd, tar, psql and pg_restore (Debian: apt install age zstd
postgresql-client). You need an identity file of one of the recipients that manifest.json names; it holds a line that
begins with AGE-SECRET-KEY-. A written down identity becomes such a file by typing that line into one.

One backup is one directory, hosts/HOST/ASSET/TIME-ID/. It is whole when manifest.json is in it. Take the newest TIME.
manifest.json lists the objects with their SHA-256; sha256sum shows whether a copy is intact.

database
    age -d -i identity.age database.pgdump.zst.age | zstd -d > database.pgdump
    age -d -i identity.age globals.sql.zst.age | zstd -d > globals.sql       (roles; may be absent)
    psql -f globals.sql postgres
    createdb -T template0 -O mastodon mastodon_production
    pg_restore -n public --no-owner --exit-on-error -j 4 -d mastodon_production database.pgdump
  A file that ends in .pgdump.age, without .zst, needs no zstd.

secrets: .env.production and what stands beside it
    mkdir secrets && age -d -i identity.age environment.tar.age | tar -x -C secrets
  These keys must be those that were in use when the database was saved.

redis
    age -d -i identity.age dump.rdb.zst.age | zstd -d > dump.rdb
  Stop Redis, put it in the place of its dump.rdb with appendonly off, start it.

media
    cd TIME-ID && mkdir /srv/system
    grep -o 'hosts/[^"]*/packs/[^"]*' manifest.json | sort -u | while read -r pack; do
        age -d -i /path/to/identity.age ../../../../"$pack" | tar -x -C /srv/system
    done
  Packs are shared by backups. files.ndjson.zst.age lists exactly the files of this one:
    age -d -i identity.age files.ndjson.zst.age | zstd -d
"""
