"""How the commands write ages, sizes and tables as plain text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

from backends.risk import span

__all__ = ["age", "document", "rows", "size", "span"]

_SIZES = ("B", "K", "M", "G", "T", "P")


def size(count: int | None) -> str:
    """Bytes in the largest binary unit that keeps three digits (`41.2G`); `–` when unknown."""
    if count is None:
        return "–"
    value = float(count)
    for unit in _SIZES:
        if value < 1000 or unit == _SIZES[-1]:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"
        value /= 1024
    return ""


def age(at: datetime | None, now: datetime) -> str:
    """How long ago, as `span`; `never` for None."""
    return "never" if at is None else span((now - at).total_seconds())


def rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a table with columns as wide as their longest cell."""
    table = [tuple(header), *(tuple(line) for line in lines)]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def document(value: Any) -> None:
    """Print one JSON document and nothing else."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
