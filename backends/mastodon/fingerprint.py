"""Keyed digests of secrets: what lets two copies be compared without saying anything about what is in them.

Manifests are readable without a key, so they never hold a plain digest: a short password could be guessed from it. The
key of these digests comes (HKDF-SHA256) from the environment's own SECRET_KEY_BASE, which is long and random: only who
holds the settings can compute them. Without a SECRET_KEY_BASE worth the name the next strong secret of Mastodon's takes
its place; without any there are no digests at all, and every copy counts as new.
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from backends.mastodon.host_files import HostFile
from backends.mastodon.key_check import ENCRYPTION_KEYS
from backends.model import Secret

KEY_SOURCES = ("SECRET_KEY_BASE", *ENCRYPTION_KEYS, "OTP_SECRET", "VAPID_PRIVATE_KEY")
_INFO = b"mastovault secrets fingerprint 1"


@dataclass(frozen=True, slots=True)
class DigestKey:
    """The key of one environment's digests, and the name of the setting that it comes from."""

    source: str
    key: Secret

    def digest(self, kind: str, *parts: bytes) -> str:
        """The digest of some parts in hexadecimal; `kind` keeps different uses apart."""
        message = b"".join(len(part).to_bytes(8, "big") + part for part in (kind.encode(), *parts))
        return hmac.new(bytes.fromhex(self.key.reveal()), message, hashlib.sha256).hexdigest()


def digest_key(environment: Mapping[str, Secret], computed: Collection[str] = ()) -> DigestKey | None:
    """The key for an environment's digests; None when it holds no secret that cannot be guessed.

    Args:
        environment: the effective settings.
        computed: names whose value is not known.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    for name in KEY_SOURCES:
        value = environment[name].reveal() if name in environment and name not in computed else ""
        if _unguessable(value):
            derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(value.encode())
            return DigestKey(name, Secret(derived.hex()))
    return None


def _unguessable(value: str) -> bool:
    """Whether a value looks generated: nobody types 32 letters and digits of twelve kinds."""
    return re.fullmatch(r"[0-9A-Za-z+/=_-]{32,}", value) is not None and len(set(value)) >= 12


def fingerprint(key: DigestKey, files: Iterable[HostFile]) -> str:
    """The digest of files with their paths, modes, owners and contents; their order does not matter."""
    parts: list[bytes] = []
    for file in sorted(files, key=lambda each: each.path):
        about = (posixpath.normpath(file.path), f"{file.mode:04o}", file.owner)
        parts += [text.encode("utf-8", "surrogateescape") for text in about]
        parts.append(file.content)
    return key.digest("files", *parts)


def key_digests(key: DigestKey, environment: Mapping[str, Secret]) -> dict[str, str]:
    """A digest for each setting, so that a later copy can tell which ones changed."""
    return {
        name: key.digest("setting", name.encode(), value.reveal().encode("utf-8", "surrogatepass"))
        for name, value in environment.items()
    }


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """The names of settings that were added, removed or changed between two `key_digests`.

    Digests under different keys all differ: compare only those of the same SECRET_KEY_BASE.
    """
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))
