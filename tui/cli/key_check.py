"""`mastovault key check`: try the keys on every vault; the custody drill."""

from __future__ import annotations

import json
from typing import Any

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError
from backends.model import rfc3339, utc_now
from backends.operations.custody import Custody, confirm_custody, custody_of
from tui.cli.ask import ask
from tui.cli.key_paper import read_recovery
from tui.cli.read_only import require_change


@click.command("check")
@click.option("--recovery", is_flag=True, help="With the recovery identity from its copy: the real drill.")
@click.option("--confirm-custody", is_flag=True, help="Only prove that the recovery copy is at hand, and record it.")
@click.option("--from", "source", metavar="FILE", help="Read the recovery identity from this file (- standard input).")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def check(paths: Paths, recovery: bool, confirm_custody: bool, source: str | None, as_json: bool) -> int:
    """Open one object of every vault, and look whether the newest snapshots are for all recipients.

    With --recovery the recovery identity is typed from its copy, or read with --from, and forgotten again.
    """
    from backends.archive.keys_known import Known, parsed
    from backends.operations.keys import check_keys

    config = load(paths.config_file)
    if recovery and confirm_custody:
        raise ConfigurationError("--recovery confirms custody, too", "Use one of them.")
    if source and not (recovery or confirm_custody):
        raise ConfigurationError("--from goes with --recovery or --confirm-custody", "Add one of them.")
    if confirm_custody:
        return _confirm(paths, config, source, as_json=as_json)
    known = None
    if recovery:
        require_change("confirming custody")
        known = [Known(parsed(read_recovery(source, config.encryption.recovery)), "the recovery identity")]
    report = check_keys(config, paths, ask, known=known)
    opened = any(vault.state == "opened" for vault in report.vaults)
    if recovery and opened and report.opened:
        confirm_custody_now(paths, config)
        config = load(paths.config_file)
    custody = custody_of(config.encryption, utc_now())
    if as_json:
        click.echo(json.dumps(_document(report, custody)))
    else:
        for line in _lines(report, custody):
            click.echo(line)
    return int(report.exit_code)


def _confirm(paths: Paths, config: Config, source: str | None, *, as_json: bool) -> int:
    require_change("confirming custody")
    read_recovery(source, config.encryption.recovery)
    confirm_custody_now(paths, config)
    custody = custody_of(load(paths.config_file).encryption, utc_now())
    click.echo(
        json.dumps({"custody": custody_json(custody)}) if as_json else "Custody of the recovery copy is recorded."
    )
    return 0


def confirm_custody_now(paths: Paths, config: Config) -> None:
    """Record it with the time of now. Raises `ConfigurationError`."""
    confirm_custody(paths.config_file, config.encryption, utc_now())


def custody_json(custody: Custody) -> dict[str, Any]:
    """Custody as every JSON document has it."""
    return {
        "confirmed": custody.confirmed,
        "confirmed_at": rfc3339(custody.at) if custody.at else None,
        "due": custody.due,
    }


def custody_words(custody: Custody) -> str:
    """Custody as a line of a list."""
    if not custody.confirmed:
        return "NOT CONFIRMED: put the recovery copy away, then `mastovault key check --confirm-custody`"
    if custody.seconds is None:
        return "confirmed, nobody knows when: `mastovault key check --recovery`"
    days = int(custody.seconds // 86400)
    ago = "today" if not days else "1 day ago" if days == 1 else f"{days} days ago"
    return f"confirmed {ago}" + (": due again, `mastovault key check --recovery`" if custody.due else "")


def _document(report: Any, custody: Custody) -> dict[str, Any]:
    return {
        "vaults": [
            {
                "vault": each.vault,
                "state": each.state,
                "snapshot": each.snapshot or None,
                "opened_by": each.opened_by or None,
                "source": each.source or None,
                "said": each.said,
            }
            for each in report.vaults
        ],
        "lacking": [
            {"host": each.host, "asset": each.asset, "snapshot": each.snapshot, "missing": list(each.missing)}
            for each in report.lacking
        ],
        "old_identities": [
            {"source": each.source, "recipient": each.recipient, "snapshots": each.snapshots, "newest": each.newest}
            for each in report.needed
        ],
        "signer": report.signer or None,
        "problems": list(report.problems),
        "notes": list(report.notes),
        "custody": custody_json(custody),
    }


def _lines(report: Any, custody: Custody) -> list[str]:
    from backends.operations.keys_needed import needed_words

    words = {"opened": "opened", "empty": "empty", "closed": "DOES NOT OPEN", "away": "COULD NOT BE TRIED"}
    lines = []
    for each in report.vaults:
        if each.state == "opened":
            lines.append(f"{each.vault}  opened with {each.source}  {each.opened_by}  {each.snapshot}")
        else:
            lines.append(f"{each.vault}  {words[each.state]}: {each.said}")
    if not report.vaults:
        lines.append("no vault is configured; the keys were tried on something of their own")
    for each in report.lacking:
        lines.append(f"{each.snapshot} is not for {', '.join(each.missing)}: back up {each.host}/{each.asset}")
    lines += [needed_words(each) for each in report.needed]
    lines += report.notes
    lines += [f"PROBLEM: {text}" for text in report.problems]
    if report.signer:
        lines.append(f"signs as {report.signer}")
    return [*lines, f"custody {custody_words(custody)}"]
