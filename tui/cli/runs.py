"""`mastovault runs` and `mastovault cancel`."""

from __future__ import annotations

import sys

import click

from backends.config.paths import Paths
from backends.model import rfc3339, utc_now
from backends.runs.control import cancel
from backends.runs.events import progress_event, result_json
from backends.runs.folder import folder_of
from backends.runs.view import RunView
from backends.runs.watch import RunsWatcher
from tui.cli import show
from tui.cli.read_only import require_change


@click.command("runs")
@click.option("--follow", metavar="ID", help="Follow one run until it has ended; Ctrl-C leaves it going.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; with --follow one event a line.")
@click.pass_obj
def command(paths: Paths, follow: str | None, as_json: bool) -> int:
    """Runs going on and gone by, wherever they were begun. ID may be the end of one."""
    if follow is not None:
        from tui.cli.follow import Follower

        run = folder_of(paths.state_dir, follow).name
        return Follower(paths, as_json=as_json, interactive=sys.stdin.isatty()).follow(run)
    views = RunsWatcher(paths.state_dir).poll()
    if as_json:
        show.document({"runs": [_json(view) for view in views]})
        return 0
    if not views:
        click.echo("No runs yet.")
        return 0
    now = utc_now()
    show.rows(
        ("RUN", "KIND", "HOST", "BEGUN", "STATE", "JOBS"),
        (
            (view.id, view.kind, view.host, show.age(view.begun_at, now) + " ago", _state(view), _jobs(view))
            for view in views
        ),
    )
    return 0


@click.command("cancel")
@click.argument("run", metavar="ID")
@click.option("--job", metavar="ASSET", help="Only this job of the run.")
@click.pass_obj
def cancel_command(paths: Paths, run: str, job: str | None) -> None:
    """Cancel a run; it cleans up before it ends."""
    require_change("a cancel")
    name = folder_of(paths.state_dir, run).name
    cancel(paths.state_dir, name, job)
    click.echo(f"{name} is being cancelled; `mastovault runs --follow {name}` waits for it.")


def _state(view: RunView) -> str:
    if view.lost:
        return "LOST"
    return "running" if view.active else "ended"


def _jobs(view: RunView) -> str:
    return "  ".join(f"{job.asset} {job.state}" for job in view.jobs)


def _json(view: RunView) -> dict[str, object]:
    return {
        "run": view.id,
        "kind": view.kind,
        "host": view.host,
        "who": view.who,
        "begun_at": rfc3339(view.begun_at),
        "ended_at": view.ended_at and rfc3339(view.ended_at),
        "pid": view.pid,
        "state": _state(view).lower(),
        "jobs": [progress_event(job) for job in view.jobs],
        "results": [result_json(result) for result in view.results],
        "questions": [{"id": each.id, "job": each.job, "prompt": each.prompt} for each in view.questions],
    }
