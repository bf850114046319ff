"""What can be known of a private key file without its passphrase."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from paramiko.message import Message

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"
_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key file: whether it is encrypted, and its public part where that can be read."""

    path: Path
    encrypted: bool
    public: bytes | None


def read_key_file(path: Path) -> KeyFile:
    """Look at a private key file (OpenSSH's PROTOCOL.key, or PEM) and at the `.pub` beside it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        data = stream.read(_LIMIT)
    if _OPENSSH in data:
        encrypted, public = _openssh(data)
    else:
        encrypted, public = b"ENCRYPTED" in data, None
    return KeyFile(path, encrypted, public or _public_beside(path))


def _openssh(data: bytes) -> tuple[bool, bytes | None]:
    body = data.split(_OPENSSH, 1)[1].split(b"-----END", 1)[0]
    try:
        blob = base64.b64decode(b"".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        return False, None
    if not blob.startswith(_MAGIC):
        return False, None
    message = Message(blob[len(_MAGIC) :])
    cipher = message.get_binary()
    message.get_binary()
    message.get_binary()
    return (cipher not in (b"none", b""), message.get_binary() or None) if message.get_int() else (False, None)


def _public_beside(path: Path) -> bytes | None:
    try:
        with path.with_name(path.name + ".pub").open("rb") as stream:
            fields = stream.read(_LIMIT).split()
        return base64.b64decode(fields[1], validate=True)
    except (OSError, IndexError, binascii.Error, ValueError):
        return None
