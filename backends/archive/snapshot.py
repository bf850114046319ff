"""Writing one snapshot: objects first, to every vault at once, the manifest last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from backends.archive.manifest import Manifest, ObjectEntry


class Source(Protocol):
    """Where plain bytes come from: a file, or a `connection.Process`."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        ...


class SnapshotWriter(Protocol):
    """One snapshot being written. Nothing of it is visible before `commit`."""

    @property
    def id(self) -> str:
        """`<host>/<asset>/<time>-<id>`."""
        ...

    def write(
        self, name: str, source: Source, *, compress: bool, already: tuple[Literal["zstd"], ...] = ()
    ) -> ObjectEntry:
        """Read `source` to its end and store it as `name` (+ `.zst` with `compress`) + `.age`.

        `already` are codecs that the host has applied to what `source` gives: they come first in the entry's `codecs`
        (`["zstd", "age"]` for a stream that was compressed there; `name` then ends in `.zst`, `compress` is False). The
        entry's `plain_bytes` then counts what was read from `source`, and its `plain_sha256` is empty: the innermost
        bytes were never seen here.

        Progress is counted by the caller's source or the writer's job. An object counts only when the snapshot commits:
        check the source's exit status before that.
        """
        ...

    def write_shared(self, key: str, source: Source, *, compress: bool) -> ObjectEntry:
        """As `write`, under a key of its own that later snapshots may refer to (media packs)."""
        ...

    def refer(self, entries: Sequence[ObjectEntry]) -> None:
        """Count existing shared objects as part of this snapshot."""
        ...

    def commit(self, facts: Mapping[str, Any], *, warnings: Sequence[str] = ()) -> Manifest:
        """Write the manifest to every vault that took all objects; the snapshot exists from here on."""
        ...

    def discard(self) -> None:
        """Remove everything that was written. Never raises."""
        ...
