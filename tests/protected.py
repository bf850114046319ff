"""Files that a passphrase protects, as age writes them; only the work that each guess takes is less.

Written after https://github.com/C2SP/C2SP/blob/main/age.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_CHUNK = 65536
_WORK = 1
"""The logarithm of scrypt's cost; `age -p` takes 18."""


def protected(text: bytes, passphrase: str) -> bytes:
    """A text of less than 64 KiB as `age -p` would encrypt it."""
    assert 0 < len(text) < _CHUNK
    key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    label = b"age-encryption.org/v1/scrypt" + salt
    wrap = hashlib.scrypt(passphrase.encode(), salt=label, n=1 << _WORK, r=8, p=1, dklen=32)
    wrapped = ChaCha20Poly1305(wrap).encrypt(bytes(12), key, None)
    head = b"age-encryption.org/v1\n-> scrypt %s %d\n%s\n---" % (_base64(salt), _WORK, _base64(wrapped))
    proof = hmac.digest(_derived(key, b"", b"header"), head, "sha256")
    last = bytes(11) + b"\x01"
    body = ChaCha20Poly1305(_derived(key, nonce, b"payload")).encrypt(last, text, None)
    return b"%s %s\n%s%s" % (head, _base64(proof), nonce, body)


def _derived(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt or None, purpose).derive(key)


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")
