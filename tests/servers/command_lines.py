"""What the processes of this machine show to anyone who looks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def command_lines() -> list[bytes]:
    """Every process's words, as anyone on the machine can read them."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(process.read_bytes())
    return lines
