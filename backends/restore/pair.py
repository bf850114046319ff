"""Do these secrets open this database? One encrypted value of it is opened, as Mastodon itself would, without Rails."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backends.assets.database_programs import find_programs
from backends.assets.database_session import open_session
from backends.connection.base import Connection
from backends.mastodon.installation import DatabasePlace
from backends.mastodon.key_check import is_encrypted, opens
from backends.model import Secret

SECONDS = 120.0
_SAMPLE = 3
"""Values of one column that are tried: a server that lost its keys once keeps old ones that nothing opens any more."""
_LEGACY_ROUNDS = 2000
_TAG_BYTES = 16

_COLUMNS = """
SELECT coalesce(jsonb_agg(c.relname || '.' || a.attname), '[]') FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT a.attisdropped AND a.attnum > 0
  AND (c.relname, a.attname) IN (('keypairs', 'private_key'), ('users', 'otp_secret'),
    ('users', 'encrypted_otp_secret'), ('users', 'encrypted_otp_secret_iv'), ('users', 'encrypted_otp_secret_salt'))
"""
_NEWEST = """
SELECT coalesce(jsonb_agg(value), '[]') FROM (SELECT {column}::text AS value FROM public.{table}
  WHERE {column} IS NOT NULL AND {column} <> '' ORDER BY id DESC LIMIT {limit}) newest
"""
# Those whose secret was copied to the new column (4.3's migration) need the old one no more.
_LEGACY = """
SELECT coalesce(jsonb_agg(value), '[]') FROM (SELECT jsonb_build_array(encrypted_otp_secret, encrypted_otp_secret_iv,
    encrypted_otp_secret_salt) AS value FROM public.users
  WHERE encrypted_otp_secret IS NOT NULL AND encrypted_otp_secret <> '' {unless} ORDER BY id DESC LIMIT {limit}) newest
"""
_WORDS = {
    "keypairs.private_key": "the signing keys of its accounts",
    "users.otp_secret": "the two-factor secrets of its users",
}


@dataclass(frozen=True, slots=True)
class PairResult:
    """Whether secrets and database belong together. `what` is a sentence without its full stop."""

    state: Literal["opens", "locked", "nothing_encrypted"]
    what: str


def check_pair(connection: Connection, place: DatabasePlace, environment: Mapping[str, Secret]) -> PairResult:
    """Try the secrets that will serve a database on it.

    Args:
        connection: the host.
        place: the database, which may be one that a restore has just filled.
        environment: the effective settings.

    Raises:
        AssetFailed: the database cannot be asked.
        ConnectionFailed: the connection is gone.
    """
    programs = find_programs(connection, place)
    with open_session(connection, place, programs.psql) as session:
        session.begin(timeout=SECONDS)
        columns = {str(each) for each in session.ask(_COLUMNS, timeout=SECONDS)}
        samples = {
            name: _texts(session.ask(_newest(name), timeout=SECONDS)) for name in _WORDS if name in columns
        }  # fmt: skip
        legacy: list[Any] = []
        if "users.encrypted_otp_secret" in columns:
            unless = "AND (otp_secret IS NULL OR otp_secret = '')" if "users.otp_secret" in columns else ""
            legacy = session.ask(_LEGACY.format(unless=unless, limit=_SAMPLE), timeout=SECONDS)
    return judge(samples, legacy, environment)


def _newest(name: str) -> str:
    table, _, column = name.partition(".")
    return _NEWEST.format(table=table, column=column, limit=_SAMPLE)


def _texts(answer: Any) -> list[str]:
    return [str(each) for each in answer] if isinstance(answer, list) else []


def judge(samples: Mapping[str, Sequence[str]], legacy: Sequence[Any], environment: Mapping[str, Secret]) -> PairResult:
    """The result from values of the database; none of them is named in it."""
    opened: list[str] = []
    locked: list[str] = []
    for name, words in _WORDS.items():
        sealed = [value for value in samples.get(name, ()) if is_encrypted(value)]
        if sealed:
            (opened if any(opens(environment, value) for value in sealed) else locked).append(words)
    if opened and locked:
        # The keys are right: what they do not open was lost with other keys, before the backup.
        opened = [f"{' and '.join(opened)}, though not {' and '.join(locked)}"]
        locked = []
    if legacy:
        words = "the two-factor secrets of before 4.3, for which OTP_SECRET is needed"
        secret = environment.get("OTP_SECRET") or Secret("")
        (opened if any(_opens_legacy(secret, value) for value in legacy) else locked).append(words)
    if locked:
        return PairResult("locked", f"the secrets do not open {' and '.join(locked)}")
    if opened:
        return PairResult("opens", f"the secrets open {' and '.join(opened)}")
    return PairResult("nothing_encrypted", "the database holds nothing that is encrypted, so there is nothing to try")


def _opens_legacy(secret: Secret, value: Any) -> bool:
    """Whether OTP_SECRET opens a value of `attr_encrypted` (AES-256-GCM, PBKDF2-HMAC-SHA1; Mastodon up to 4.2)."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not secret or not isinstance(value, list) or len(value) != 3:
        return False
    try:
        sealed, nonce, salt = (base64.b64decode(str(part or "").lstrip("_")) for part in value)
        if len(sealed) < _TAG_BYTES:
            return False
        key = hashlib.pbkdf2_hmac("sha1", secret.reveal().encode("utf-8", "surrogatepass"), salt, _LEGACY_ROUNDS, 32)
        AESGCM(key).decrypt(nonce, sealed, None)
    except (binascii.Error, ValueError, InvalidTag):
        return False
    return True
