"""A plan as lines: what was found, every step with its time, what is lost and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from backends.restore.plan import Copy, Finding, Phase, RestorePlan, Space, StepInfo
from tui.widgets import say
from tui.widgets.text import Line, Piece, fit, width, wrapped

_NAME_CELLS = 17
_LABEL_CELLS = 11
_SIGNS: Mapping[str, Piece] = {
    "": (" ", ""),
    "begun": ("▶", "run"),
    "done": ("✓", "ok"),
    "failed": ("✗", "bad"),
    "undone": ("↑", "warn"),
}
_FINDINGS: Mapping[str, Piece] = {"ok": ("✓", "ok"), "note": ("▲", "warn"), "block": ("STOP ✗", "crit")}
_ENDS = {"begun": "runs", "failed": "FAILED", "undone": "taken back"}


def duration(seconds: float | None) -> str:
    """How long something is expected to take: `3 s`, `12 min`; empty when nobody knows."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "< 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_lines(plan: RestorePlan, now: datetime, cells: int) -> list[Line]:
    """The whole plan: first what stands in the way and what is lost, then the steps, then what is well."""
    lines: list[Line] = [_copy(copy, now, cells) for copy in plan.copies]
    lines += _labelled("to", plan.target, cells)
    for level in ("block", "note"):
        lines += [line for found in plan.findings if found.level == level for line in finding_lines(found, plan, cells)]
    for text in plan.lost:
        lines += _labelled("gone", text, cells, "warn")
    if plan.untouched:
        lines += _labelled("untouched", ", ".join(plan.untouched), cells)
    lines += _times(plan)
    if plan.steps:
        lines += [[], *step_lines(plan.steps, {}, cells), []]
    for space in plan.spaces:
        lines += _space(space, cells)
    for found in plan.findings:
        if found.level == "ok":
            lines += finding_lines(found, plan, cells)
    return lines


def step_lines(steps: Sequence[StepInfo], states: Mapping[str, str], cells: int) -> list[Line]:
    """The steps, with what has become of each, and where the downtime begins and ends."""
    lines: list[Line] = []
    down = False
    for number, step in enumerate(steps, 1):
        stops = Phase.STOP <= step.phase <= Phase.START
        if stops != down:
            down = stops
            lines.append(_boundary("Mastodon stops" if stops else "Mastodon is up again", cells))
        lines += step_line(number, step, states.get(step.id, ""), cells)
    return lines


def step_line(number: int, step: StepInfo, state: str, cells: int) -> list[Line]:
    """One step in as many lines as it takes; live ones are marked."""
    live = step.phase.live
    sign = _SIGNS[state] if state else ("▲", "high") if live else (" ", "")
    end = _ENDS.get(state, "") or duration(step.seconds)
    head: list[Piece] = [sign, (f"{number:>3} ", "quiet")]
    head += fit([(step.name, "high" if live and not state else "strong")], _NAME_CELLS)
    head.append((" ", ""))
    room = max(10, cells - width(head) - 7)
    texts = wrapped(step.what, room)
    style = "quiet" if state == "done" else ""
    first = [*head, *fit([(texts[0], style)], room), (f"{end:>7}", _SIGNS[state][1] if state else "quiet")]
    rest: list[Line] = [[(" " * width(head), ""), (text, style)] for text in texts[1:]]
    return [first, *rest]


def finding_lines(found: Finding, plan: RestorePlan, cells: int) -> list[Line]:
    """What was found, and below it the way out."""
    sign, style = _FINDINGS[found.level]
    accepted = found.level == "block" and found.accept and found not in plan.blocked
    head = f" {sign} "
    text = f"{found.asset}: {found.text}" if found.asset is not None else found.text
    lines: list[Line] = []
    indent = " " * (len(head))
    for number, part in enumerate(wrapped(text, max(10, cells - len(head)))):
        lines.append([(" ", ""), (sign, style), (" ", ""), (part, "")] if number == 0 else [(indent, ""), (part, "")])
    if found.level != "ok" and found.way_out:
        lines += [[(indent, ""), (part, "accent")] for part in wrapped(found.way_out, max(10, cells - len(head)))]
    if found.level == "block" and found.accept and not accepted:
        word = f"page 4 asks for {plan.request.host}/{found.accept} to do it all the same"
        lines += [[(indent, ""), (part, "quiet")] for part in wrapped(word, max(10, cells - len(head)))]
    return lines


def command_lines(plan: RestorePlan, cells: int) -> list[Line]:
    """The exact commands of each step, unbroken words kept as far as they fit."""
    lines: list[Line] = []
    for number, step in enumerate(plan.steps, 1):
        if not step.commands:
            continue
        lines.append([(f"# {number} {step.name}", "quiet")])
        for command in step.commands:
            parts = wrapped(command, max(10, cells - 2))
            lines += [[("" if n == 0 else "  ", ""), (part, "run")] for n, part in enumerate(parts)]
    return lines or [[("No command runs on any host.", "quiet")]]


def commands_text(plan: RestorePlan) -> str:
    """The same for the clipboard: as it can be read in a shell."""
    made: list[str] = []
    for number, step in enumerate(plan.steps, 1):
        made += [f"# {number} {step.name}: {step.what}", *step.commands]
    return "\n".join(made)


def _copy(copy: Copy, now: datetime, cells: int) -> Line:
    proof = (
        (f"proven {say.ago(copy.drilled_at, now)}", "ok")
        if copy.drilled_at
        else (f"verified {say.ago(copy.verified_at, now)}", "")
        if copy.verified_at
        else ("not verified", "warn")
    )
    line: list[Piece] = [
        *fit([("from", "quiet")], 5),
        *fit([(copy.asset.value, "strong")], 9),
        (f"{say.day_time(copy.at)} UTC ", ""),
        (f"{say.size(copy.bytes):>6}  ", ""),
        proof,
        (", in part" if copy.in_part else "", "warn"),
        (f"  {copy.vault}", "quiet"),
    ]
    return fit(line, cells)


def _labelled(label: str, text: str, cells: int, style: str = "") -> list[Line]:
    room = 5 if label == "to" else _LABEL_CELLS
    parts = wrapped(text, max(10, cells - room))
    return [[*fit([(label if n == 0 else "", "quiet")], room), (part, style)] for n, part in enumerate(parts)]


def _times(plan: RestorePlan) -> Iterable[Line]:
    parts: list[Piece] = []
    if plan.seconds is not None:
        parts += [(f"about {duration(plan.seconds)} in all", "")]
    stops = any(Phase.STOP <= step.phase <= Phase.START for step in plan.steps)
    if plan.downtime_seconds is not None:
        parts += [(", " if parts else "", ""), (f"Mastodon down about {duration(plan.downtime_seconds)}", "strong")]
    elif stops:
        parts += [(", " if parts else "", ""), ("Mastodon is down for the steps between the rules, seconds", "")]
    if parts:
        yield [*fit([("time", "quiet")], _LABEL_CELLS), *parts]


def _space(space: Space, cells: int) -> list[Line]:
    free = "unknown" if space.free is None else say.size(space.free)
    short = space.free is not None and space.free < space.need
    text = f"{space.what}: needs {say.size(space.need)}, has {free} at {space.path}"
    return _labelled("space", text, cells, "bad" if short else "")


def _boundary(text: str, cells: int) -> Line:
    rest = max(0, cells - len(text) - 3)
    return [("─ ", "rule"), (text, "warn" if "stops" in text else "ok"), (" ", ""), ("─" * rest, "rule")]
