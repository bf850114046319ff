"""How the commands write the plan of a restore."""

from __future__ import annotations

import click

from backends.model import utc_now
from backends.restore.plan import Finding, RestorePlan, Space
from tui.cli import show

_MARKS = {"ok": "ok   ", "note": "note ", "block": "STOP "}


def plan(made: RestorePlan) -> None:
    """Write a plan: from where, to where, what was found, every step with its commands, what is lost."""
    now = utc_now()
    click.echo(f"To    {made.target}")
    for copy in made.copies:
        proven = f", proven by a drill {show.age(copy.drilled_at, now)} ago" if copy.drilled_at else ", never drilled"
        part = ", in part" if copy.in_part else ""
        size = show.size(copy.bytes)
        click.echo(
            f"From  {copy.snapshot}  {show.age(copy.at, now)} old, {size}, in {', '.join(copy.vaults)}{proven}{part}"
        )
    click.echo("")
    for found in made.findings:
        _finding(found)
    for space in made.spaces:
        _space(space)
    click.echo("")
    for number, step in enumerate(made.steps, 1):
        sign = "!" if step.phase.live else " "
        took = f"  ({show.span(step.seconds)})" if step.seconds is not None else ""
        click.echo(f"{sign}{number:2} {step.name}: {step.what}{took}")
        for line in step.commands:
            click.echo(f"      $ {line}")
    click.echo("")
    for label, lines in (("Gone afterwards (kept aside)", made.lost), ("Untouched", made.untouched)):
        for text in lines:
            click.echo(f"{label}: {text}")
    if made.seconds is not None:
        down = "" if made.downtime_seconds is None else f", Mastodon down for about {show.span(made.downtime_seconds)}"
        click.echo(f"Expected: about {show.span(made.seconds)} in all{down}")
    if made.blocked:
        click.echo("It cannot run like this: see STOP above.")
    elif made.confirm:
        click.echo(f"To run it, confirm with: {made.confirm}")


def _finding(found: Finding) -> None:
    where = f"{found.asset}: " if found.asset else ""
    click.echo(f"{_MARKS[found.level]} {where}{found.text}")
    if found.level != "ok" and found.way_out:
        click.echo(f"        {found.way_out}")
    if found.level == "block" and found.accept:
        click.echo(f"        or: --accept HOST/{found.accept}")


def _space(space: Space) -> None:
    free = "unknown" if space.free is None else show.size(space.free)
    click.echo(f"space  {space.what} at {space.path}: needs {show.size(space.need)}, free {free}")
