"""Reading snapshots back: manifests and objects, none of which is trusted before it is checked."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from backends.archive.layout import MANIFEST_KEY, MAX_MANIFEST, manifest_key, snapshot_prefix, time_of
from backends.archive.manifest import FORMAT, Manifest, ObjectEntry, Seal, seal_of
from backends.errors import Damaged, KeyUnavailable, VaultFormatTooNew
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.names import PART, valid_key

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_BYTES = 1 << 60
_CHUNK = 256 * 1024
_LOOK = 16 * 1024 * 1024
"""Objects up to this size are read whole to tell a damaged header from a missing key."""


def read_manifest(vault: Vault, snapshot_id: str) -> Manifest:
    """The manifest of a snapshot. Raises `NotFound`, `VaultError`, and what `parse_manifest` raises."""
    key = manifest_key(snapshot_id)
    with vault.read(key) as stored:
        return parse_manifest(key, stored.read(MAX_MANIFEST + 1))


def read_sealed(vault: Vault, snapshot_id: str) -> tuple[Manifest, Seal]:
    """The manifest of a snapshot and its seal. Raises `NotFound`, `VaultError`, and what `parse_sealed` raises."""
    key = manifest_key(snapshot_id)
    with vault.read(key) as stored:
        return parse_sealed(key, stored.read(MAX_MANIFEST + 1))


def parse_manifest(key: str, data: bytes) -> Manifest:
    """A manifest that was found under a key, checked, and as it was written.

    Raises:
        VaultFormatTooNew: a newer Mastovault wrote it.
        Damaged: it cannot be understood, is not what belongs under that key, or was changed.
    """
    manifest, seal = parse_sealed(key, data)
    if seal.signature == "bad":
        raise Damaged(f"the manifest of {manifest.id} was changed after it was written", "Use another copy of it.")
    return manifest


def parse_sealed(key: str, data: bytes) -> tuple[Manifest, Seal]:
    """A manifest that was found under a key, and whether it is as it was written; who wrote it is for others to judge.

    Raises:
        VaultFormatTooNew: a newer Mastovault wrote it.
        Damaged: it cannot be understood, or is not what belongs under that key.
    """
    place = MANIFEST_KEY.fullmatch(key)
    if place is None or len(data) > MAX_MANIFEST:
        raise Damaged("a manifest is too long or in the wrong place", "Look at the vault by hand.")
    try:
        manifest = Manifest.model_validate_json(data)
    except (ValueError, RecursionError):
        if _format_of(data) > FORMAT:
            raise _too_new(place["id"]) from None
        raise Damaged(f"the manifest of {place['id']} cannot be understood", "Look at the vault by hand.") from None
    if manifest.format > FORMAT:
        raise _too_new(place["id"])
    _check(manifest, place["id"])
    return manifest, seal_of(data)


def open_object(vault: Vault, manifest: Manifest, entry: ObjectEntry, identities: Sequence[Any]) -> BinaryIO:
    """A stream of the plain bytes of an object, checked against the manifest on the way.

    Raises, when opened or when read:
        NotFound, VaultError: it is not there, or the vault is away.
        KeyUnavailable: none of the identities opens it.
        Damaged: it is not what was stored. Raised at the latest at its end: rely on nothing before that.
    """
    from backends.archive.codec import unseal

    stored = open_stored(vault, manifest, entry)
    return io.BufferedReader(_Plain(stored, unseal(stored, identities, entry.codecs), entry), _CHUNK)


def open_stored(vault: Vault, manifest: Manifest, entry: ObjectEntry) -> Stored:
    """A stream of the stored bytes of an object, which raises `Damaged` when they differ from the manifest."""
    return Stored(vault.read(object_key(manifest, entry)), entry)


def object_key(manifest: Manifest, entry: ObjectEntry) -> str:
    """Where an object is. Raises `Damaged` for a name or key that leads out of its host's place."""
    if entry.key:
        if valid_key(entry.key) and entry.key.startswith(f"hosts/{manifest.host}/"):
            return entry.key
    elif PART.fullmatch(entry.name):
        return snapshot_prefix(manifest.id) + entry.name
    raise Damaged(f"the manifest of {manifest.id} names an object outside its place", "Look at the vault by hand.")


class Stored:
    """The stored bytes of an object: counted, hashed, and compared with the manifest at their end."""

    def __init__(self, file: BinaryIO, entry: ObjectEntry) -> None:
        self._file = file
        self._entry = entry
        self._digest = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes. Raises `Damaged` at the end, or as soon as there are too many."""
        data = self._file.read(size)
        self._digest.update(data)
        self.count += len(data)
        ended = size < 0 or (size > 0 and not data)
        if self.count > self._entry.bytes or (ended and self.count != self._entry.bytes):
            raise _damaged(self._entry, f"is {self.count} bytes long instead of {self._entry.bytes}")
        if ended and self._digest.hexdigest() != self._entry.sha256:
            raise _damaged(self._entry, "does not have the SHA-256 of its manifest")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def drain(self) -> None:
        """Read what is left. Raises `Damaged`."""
        while self.read(_CHUNK):
            pass


class _Plain(io.RawIOBase):
    """The plain bytes of an object, compared with the manifest at their end."""

    def __init__(self, stored: Stored, opened: BinaryIO, entry: ObjectEntry) -> None:
        self._stored, self._opened, self._entry = stored, opened, entry
        self._digest = hashlib.sha256()
        self._count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as there is something ready."""
        view = memoryview(buffer).cast("B")
        try:
            count: int = self._opened.readinto(view)  # type: ignore[attr-defined]
        except KeyUnavailable:
            # a changed header looks like a missing key: say which it is, where that does not take long
            if self._entry.bytes <= _LOOK:
                self._stored.drain()
            raise
        self._digest.update(view[:count])
        self._count += count
        # without a digest the innermost bytes were never seen when it was written: the host had compressed them
        if not count and self._entry.plain_sha256:
            self._compare()
        return count

    def close(self) -> None:
        """Close all below."""
        self._opened.close()
        self._stored.close()
        super().close()

    def _compare(self) -> None:
        if (self._count, self._digest.hexdigest()) != (self._entry.plain_bytes, self._entry.plain_sha256):
            raise _damaged(self._entry, "holds other content than its manifest says")


def _damaged(entry: ObjectEntry, what: str) -> Damaged:
    return Damaged(f"{clean(entry.name, 100)} {what}", "Use another copy of it.")


def _too_new(snapshot_id: str) -> VaultFormatTooNew:
    return VaultFormatTooNew(f"{snapshot_id} was written by a newer Mastovault", "Update Mastovault.")


def _format_of(data: bytes) -> int:
    """The format a manifest claims; 0 when it claims none."""
    try:
        document = json.loads(data)
        claimed = document["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return claimed if type(claimed) is int else 0


def _check(manifest: Manifest, place: str) -> None:
    """What pydantic cannot know: that it belongs where it was found, and that its objects do too. Raises `Damaged`."""
    naive = manifest.started_at.tzinfo is None or manifest.finished_at.tzinfo is None
    if (
        manifest.id != place
        or f"{manifest.host}/{manifest.asset}" != place.rpartition("/")[0]
        or naive
        or int(manifest.started_at.timestamp()) != int(time_of(place).timestamp())
        or manifest.finished_at < manifest.started_at
        or any(max(entry.bytes, entry.plain_bytes) > _MAX_BYTES for entry in manifest.objects)
    ):
        raise Damaged(f"the manifest of {place} contradicts itself", "Look at the vault by hand.")
    for entry in manifest.objects:
        object_key(manifest, entry)
