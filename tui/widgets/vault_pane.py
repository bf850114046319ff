"""All about one vault as lines: how it is, what protects it, what it costs, how it grows, what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from backends.catalog.usage import VaultUsage
from backends.config.schema import Config
from backends.model import Asset
from backends.operations.storage import StorageRow, StorageState
from tui import vault_words
from tui.vaults import CheckedVault, VaultDetail
from tui.widgets import say
from tui.widgets.text import Line, Piece, fit, wrapped

_LABEL = 10
_SIZE = 6
_WIDE = 50
_BAD = {StorageState.AWAY, StorageState.FULL, StorageState.DAMAGED}
_WAYS: Mapping[StorageState, str] = {
    StorageState.FULL: "P prunes what no policy keeps; or give it more room.",
    StorageState.LOW: "P prunes what no policy keeps; or give it more room.",
    StorageState.DAMAGED: "Good copies in other vaults are used instead; back up again.",
    StorageState.BEHIND: "s copies there what it lacks.",
}


def vault_lines(
    row: StorageRow,
    config: Config,
    detail: VaultDetail | None,
    checked: CheckedVault | None,
    *,
    now: datetime,
    interval: int,
    cells: int,
) -> list[Line]:
    """The lines, most urgent first. `interval` is how often vaults are asked, in seconds."""
    status = row.status
    lines: list[Line] = [[vault_words.state(row, checked), ("   ", ""), vault_words.site(row)]]
    lines += [[(part, "quiet")] for part in wrapped(f"{vault_words.kind(row)}, {row.where}", cells)]
    lines += trouble(row, interval, now, cells)
    hosts = len({one.host for one in row.usage.assets})
    counts = vault_words.counted((hosts, "host"), (status.snapshots, "snapshot"))
    if status.read_at is not None:
        lines += _labelled("holds", f"{say.size(status.bytes)}{', ' * bool(counts)}{counts}", cells)
    if detail is not None and detail.lacks:
        number, size = len(detail.lacks), say.size(sum(one.bytes for one in detail.lacks))
        text = f"{say.count(number)} snapshot{'s' * (number != 1)} that other vaults hold, {size} (s)"
        lines += _labelled("lacks", text, cells, "warn")
    lines += _grown(row, now, cells)
    lines += _protection(row, config, cells)
    lines += _proofs(row, checked, now, cells)
    return [*lines, [], *matrix(row.usage, cells)] if row.usage.assets else lines


def trouble(row: StorageRow, interval: int, now: datetime, cells: int) -> list[Line]:
    """What is wrong with a vault, and since when; nothing when all is well."""
    style = "bad" if row.state in _BAD else "warn"
    lines: list[Line] = [[(part, style)] for part in wrapped(row.said, cells) if part]
    if row.state is StorageState.AWAY:
        return lines + [[(part, "quiet")] for part in wrapped(vault_words.away(row.status, interval, now), cells)]
    way = _WAYS.get(row.state, "")
    return lines + [[(part, "accent")] for part in wrapped(way, cells) if part]


def _grown(row: StorageRow, now: datetime, cells: int) -> Iterable[Line]:
    days = row.usage.days
    if any(days):
        yield [*_head("30 days"), *say.spark(days, max(5, min(len(days), cells - _LABEL)))]
    grown, month = vault_words.growth(row.usage, now), vault_words.price(row)
    if grown and month and len(grown) + len(month) < cells - _LABEL - 8:
        yield from _labelled("growth", f"{grown}, costs {month}", cells)
    else:
        yield from _labelled("growth", grown, cells)
        yield from _labelled("costs", month, cells)


def _protection(row: StorageRow, config: Config, cells: int) -> Iterable[Line]:
    text, style = vault_words.encrypted(row.status, config)
    yield from _labelled("keys", text, cells, style)
    words = vault_words.settings(row.status, config.vaults.get(row.name))
    yield from _labelled("kept by", ", ".join(part for part, _tone in words), cells)
    yield from _labelled("note", row.status.note, cells, "warn")


def _proofs(row: StorageRow, checked: CheckedVault | None, now: datetime, cells: int) -> Iterable[Line]:
    if checked is not None:
        word, style = vault_words.check_word(checked)
        yield from _labelled("checked", f"{say.ago(checked.at, now)}: {word}", cells, style)
    if row.status.read_at is not None:
        asked = say.ago(row.status.read_at, now)
        verified, proven = say.ago(row.usage.verified_at, now), say.ago(row.usage.drilled_at, now)
        if cells > _WIDE:
            yield from _labelled("asked", f"{asked}   verified {verified}   proven {proven}", cells)
            return
        yield from _labelled("asked", asked, cells)
        yield from _labelled("verified", verified, cells)
        yield from _labelled("proven", proven, cells)


def matrix(usage: VaultUsage, cells: int) -> list[Line]:
    """Bytes by host and asset, the largest host first; with their sum where there is room."""
    wide = cells > _WIDE
    name_cells = 24 if wide else max(8, cells - len(Asset) * (_SIZE + 1))
    short = {} if wide else {Asset.DATABASE: "datab.", Asset.SECRETS: "secr."}
    size_cells = 9 if wide else _SIZE
    head: list[Piece] = [*fit([("by host", "quiet")], name_cells)]
    for asset in Asset:
        head += fit([(" ", ""), (short.get(asset, asset.value), "quiet")], size_cells + 1, right=True)
    lines: list[Line] = [[*head, *(fit([("all", "quiet")], size_cells + 1, right=True) if wide else ())]]
    for host, by in sizes_of(usage).items():
        line: list[Piece] = fit([(host, "strong")], name_cells)
        for asset in Asset:
            size = by.get(asset, 0)
            cell: Line = [(" ", ""), (say.size(size) if size else "–", "" if size else "quiet")]
            line += fit(cell, size_cells + 1, right=True)
        total = fit([(say.size(sum(by.values())), "strong")], size_cells + 1, right=True)
        lines.append([*line, *(total if wide else ())])
    return lines


def sizes_of(usage: VaultUsage) -> Mapping[str, Mapping[Asset, int]]:
    """Bytes by asset of every host, the one that takes most room first."""
    found: dict[str, dict[Asset, int]] = {}
    for one in usage.assets:
        found.setdefault(one.host, {})[one.asset] = one.bytes
    return dict(sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def _head(label: str) -> list[Piece]:
    return fit([(label, "quiet")], _LABEL)


def _labelled(label: str, text: str, cells: int, style: str = "") -> Sequence[Line]:
    if not text:
        return []
    parts = wrapped(text, max(8, cells - _LABEL))
    return [[*_head(label if number == 0 else ""), (part, style)] for number, part in enumerate(parts)]
