"""The steps of a restore while it runs: what is done, what runs and how far, what waits, where the downtime is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.model import JobSnapshot
from backends.restore.plan import Phase, RestorePlan, StepInfo
from backends.runs.view import RunView
from tui import jobs
from tui.widgets import say
from tui.widgets.text import Line, Piece, fit, width

_BACK = "back: "
_WAITS: Piece = ("·", "quiet")
_SIGNS: Mapping[str, Piece] = {
    "begun": ("▶", "run"),
    "done": ("✓", "ok"),
    "failed": ("✗", "bad"),
    "undone": ("↑", "warn"),
    "cut": ("✗", "bad"),
}
_NOTHING: Mapping[str, str] = {}
_WORDS: Mapping[str, str] = {
    "done": "done",
    "failed": "FAILED",
    "undone": "taken back",
    "cut": "cut off",
    "": "waits",
}


def live_steps(
    plan: RestorePlan | None, run: RunView, cells: int, most: int, before: Mapping[str, str] = _NOTHING
) -> list[Line]:
    """At most so many lines about the steps of a run, those around the one that runs.

    Args:
        plan: the steps; without it, those that have begun are shown by their names.
        run: what has become of each.
        cells: the width.
        most: the height.
        before: what had become of each when this run began: an undo goes back from there.
    """
    steps = plan.steps if plan is not None else tuple(_unknown(step) for step, _ in run.steps)
    if not steps:
        return []
    states = _states(steps, run, before)
    lines = [_line(number, step, states[step.id], run, cells) for number, step in enumerate(steps, 1)]
    if len(lines) <= most:
        return lines
    current = next((place for place, step in enumerate(steps) if states[step.id] in {"begun", "failed", "cut"}), None)
    if current is None:
        current = sum(states[step.id] == "done" for step in steps)
    first = max(0, min(current - most // 2, len(lines) - most))
    shown = lines[first : first + most]
    if first:
        shown[0] = [(f"   {first + 1} steps before", "quiet")]
    if first + most < len(lines):
        shown[-1] = [(f"   {len(lines) - first - most + 1} more steps", "quiet")]
    return shown


def headline(plan: RestorePlan, run: RunView, before: Mapping[str, str] = _NOTHING) -> str:
    """`step 7 of 15`, or how many are still to be taken back; empty when nothing of it is at work."""
    states = _states(plan.steps, run, before)
    place = next((number for number, state in enumerate(states.values(), 1) if state == "begun"), 0)
    if not place:
        return ""
    back = "undone" in states.values()
    return f"{place} steps to take back" if back else f"step {place} of {len(states)}"


def _states(steps: Sequence[StepInfo], run: RunView, before: Mapping[str, str]) -> dict[str, str]:
    own = dict(run.steps)
    known = {**before, **own}
    states = {step.id: known.get(step.id, "") for step in steps}
    # What an earlier run had begun and this one has not touched was cut off with that run; so is all with a dead one.
    for step, state in states.items():
        if state == "begun" and (step not in own or not run.active):
            states[step] = "cut"
    back = "undone" in own.values() or any(job.step.startswith(_BACK) for job in run.jobs)
    if back and run.active:
        # The way back ends a step before it says so: the last one that is not taken back is the one at work.
        last = next((step for step in reversed(states) if states[step] in {"done", "begun", "failed", "cut"}), None)
        if last is not None:
            states[last] = "begun"
    return states


def _line(number: int, step: StepInfo, state: str, run: RunView, cells: int) -> Line:
    stops = Phase.STOP <= step.phase <= Phase.START
    sign = _SIGNS.get(state, _WAITS)
    live = ("▲", "high") if step.phase.live else ("╎", "warn") if stops else (" ", "")
    word = _WORDS.get(state, "") if state or run.active else "not begun"
    end = _progress(step, run) if state == "begun" else [(word, _SIGNS[state][1] if state else "quiet")]
    name = fit([(step.name, _name_style(state))], 17)
    head: list[Piece] = [(" ", ""), sign, live, (f"{number:>2} ", "quiet"), *name, (" ", "")]
    room = max(4, cells - width(head) - width(end) - 2)
    return [*head, *fit([(step.what, "" if state == "begun" else "quiet")], room), (" ", ""), *end]


def _name_style(state: str) -> str:
    return {"begun": "strong", "": "quiet", "failed": "bad", "cut": "bad"}.get(state, "")


def _progress(step: StepInfo, run: RunView) -> list[Piece]:
    job = next((one for one in run.jobs if one.step in {step.name, _BACK + step.name}), None)
    if job is None:
        job = next((one for one in run.jobs if one.asset is step.asset and not one.state.ended), None)
    return _amount(job) if job is not None else [("runs", "run")]


def _amount(job: JobSnapshot) -> list[Piece]:
    part, left = jobs.percent(job), jobs.left(job)
    if part is None or job.total is None:
        return [(jobs.amount(job) if job.done else "runs", "run")]
    pieces: list[Piece] = [*say.bar(job.done, job.total, 8), (f" {part}%", "strong")]
    return [*pieces, (f" {say.clock(left)}", "quiet")] if left is not None else pieces


def _unknown(step: str) -> StepInfo:
    return StepInfo(id=step, asset=None, phase=Phase.STAGE, name=step, what="")
