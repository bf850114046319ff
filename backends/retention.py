"""What is kept and what may go: the policy of one host, as a verdict with its reasons on every snapshot.

Pure: values in, values out (docs/retention.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.model import SnapshotInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one snapshot is kept, and why: `daily 2026-11-22`, `the last good one`."""

    snapshot: SnapshotInfo
    keep: bool
    why: tuple[str, ...]
