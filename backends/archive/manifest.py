"""The manifest: what one snapshot holds, readable without a key, written last (docs/format.md)."""

from __future__ import annotations

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
