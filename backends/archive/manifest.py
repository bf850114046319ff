"""The manifest: what one snapshot holds, readable without a key, written last (docs/format.md)."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backends.archive.signing import KEY_CHARACTERS, SIGNATURE_CHARACTERS, Signature, Signer, is_signed_by
from backends.model import Asset

FORMAT = 1


class ObjectEntry(BaseModel):
    """One stored object. `codecs` are applied in order when writing: `["zstd", "age"]`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    key: str = ""
    """Relative to the vault; empty means beside the manifest under `name`."""
    bytes: int = Field(ge=0)
    sha256: str
    codecs: list[Literal["zstd", "age"]]
    plain_bytes: int = Field(ge=0)
    plain_sha256: str = ""


class Manifest(BaseModel):
    """One snapshot. Unknown fields of a later minor version are ignored; a higher `format` is refused.

    It holds no value of a secret, not even a plain digest of one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    id: str
    host: str
    asset: Asset
    run: str
    started_at: datetime
    finished_at: datetime
    tool_version: str
    recipients: list[str]
    objects: list[ObjectEntry]
    facts: dict[str, Any] = Field(default_factory=dict)
    in_part: bool = False
    warnings: list[str] = Field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Stored size: every object of this snapshot."""
        return sum(entry.bytes for entry in self.objects)


_END = b"\n}"
_MARK = re.compile(rb',\n  "sha256": "([0-9a-f]{64})"\n\}\n')
_MARK_BYTES = len(b',\n  "sha256": ""\n}\n') + 64
_SIGNED = re.compile(
    rb',\n  "signed_by": "([A-Za-z0-9+/=]{%d})",\n  "signature": "([A-Za-z0-9+/=]{%d})"'
    % (KEY_CHARACTERS, SIGNATURE_CHARACTERS)
)
_SIGNED_BYTES = len(b',\n  "signed_by": "",\n  "signature": ""') + KEY_CHARACTERS + SIGNATURE_CHARACTERS


@dataclass(frozen=True, slots=True)
class Seal:
    """What the end of a stored manifest says of the bytes before it."""

    sha256: Literal["good", "bad", "absent"]
    """Its own SHA-256; `absent` when it does not end in one."""
    signed: Signature
    """Its signature, by the key that it names itself."""
    signer: str = ""
    """That key, in base64; empty without a signature."""

    @property
    def signature(self) -> Signature:
        """The worse of both: what does not fit its SHA-256 is as bad as what does not fit its signature."""
        return "bad" if self.sha256 == "bad" else self.signed


def written(manifest: Manifest, signer: Signer | None = None) -> bytes:
    """A manifest as it is stored: at its end the signature over all before it, and the SHA-256 of all before that."""
    body = manifest.model_dump_json(indent=2).encode().removesuffix(_END)
    if signer is not None:
        made = base64.b64encode(signer.sign(body))
        body += b',\n  "signed_by": "%s",\n  "signature": "%s"' % (signer.public.encode(), made)
    return body + b',\n  "sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()


def seal_of(data: bytes) -> Seal:
    """Whether a stored manifest is as it was written, and who signed it."""
    mark = _MARK.fullmatch(data[-_MARK_BYTES:])
    if mark is None:
        return Seal("absent", "none")
    body = data[:-_MARK_BYTES]
    digest: Literal["good", "bad"] = "good" if hashlib.sha256(body).hexdigest().encode() == mark[1] else "bad"
    signed = _SIGNED.fullmatch(body[-_SIGNED_BYTES:])
    if signed is None:
        return Seal(digest, "none")
    public = signed[1].decode()
    fits = is_signed_by(body[:-_SIGNED_BYTES], public, signed[2].decode())
    return Seal(digest, "good" if fits else "bad", public)


def is_unchanged(data: bytes) -> bool | None:
    """Whether a stored manifest has the SHA-256 that it was written with; None when it does not end in one."""
    return {"good": True, "bad": False, "absent": None}[seal_of(data).sha256]
