"""`mastovault vault list`: the vaults, what they hold, how much room and what it costs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.model import rfc3339, utc_now
from backends.operations.fleet import refresh_vaults
from backends.operations.storage import StorageRow, StorageState, storage
from tui.cli import show


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def command(paths: Paths, as_json: bool) -> None:
    """The vaults: what they hold, how they grow, how much room is left and what they cost."""
    config = load(paths.config_file)
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    vaults = storage(config, catalog, utc_now())
    if as_json:
        show.document({"vaults": [_document(vault) for vault in vaults]})
        return
    if not vaults:
        click.echo("No vaults yet. `mastovault vault add NAME PLACE` adds one.")
        return
    show.rows(
        ("VAULT", "WHERE", "OFF-SITE", "SNAPSHOTS", "SIZE", "A DAY", "FREE", "A MONTH", "STATE"),
        (_line(vault) for vault in vaults),
    )
    for vault in vaults:
        if vault.behind:
            click.echo(f"`mastovault vault sync {vault.name}` copies there what it lacks.")


def _line(vault: StorageRow) -> tuple[str, ...]:
    said = f": {vault.said}" if vault.said else ""
    return (
        vault.name,
        vault.where,
        "yes" if vault.offsite else "no",
        str(vault.status.snapshots),
        show.size(vault.status.bytes),
        _growth(vault.usage.growth),
        show.size(vault.status.free_bytes),
        "–" if vault.price is None else f"{vault.price:.2f} {vault.currency}",
        f"{'good' if vault.state is StorageState.OK else vault.state.value}{said}",
    )


def _growth(bytes_a_day: float) -> str:
    sign = "+" if bytes_a_day > 0 else "-" if bytes_a_day < 0 else ""
    return sign + show.size(abs(round(bytes_a_day)))


def _document(vault: StorageRow) -> dict[str, Any]:
    status, usage = vault.status, vault.usage
    return {
        "vault": vault.name,
        "kind": vault.kind,
        "where": vault.where,
        "offsite": vault.offsite,
        "state": vault.state.value,
        "said": vault.said or None,
        "snapshots": status.snapshots,
        "unreadable": status.unreadable,
        "damaged": vault.damaged,
        "behind": list(vault.behind),
        "bytes": status.bytes,
        "assets": [
            {"host": each.host, "asset": each.asset.value, "bytes": each.bytes, "snapshots": each.snapshots}
            for each in usage.assets
        ],
        "days": list(usage.days),
        "growth": round(usage.growth),
        "full_at": _time(usage.full_at),
        "free_bytes": status.free_bytes,
        "price": None if vault.price is None else round(vault.price, 2),
        "currency": vault.currency or None,
        "recipients": list(status.recipients),
        "versioning": status.versioning or None,
        "object_lock": status.object_lock or None,
        "exclusive": status.exclusive,
        "verified_at": _time(usage.verified_at),
        "drilled_at": _time(usage.drilled_at),
        "read_at": _time(status.read_at),
        "error": status.error or None,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
