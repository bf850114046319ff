"""The step that proves secrets and restored database to belong together, before anything live is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backends.assets.database_access import place_of
from backends.errors import AssetFailed
from backends.restore.base import Work
from backends.restore.database_admin import find_admin
from backends.restore.database_names import restored_name
from backends.restore.pair import check_pair
from backends.restore.pair_early import PAIR
from backends.restore.secrets_target import serving


def prove(work: Work, facts: Mapping[str, Any]) -> None:
    """Open one encrypted value of the restored database with the secrets that will serve it.

    Raises:
        AssetFailed: they do not open it, and nobody says to go on all the same.
        Damaged, VaultError, ConnectionFailed: on the way.
    """
    work.job.step("opening an encrypted value")
    place = place_of(work.target.installation)
    admin = find_admin(work.connection, place)
    restored = replace(admin.place, name=restored_name(place.name, work.request.id))
    result = check_pair(work.connection, restored, serving(work))
    work.job.log(result.what)
    if result.state != "locked":
        return
    override = f"{work.request.host}/{PAIR}"
    if PAIR in work.request.accept:
        work.job.warn(f"{result.what}; it was restored all the same")
        return
    answer = work.job.ask(
        f"{result.what[0].upper()}{result.what[1:]}: they stay unreadable. Type {override} to go on all the same"
    )
    if answer is not None and answer.reveal().strip() == override:
        work.job.warn(f"{result.what}; it was restored all the same")
        return
    restore_them = (
        "Choose the settings of the same restore point"
        if facts["pair_secrets"]
        else "Restore the settings of the same restore point with it"
    )
    raise AssetFailed(
        f"{result.what} on {work.connection.host}",
        f"{restore_them}, or type {override} to do it all the same.",
    )
