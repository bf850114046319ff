"""How long a step will take, from how long it took the last times on this machine's record."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path

from backends.errors import MastovaultError
from backends.restore.journal import JOURNAL, read_journal, restores_dir

BYTES = "bytes_of"
"""The note that holds the stored bytes of each asset's snapshot."""
_LOOK_BACK = 5
_FIXED = 1.0


def expected(state_dir: Path, host: str, step: str, size: int) -> float | None:
    """Seconds that a step is likely to take on a host, or None without history.

    Args:
        state_dir: where the journals are.
        host: the target.
        step: the step's id.
        size: stored bytes of the snapshot it works on; 0 when it does not depend on one.
    """
    seen: list[float] = []
    for folder in sorted(restores_dir(state_dir).glob(f"*/{JOURNAL}"), reverse=True):
        with contextlib.suppress(MastovaultError, OSError):
            known, _ = read_journal(folder.parent)
            took = known.done.get(step)
            if known.request.host != host or took is None:
                continue
            then = known.notes.get(BYTES, {}).get(step.partition(".")[0], 0)
            # Below a second it is mostly the way there and back, whatever the size.
            scale = size / then if size and isinstance(then, int) and then > 0 and took > _FIXED else 1.0
            seen.append(took * scale)
        if len(seen) >= _LOOK_BACK:
            break
    return round(statistics.median(seen), 1) if seen else None
