"""`mastovault vault check`: proves what a vault can do."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from tui.cli import show
from tui.cli.read_only import require_change

if TYPE_CHECKING:
    from backends.operations.vault_check import VaultReport


@click.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def command(paths: Paths, names: Sequence[str], as_json: bool) -> int:
    """Write, read, list, replace and delete a small object in every vault, and say what each can do."""
    from backends.operations.vault_check import check_vault
    from tui.cli.vault import chosen

    require_change("a vault check")
    config = load(paths.config_file)
    wanted = chosen(config.vaults, names)
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda name: check_vault(name, config.vaults[name]), wanted))
    if as_json:
        show.document({"vaults": [as_document(report) for report in reports]})
    else:
        for report in reports:
            show_report(report)
    if all(report.good for report in reports):
        return 0
    return 3 if any(report.usable for report in reports) else 1


def show_report(report: VaultReport) -> None:
    """Print what a check found."""
    word = "good" if report.good else "usable" if report.usable else "NOT USABLE"
    click.echo(f"{report.name}  {report.where}  {word}")
    for step in report.steps:
        took = f"{step.seconds * 1000:.0f} ms" if step.ok else ""
        click.echo(f"  {'ok  ' if step.ok else 'FAIL'}  {step.name:10}{took:>9}  {step.said}".rstrip())
    for line in [*_notes(report), *([report.next_step] if report.next_step else [])]:
        click.echo(f"        {line}")


def _notes(report: VaultReport) -> list[str]:
    look = report.look
    notes = [f"versioning {look.versioning}"] if look.versioning else []
    notes += [f"object lock: {look.object_lock}"] if look.object_lock else []
    notes += [f"{show.size(report.free_bytes)} free"] if report.free_bytes is not None else []
    notes += [look.note] if look.note else []
    if report.foreign:
        notes.append(f"holds objects that are not Mastovault's: {', '.join(report.foreign[:3])}")
    return notes


def as_document(report: VaultReport) -> dict[str, Any]:
    """A report as JSON."""
    return {
        "vault": report.name,
        "where": report.where,
        "good": report.good,
        "usable": report.usable,
        "steps": [
            {"name": step.name, "ok": step.ok, "seconds": round(step.seconds, 3), "said": step.said}
            for step in report.steps
        ],
        "versioning": report.look.versioning or None,
        "object_lock": report.look.object_lock or None,
        "note": report.look.note or None,
        "free_bytes": report.free_bytes,
        "clock_seconds": report.clock_seconds,
        "foreign": list(report.foreign),
    }
