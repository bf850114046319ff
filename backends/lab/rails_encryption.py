"""Values as Rails' ActiveRecord encryption stores them, so that a lab's dump is really bound to its secrets.

The form is JSON `{"p": base64, "h": {"iv": base64, "at": base64}}`, AES-256-GCM, the key from the primary key by
PBKDF2-HMAC-SHA256 with 2**16 rounds, `"c": true` when the text was deflated (activerecord 7.1, encryption/*.rb).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROUNDS = 2**16
_COMPRESS_FROM = 140
_TAG = 16


class RailsCipher:
    """Encrypts under one installation's ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY and _KEY_DERIVATION_SALT."""

    def __init__(self, primary_key: str, salt: str) -> None:
        self._cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", primary_key.encode(), salt.encode(), ROUNDS, 32))

    def encrypt(self, text: str) -> str:
        """One encrypted column value."""
        plain = text.encode()
        headers: dict[str, Any] = {}
        if len(plain) > _COMPRESS_FROM:
            plain = zlib.compress(plain)
            headers["c"] = True
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, plain, None)
        headers |= {"iv": _base64(nonce), "at": _base64(sealed[-_TAG:])}
        return json.dumps({"p": _base64(sealed[:-_TAG]), "h": headers}, separators=(",", ":"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
