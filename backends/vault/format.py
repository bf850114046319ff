"""What every vault says of itself: its format, its id, who can read it, and how to restore without this tool."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from backends.errors import AlreadyExists, NotFound, VaultDenied, VaultError, VaultFormatTooNew
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

    A README.txt of an older edition is replaced by that of this version.

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
        # credentials that append only still make backups: each manifest names its own recipients
        with suppress(VaultDenied), vault.open_upload(KEY) as upload:
            upload.write(_document(changed))
            upload.commit()
    _explain(vault)


def _explain(vault: Vault) -> None:
    """Put README.txt there, or replace an older text of ours; what somebody else wrote there stays."""
    try:
        with vault.read(README) as stored:
            found = stored.read(_MAX + 1)
    except NotFound:
        with suppress(AlreadyExists):
            vault.put_new(README, README_TEXT.encode())
        return
    ours = found.startswith(_OURS.encode()) and len(found) <= _MAX
    if ours and _edition(found) < README_EDITION:
        # no backup fails because a text may not be replaced: credentials that append only, an Object Lock
        with suppress(VaultError), vault.open_upload(README) as upload:
            upload.write(README_TEXT.encode())
            upload.commit()


def _edition(text: bytes) -> int:
    """Which edition of ours a text is; the first one did not say."""
    found = re.search(rb"\(edition (\d{1,6})\)\s*\Z", text)
    return int(found[1]) if found else 1


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


README_EDITION = 2
_OURS = "This directory holds backups of Mastodon servers, written by Mastovault."
README_TEXT = (
    _OURS
    + r"""
They can be restored without it, with age, zstd, tar, psql and pg_restore (Debian: apt install age zstd
postgresql-client). docs/format.md of Mastovault describes every byte, docs/recovery.md a whole server.

Is this a bucket or on another machine? Copy it first, for example with one of
  rclone copy REMOTE:BUCKET/PREFIX vault
  aws s3 cp --recursive s3://BUCKET/PREFIX vault
  scp -r USER@MACHINE:PATH vault

One backup is one directory, hosts/HOST/ASSET/TIME-ID. It is whole when manifest.json is in it; TIME is UTC, the last
one by name is the newest. All commands below are for a shell in the directory of this file:

    KEY=/path/to/identity.age           # holds a line AGE-SECRET-KEY-...; one on paper is typed into such a file
    OUT=/path/to/a/directory            # where the plain files go: keep it to yourself
    install -d -m 700 "$OUT"

Every section begins with the backup that you chose.

IS IT INTACT (no key is needed; age checks every 64 KiB again)

    S=hosts/HOST/ASSET/TIME-ID
    grep -o '"sha256": "[^"]*"' "$S/manifest.json" | cut -d '"' -f 4 >"$OUT/digests"
    for o in "$S"/*.age $(grep -o 'hosts/[^"]*/packs/[^"]*' "$S/manifest.json"); do
        sha256sum <"$o" | cut -c -64 | grep -qxFf "$OUT/digests" && echo "intact: $o" || echo "DAMAGED: $o"
    done

WHO WROTE IT (if its manifest has a "signature"; with the public key that you trust, not the one that it names)

    S=hosts/HOST/ASSET/TIME-ID
    SIGNER=public-key-in-base64
    printf -- '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA%s\n-----END PUBLIC KEY-----\n' "$SIGNER" >"$OUT/signer.pem"
    { echo 'mastovault manifest 1'; head -c -253 "$S/manifest.json"; } >"$OUT/signed"
    tail -c 253 "$S/manifest.json" | sed -n 's/^  "signature": "\(.*\)",$/\1/p' | base64 -d >"$OUT/signature"
    openssl pkeyutl -verify -pubin -inkey "$OUT/signer.pem" -rawin -in "$OUT/signed" -sigfile "$OUT/signature"

DATABASE

    S=hosts/HOST/database/TIME-ID
    age -d -i "$KEY" "$S/database.pgdump.zst.age" | zstd -d >"$OUT/database.pgdump"
    age -d -i "$KEY" "$S/globals.sql.zst.age" | zstd -d >"$OUT/globals.sql"
    psql -f "$OUT/globals.sql" postgres
    createdb -T template0 -E UTF8 -O mastodon mastodon_production
    pg_restore -n public --no-owner --role=mastodon --exit-on-error -j 4 -d mastodon_production "$OUT/database.pgdump"

A dump whose name ends in .pgdump.age is not compressed: leave out zstd. The roles may be absent: createuser mastodon.
PostgreSQL must be as new as the manifest's server_version. "role already exists" is no fault.

SECRETS: .env.production and what stands beside it; they must be those that were in use when the database was saved

    S=hosts/HOST/secrets/TIME-ID
    install -d -m 700 "$OUT/secrets"
    age -d -i "$KEY" "$S/environment.tar.age" | tar -xp -C "$OUT/secrets"

REDIS: stop it, put the file in the place of its dump.rdb with appendonly off, start it

    S=hosts/HOST/redis/TIME-ID
    age -d -i "$KEY" "$S/dump.rdb.zst.age" | zstd -d >"$OUT/dump.rdb"

MEDIA: the index says which file is in which pack; backups share packs

    S=hosts/HOST/media/TIME-ID
    install -d -m 700 "$OUT/lists" "$OUT/media"
    age -d -i "$KEY" "$S/files.ndjson.zst.age" | zstd -d >"$OUT/files.ndjson"
    awk -F '"' -v lists="$OUT/lists/" '{
        match($0, /"pack":"[^"]*/)
        list = lists substr($0, RSTART + 8, RLENGTH - 8) ($2 != "path" || /\\/ ? ".odd" : "")
        print $4 >>list; close(list) }' "$OUT/files.ndjson"
    sed -n 's/^ *"name": "\(.*\)\.tar\.age",$/\1/p; s/^ *"key": "\(hosts.*\)",$/\1/p' "$S/manifest.json" |
        while read -r id && read -r pack; do
            age -d -i "$KEY" "$pack" >"$OUT/pack.tar"
            [ ! -e "$OUT/lists/$id" ] ||
                tar -xpf "$OUT/pack.tar" -C "$OUT/media" --verbatim-files-from -T "$OUT/lists/$id"
            [ ! -e "$OUT/lists/$id.odd" ] || tar -xpf "$OUT/pack.tar" -C "$OUT/media" --skip-old-files
        done
    awk -F '"' '$2 == "path" && !/\\/ && !/,"link/ { print $14 "  " $4 }' "$OUT/files.ndjson" >"$OUT/media.sha256"
    (cd "$OUT/media" && sha256sum -c --quiet "$OUT/media.sha256" && echo "the media are whole")

A pack that holds a name which is not ASCII is unpacked whole: what the index does not list was deleted before.
"""
    + f"\n(edition {README_EDITION})\n"
)
