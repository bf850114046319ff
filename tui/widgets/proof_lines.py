"""What a check of a vault found, as lines: each step with its word and time, what failed, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tui.widgets import say
from tui.widgets.text import Line, fit, wrapped

if TYPE_CHECKING:
    from backends.operations.vault_check import Proof, VaultReport

WORDS: Mapping[str, str] = {
    "reach": "reach it",
    "write": "write",
    "read": "read back",
    "list": "list",
    "replace": "replace",
    "delete": "delete",
    "exclusive": "one of two wins",
    "clock": "clock",
}
_HEAD = 27
_NOT_TRIED = "not tried"


def report_lines(report: VaultReport, cells: int) -> list[Line]:
    """The steps, the way out of the first that failed, and what else was seen."""
    lines: list[Line] = [verdict(report), []]
    for step in report.steps:
        lines += _step(step, cells)
    if report.next_step:
        lines += [[], *([(part, "accent")] for part in wrapped(report.next_step, cells))]
    notes = list(_notes(report))
    if notes:
        lines.append([])
    for label, text, style in notes:
        for number, part in enumerate(wrapped(text, max(10, cells - 12))):
            lines.append([*fit([(label if number == 0 else "", "quiet")], 12), (part, style)])
    return lines


def verdict(report: VaultReport) -> Line:
    """The outcome in a sentence."""
    if report.good:
        return [("✓ ", "ok"), ("Everything works.", "strong")]
    if report.usable:
        return [("• ", "warn"), ("Usable: backups can go there, but not everything works.", "strong")]
    return [("✗ ", "bad"), ("It cannot be used as a vault.", "strong")]


def _step(step: Proof, cells: int) -> list[Line]:
    skipped = not step.ok and step.said == _NOT_TRIED
    sign = ("·", "quiet") if skipped else ("✓", "ok") if step.ok else ("✗", "bad")
    took = "" if skipped or not step.seconds else _took(step.seconds)
    head: Line = [
        (" ", ""),
        sign,
        (" ", ""),
        *fit([(WORDS.get(step.name, step.name), "quiet" if skipped else "")], 15),
        (f"{took:>8} ", "quiet"),
    ]
    style = "quiet" if skipped else "" if step.ok else "bad"
    said = wrapped(step.said, max(10, cells - _HEAD)) if step.said else [""]
    return [[*(head if number == 0 else [(" " * _HEAD, "")]), (part, style)] for number, part in enumerate(said)]


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else say.took(seconds)


def _notes(report: VaultReport) -> list[tuple[str, str, str]]:
    look = report.look
    notes: list[tuple[str, str, str]] = [("versioning", look.versioning, "")] if look.versioning else []
    notes += [("Object Lock", look.object_lock, "")] if look.object_lock else []
    if report.free_bytes is not None:
        notes.append(("free", say.size(report.free_bytes), ""))
    notes += [("note", look.note, "")] if look.note else []
    if report.foreign:
        notes.append(("▲ foreign", f"holds what is not Mastovault's: {', '.join(report.foreign[:3])}", "warn"))
    if report.ours is False:
        notes.append(("▲ keys", "the vault that is there is for other recipients: none of its keys is ours", "warn"))
    return notes
