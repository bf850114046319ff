"""Which secrets a Mastodon must have, whether they look right, and whether they open what the database holds.

Facts: docs.joinmastodon.org/admin/config, lib/tasks/mastodon.rake (how the set-up makes them), activerecord/encryption.
Nothing in here ever names a value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from backends.mastodon.version import at_least
from backends.model import Secret

ENCRYPTION_KEYS = (
    "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY",
    "ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY",
    "ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT",
)
SECRET_NAMES = ("SECRET_KEY_BASE", "OTP_SECRET", *ENCRYPTION_KEYS, "VAPID_PRIVATE_KEY", "VAPID_PUBLIC_KEY")
ROUNDS = 2**16
_TEST_VALUE = "DO_NOT_USE_IN_PRODUCTION"
_TAG_BYTES, _IV_BYTES = 16, 12
_MAX_PLAIN = 1024 * 1024


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """Names of keys that are missing and malformed, and all that as sentences."""

    missing: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def required_keys(version: str) -> tuple[str, ...]:
    """The secrets that a version does not start, or does not work, without; of an unknown one those of all versions."""
    keys = ["SECRET_KEY_BASE"]
    if at_least(version, 4, 4) is False:
        keys.append("OTP_SECRET")
    if at_least(version, 4, 3):
        keys += ENCRYPTION_KEYS
    return (*keys, "VAPID_PRIVATE_KEY", "VAPID_PUBLIC_KEY")


def check_keys(version: str, environment: Mapping[str, Secret], computed: Collection[str] = ()) -> KeyCheck:
    """Look at the secrets of an installation.

    Args:
        version: for example `4.6.3`; empty when unknown.
        environment: the effective settings.
        computed: names whose value is the output of a command, so that nothing can be said about it.
    """
    required = required_keys(version)
    missing = tuple(name for name in required if not environment.get(name) and name not in computed)
    names = [name for name in SECRET_NAMES if environment.get(name) and name not in computed]
    malformed = tuple(name for name in names if not well_formed(name, environment[name].reveal()))
    who = f"Mastodon {version}" if version else "Mastodon"
    warnings = [f"{name} is missing, which {who} needs" for name in missing]
    for name in malformed:
        if _TEST_VALUE in environment[name].reveal():
            warnings.append(f"{name} is a test value, with which Mastodon does not start")
        else:
            warnings.append(f"{name} is malformed: {_EXPECTED[name]} were expected")
    if not {"VAPID_PRIVATE_KEY", "VAPID_PUBLIC_KEY"} & {*missing, *malformed, *computed}:
        pair = (environment["VAPID_PRIVATE_KEY"].reveal(), environment["VAPID_PUBLIC_KEY"].reveal())
        if not _is_vapid_pair(*pair):
            warnings.append("VAPID_PRIVATE_KEY and VAPID_PUBLIC_KEY do not belong together")
    if environment.get("SELF_DESTRUCT"):
        warnings.append("SELF_DESTRUCT is set: this Mastodon is being shut down for good")
    return KeyCheck(missing, malformed, tuple(warnings))


_EXPECTED = {
    "SECRET_KEY_BASE": "128 hexadecimal digits",
    "OTP_SECRET": "128 hexadecimal digits",
    "VAPID_PRIVATE_KEY": "32 bytes in base64url",
    "VAPID_PUBLIC_KEY": "65 bytes in base64url",
    **dict.fromkeys(ENCRYPTION_KEYS, "32 letters and digits"),
}


def well_formed(name: str, value: str) -> bool:
    """Whether a secret looks as what generates it makes it; kinder where distributions have their own generators."""
    if _TEST_VALUE in value:
        return False
    if name in {"SECRET_KEY_BASE", "OTP_SECRET"}:
        # `rails secret` makes 128 hexadecimal digits; YunoHost letters and digits.
        if re.fullmatch(r"[0-9a-f]+", value):
            return len(value) == 128
        return re.fullmatch(r"[0-9A-Za-z]{64,}", value) is not None
    if name in ENCRYPTION_KEYS:
        return re.fullmatch(r"[0-9A-Za-z+/=_-]{32,}", value) is not None
    if name == "VAPID_PRIVATE_KEY":
        return len(_base64url(value) or b"") == 32
    if name == "VAPID_PUBLIC_KEY":
        point = _base64url(value) or b""
        return len(point) == 65 and point[0] == 4
    return bool(value)


def _base64url(text: str) -> bytes | None:
    if not re.fullmatch(r"[A-Za-z0-9_+/-]*={0,2}", text):
        return None
    plain = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        return None


def _is_vapid_pair(private: str, public: str) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = ec.derive_private_key(int.from_bytes(_base64url(private) or b"", "big"), ec.SECP256R1())
    except ValueError:
        return False
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return point == _base64url(public)


def is_encrypted(value: str) -> bool:
    """Whether a column's value has the form of Rails' encryption (`{"p": ..., "h": {"iv": ..., "at": ...}}`)."""
    return _sealed(value) is not None


def opens(environment: Mapping[str, Secret], encrypted_value: str) -> bool:
    """Whether these secrets open a value of the database (`keypairs.private_key`, `users.otp_secret`), without Rails.

    False also when the value is not encrypted at all (ask `is_encrypted`) or a key is missing. Never raises.
    """
    return decrypt(environment, encrypted_value) is not None


def decrypt(environment: Mapping[str, Secret], encrypted_value: str) -> bytes | None:
    """What an encrypted value of the database holds; None when these secrets do not open it.

    AES-256-GCM; the key comes from the primary key by PBKDF2-HMAC with 2^16 rounds over SHA-256, or over SHA-1 for
    values from before Rails 7.1 (Mastodon allows both).
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = _sealed(encrypted_value)
    primary = environment.get("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY")
    salt = environment.get("ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT")
    if sealed is None or not primary or not salt:
        return None
    for digest in ("sha256", "sha1"):
        key = hashlib.pbkdf2_hmac(digest, _bytes(primary), _bytes(salt), ROUNDS, 32)
        try:
            plain = AESGCM(key).decrypt(sealed.iv, sealed.payload + sealed.tag, None)
        except InvalidTag:
            continue
        return _inflate(plain) if sealed.compressed else plain
    return None


def _bytes(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class _Sealed:
    payload: bytes
    iv: bytes
    tag: bytes
    compressed: bool


def _sealed(value: str) -> _Sealed | None:
    try:
        message = json.loads(value)
        headers = message["h"]
        payload, iv, tag = (
            base64.b64decode(part, validate=True) for part in (message["p"], headers["iv"], headers["at"])
        )
        compressed = headers.get("c") is True
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return _Sealed(payload, iv, tag, compressed) if len(tag) == _TAG_BYTES and len(iv) == _IV_BYTES else None


def _inflate(data: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, _MAX_PLAIN)
    except zlib.error:
        return None
