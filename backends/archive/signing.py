"""Who wrote a manifest: Ed25519 signatures, and whether the configuration trusts the key (docs/format.md).

Encryption to a public key says nothing about who encrypted: whoever can write to a vault can put a snapshot there.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backends.errors import KeyUnavailable
from backends.model import Trust
from backends.untrusted import clean

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Signature = Literal["none", "good", "bad"]

CONTEXT = b"mastovault manifest 1\n"
"""Stands before what is signed, so that a signature over anything else can never pass for one over a manifest."""
KEY_CHARACTERS = 44
"""A public key in base64."""
SIGNATURE_CHARACTERS = 88
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_MAX_FILE = 16 * 1024
_SHOWN = 12
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Signer:
    """A private key that signs what this machine writes. It is never shown."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
        """The public key, in base64."""

    def sign(self, body: bytes) -> bytes:
        """The signature (64 bytes) over a manifest's body, prefixed with the context."""
        return self._key.sign(CONTEXT + body)

    def __repr__(self) -> str:
        return f"Signer({self.public})"


def is_signed_by(body: bytes, public: str, signature: str) -> bool:
    """Whether a signature over a manifest's body, both in base64, was made by that key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key, made = _decoded(public, _KEY_BYTES), _decoded(signature, _SIGNATURE_BYTES)
    if key is None or made is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(made, CONTEXT + body)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_public_key(text: str) -> bool:
    """Whether a text is an Ed25519 public key as the configuration and manifests hold it: 32 bytes in base64."""
    return _decoded(text, _KEY_BYTES) is not None


def trust_of(signature: Signature, signer: str, signers: Mapping[str, str]) -> Trust:
    """What a manifest's signature is worth to whoever trusts these signers (a name and a public key each).

    Args:
        signature: of the manifest, by the key that it names; `bad` also when its SHA-256 does not fit.
        signer: the public key that it names, in base64.
        signers: `[signers]` of the configuration. Without any nothing is judged but what is evidently changed.
    """
    if signature == "bad":
        return Trust.CHANGED
    if not signers:
        return Trust.UNCHECKED
    if signature == "none":
        return Trust.UNSIGNED
    return Trust.TRUSTED if _named(signer, signers) is not None else Trust.FOREIGN


def signer_name(public: str, signers: Mapping[str, str]) -> str:
    """Who a public key belongs to, by its name in the configuration; else the beginning of the key."""
    return _named(public, signers) or f"the key {clean(public, 100)[:_SHOWN]}…"


def _named(public: str, signers: Mapping[str, str]) -> str | None:
    return next((name for name, key in signers.items() if key.strip() == public), None)


def load_signer(path: Path) -> Signer:
    """The private key in a file, as `new_signing_key` or `openssl genpkey -algorithm ed25519` writes one.

    Raises:
        KeyUnavailable: it cannot be read, is none, or others can read it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    shown = clean(str(path), 300)
    data = _read_private(path, shown)
    key: object = None
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise KeyUnavailable(
            f"the signing key {shown} has a passphrase, which is not supported",
            "A timer could not type it. Write the key without one: `openssl pkey -in OLD -out NEW`.",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        pass
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnavailable(
            f"{shown} is no Ed25519 private key", "Put the right file back, or make a new signing key."
        )
    return Signer(key)


def _read_private(path: Path, shown: str) -> bytes:
    """The content of a file that only its owner can read. Raises `KeyUnavailable`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyUnavailable(
            f"the signing key {shown} cannot be read: {error.strerror}",
            "Put it back, or take `signing_key` out of the configuration.",
        ) from None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise KeyUnavailable(f"the signing key {shown} is no file", "Name the file of the key.")
        if found.st_mode & _OTHERS:
            raise KeyUnavailable(
                f"the signing key {shown} can be read by others", f"Run `chmod 600 {shown}`, or make a new one."
            )
        return file.read(_MAX_FILE)


def new_signing_key(path: Path) -> str:
    """Make a signing key and write it to a new file (0600, PEM, PKCS 8); returns the public key in base64.

    Raises:
        KeyUnavailable: the file exists, which is never overwritten, or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = clean(str(path), 300)
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyUnavailable(
            f"{shown} exists and is not overwritten", "Name another place for the signing key."
        ) from None
    except OSError as error:
        raise _not_written(shown, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # ours: it was new
        raise _not_written(shown, error) from None
    return Signer(key).public


def _not_written(shown: str, error: OSError) -> KeyUnavailable:
    return KeyUnavailable(
        f"the signing key could not be written to {shown}: {error.strerror}", "Name a place that can be written."
    )


def _decoded(text: str, size: int) -> bytes | None:
    """Bytes from their one spelling in base64; None for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if len(data) == size and base64.b64encode(data).decode() == text else None
