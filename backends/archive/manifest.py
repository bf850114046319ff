"""The manifest: what one snapshot holds, readable without a key, written last (docs/format.md)."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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


_MARK = re.compile(rb',\n  "sha256": "([0-9a-f]{64})"\n\}\n')
_MARK_BYTES = 64 + len(b',\n  "sha256": ""\n}\n')
_END = b"\n}"


def written(manifest: Manifest) -> bytes:
    """A manifest as it is stored: its last field is the SHA-256 of all bytes before the comma that leads to it."""
    body = manifest.model_dump_json(indent=2).encode().removesuffix(_END)
    return body + b',\n  "sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()


def is_unchanged(data: bytes) -> bool | None:
    """Whether a stored manifest is as it was written; None when it does not end in its own SHA-256."""
    mark = _MARK.fullmatch(data[-_MARK_BYTES:])
    return None if mark is None else hashlib.sha256(data[:-_MARK_BYTES]).hexdigest().encode() == mark[1]
