"""`mastovault list`: snapshots, newest first."""

from __future__ import annotations

from datetime import datetime

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError
from backends.model import SnapshotInfo, rfc3339, utc_now
from backends.operations.fleet import refresh_vaults
from backends.operations.trust_words import warning
from tui.cli import show
from tui.cli.targets import parse_target


@click.command("list")
@click.argument("target", metavar="[HOST[/ASSET]]", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def command(paths: Paths, target: str | None, as_json: bool) -> None:
    """Snapshots, newest first; those of one run belong together as a restore point."""
    config = load(paths.config_file)
    host, asset = parse_target(target) if target else (None, None)
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    found = catalog.snapshots(host, asset)
    if host and not found and host not in config.hosts:
        raise ConfigurationError(f"no host named {host} is known", "`mastovault host list` shows the hosts.")
    if as_json:
        show.document({"snapshots": [_json(snapshot, catalog) for snapshot in found]})
        return
    if not found:
        click.echo("No snapshots yet.")
        return
    now = utc_now()
    show.rows(
        ("SNAPSHOT", "AGE", "SIZE", "VAULTS", "RUN", "NOTE"),
        (
            (
                snapshot.id,
                show.age(snapshot.at, now),
                show.size(snapshot.bytes),
                ",".join(snapshot.vaults),
                snapshot.run,
                _note(snapshot, config, now),
            )
            for snapshot in found
        ),
    )


def _note(snapshot: SnapshotInfo, config: Config, now: datetime) -> str:
    notes = [words] if (words := warning(snapshot, config)) else []
    if snapshot.in_part:
        notes.append("in part")
    if snapshot.verify_failed:
        notes.append(f"DAMAGED: {snapshot.torn}" if snapshot.torn else "failed verification")
    elif snapshot.verified_at:
        notes.append(f"verified {show.age(snapshot.verified_at, now)} ago")
    if snapshot.damaged and not snapshot.verify_failed:
        why = f" ({snapshot.torn})" if snapshot.torn else ""
        notes.append(f"damaged in {', '.join(snapshot.damaged)}{why}")
    if snapshot.drill_failed:
        notes.append("drill FAILED")
    elif snapshot.drilled_at:
        notes.append(f"proven {show.age(snapshot.drilled_at, now)} ago")
    return ", ".join(notes)


def _json(snapshot: SnapshotInfo, catalog: Catalog) -> dict[str, object]:
    return {
        "id": snapshot.id,
        "host": snapshot.host,
        "asset": snapshot.asset.value,
        "at": rfc3339(snapshot.at),
        "bytes": snapshot.bytes,
        "vaults": list(snapshot.vaults),
        "run": snapshot.run,
        "verified_at": snapshot.verified_at and rfc3339(snapshot.verified_at),
        "drilled_at": snapshot.drilled_at and rfc3339(snapshot.drilled_at),
        "checked_at": snapshot.checked_at and rfc3339(snapshot.checked_at),
        "in_part": snapshot.in_part,
        "verify_failed": snapshot.verify_failed,
        "damaged": list(snapshot.damaged),
        "torn": snapshot.torn,
        "drill_failed": snapshot.drill_failed,
        "drill_seconds": snapshot.drill_seconds,
        "opens_dump": snapshot.opens_dump,
        "trust": catalog.trust(snapshot).value,
        "signer": snapshot.signer,
        "altered": list(snapshot.altered),
    }
