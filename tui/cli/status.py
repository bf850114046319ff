"""`mastovault status`: ages, risk and reasons, from the vaults and the last look at the hosts."""

from __future__ import annotations

import sys
from typing import Any

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import ConfigurationError
from backends.model import AssetStatus, HostState, Level, rfc3339, utc_now
from backends.operations.fleet import Fleet, load_fleet, refresh_vaults
from tui.cli import show

_NAGIOS = {Level.OK: 0, Level.LOW: 0, Level.MED: 1, Level.HIGH: 1, Level.CRIT: 2, Level.UNKN: 3}
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


@click.command("status")
@click.argument("host", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--nagios", is_flag=True, help="One line; exits 0 OK, 1 MED or HIGH, 2 CRIT, 3 unknown.")
@click.option("--refresh", is_flag=True, help="Ask the hosts first instead of using what is known of them.")
@click.pass_obj
def command(paths: Paths, host: str | None, as_json: bool, nagios: bool, refresh: bool) -> int:
    """Ages, risk and reasons of every asset, worst first."""
    config = load(paths.config_file)
    if host is not None and host not in config.hosts:
        raise ConfigurationError(f"no host named {host} is configured", "`mastovault host list` shows them.")
    if refresh:
        from backends.runs.refresh import start_refresh

        start_refresh(paths, [host] if host else None).wait()
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    fleet = load_fleet(config, catalog, utc_now())
    chosen = [row for row in fleet.assets if host in (None, row.host)]
    if as_json:
        show.document(_json(fleet, chosen))
    elif nagios:
        return _nagios(chosen)
    else:
        _table(fleet, chosen)
        _say_unfinished(paths)
    return 0


def _say_unfinished(paths: Paths) -> None:
    """A restore that stopped half-way is the first thing that whoever looks must know."""
    if not (paths.state_dir / "restores").is_dir():
        return
    from backends.operations.restores import restores

    for record in restores(paths):
        if record.state in {"interrupted", "attention"}:
            said = f"restore {record.id} of {record.host}: {record.sentence}; see `mastovault undo`"
            click.echo(said, file=sys.stderr)


def _json(fleet: Fleet, chosen: list[AssetStatus]) -> dict[str, Any]:
    states = {seen.host: seen for seen in fleet.hosts}
    hosts: dict[str, dict[str, Any]] = {}
    for row in chosen:
        seen = states.get(row.host)
        entry = hosts.setdefault(
            row.host,
            {
                "host": row.host,
                "state": (seen.state if seen else HostState.UNASKED).value,
                "asked_at": rfc3339(seen.asked_at) if seen else None,
                "message": seen.message if seen else "",
                "assets": [],
            },
        )
        entry["assets"].append(_asset_json(row))
    return {
        "generated_at": rfc3339(fleet.generated_at),
        "hosts": list(hosts.values()),
        "vaults": [
            {
                "vault": vault.name,
                "where": vault.where,
                "offsite": vault.offsite,
                "snapshots": vault.snapshots,
                "bytes": vault.bytes,
                "error": vault.error or None,
            }
            for vault in fleet.vaults
        ],
    }


def _asset_json(row: AssetStatus) -> dict[str, Any]:
    newest = row.newest
    return {
        "asset": row.asset.value,
        "level": row.level.value,
        "score": row.score,
        "state": row.state,
        "stale": row.stale,
        "reasons": [{"points": why.points, "text": why.text, "action": why.action} for why in row.reasons],
        "goal_seconds": row.goal_seconds,
        "proof": row.proof,
        "newest": newest
        and {
            "snapshot": newest.id,
            "at": rfc3339(newest.at),
            "bytes": newest.bytes,
            "vaults": list(newest.vaults),
        },
    }


def _nagios(chosen: list[AssetStatus]) -> int:
    codes = [_NAGIOS[row.level] for row in chosen] or [3]
    # Nagios has no order between critical and unknown; what is known to be critical comes first.
    code = 2 if 2 in codes else max(codes)
    worst = chosen[0] if chosen else None
    text = f"{worst.host}/{worst.asset} {worst.level} {worst.state}" if worst else "nothing is configured"
    counts = " ".join(f"{level.lower()}={sum(row.level is level for row in chosen)}" for level in Level)
    click.echo(f"MASTOVAULT {_WORDS[code]} - {text.replace('|', '/')} | {counts}")
    return code


def _table(fleet: Fleet, chosen: list[AssetStatus]) -> None:
    if not chosen:
        click.echo("No hosts yet. Nothing is being backed up. `mastovault host add NAME ADDRESS` begins.")
        return
    now = fleet.generated_at
    show.rows(
        ("RISK", "SCORE", "HOST", "ASSET", "AGE", "GOAL", "SIZE", "STATE"),
        (
            (
                row.level.value + ("~" if row.stale else ""),
                str(row.score),
                row.host,
                row.asset.value,
                show.age(row.newest.at if row.newest else None, now),
                "change" if row.goal_seconds is None else show.span(row.goal_seconds),
                show.size(row.newest.bytes if row.newest else None),
                row.state,
            )
            for row in chosen
        ),
    )
    for vault in fleet.vaults:
        if vault.error:
            click.echo(f"vault {vault.name}: {vault.error}", file=sys.stderr)
