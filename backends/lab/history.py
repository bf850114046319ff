"""The past of the demo's fleet: real backups with dates in the past, failed attempts, what was last seen of a host."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from backends.catalog import Catalog, record_attempt
from backends.config.load import load
from backends.config.schema import Config
from backends.embedded.processes import ServerFailed
from backends.lab.host import LabHost
from backends.model import Asset, Attempt, HostObservation, JobState, utc_now
from backends.operations.backup import back_up_host
from backends.operations.fleet import refresh_vaults
from backends.operations.observe import observe_host
from backends.progress import QuietJob
from backends.vault.open import open_vault

if TYPE_CHECKING:
    from backends.lab.lab import Lab

_NO_ROOM = "the vault local has no room left (No space left on device)"
_AWAY = timedelta(hours=5, minutes=12)


def seed_history(lab: Lab, say: Callable[[str], None]) -> None:
    """Back the hosts up as often as their plans say, note what failed, and what was last seen of each host.

    Raises:
        ServerFailed: a backup of the past did not succeed.
    """
    config, now = load(lab.config_file), utc_now()
    hosts = [host for host in lab.hosts.values() if not host.plan.cheap]
    say(f"making {sum(len(host.plan.backups) for host in hosts)} backups of the past days")
    with ThreadPoolExecutor(4, thread_name_prefix="history") as pool:
        for done in [pool.submit(_backups, lab, config, host, now) for host in hosts]:
            done.result()
        say("looking at every host")
        seen = list(pool.map(lambda host: _look(config, host, now), hosts))
    for host in hosts:
        _failures(config, host, now)
    catalog = Catalog(lab.paths.cache_dir)
    refresh_vaults(config, catalog)
    for observation in seen:
        catalog.save_observation(observation)


def notice_absence(lab: Lab) -> None:
    """Note that the hosts which are off the net by now have been away for some hours."""
    config, now = load(lab.config_file), utc_now()
    catalog = Catalog(lab.paths.cache_dir)
    before = {observation.host: observation for observation in catalog.observations()}
    for host in lab.hosts.values():
        if not host.online:
            observation = observe_host(host.name, config, before.get(host.name), now)
            catalog.save_observation(replace(observation, since=now - _AWAY))


def _backups(lab: Lab, config: Config, host: LabHost, now: datetime) -> None:
    for hours in sorted(host.plan.backups, reverse=True):
        at = now - timedelta(hours=hours)
        results = back_up_host(
            config, lab.paths, host.name, list(Asset), dict.fromkeys(Asset, QuietJob()), _run_id(at), at=at
        )
        failed = [result for result in results if result.state not in {JobState.DONE, JobState.SKIPPED}]
        if failed:
            raise ServerFailed(f"the backup of {host.name}/{failed[0].asset} for the demo failed: {failed[0].error}")


def _look(config: Config, host: LabHost, now: datetime) -> HostObservation:
    asked = now - _AWAY if host.plan.offline else now
    return observe_host(host.name, config, None, asked)


def _failures(config: Config, host: LabHost, now: datetime) -> None:
    vaults = [open_vault(name, config.vaults[name]) for name in config.vaults_of(host.name)]
    for hours in host.plan.failures:
        at = now - timedelta(hours=hours)
        run = _run_id(at)
        for asset in (Asset.DATABASE, Asset.MEDIA):
            record_attempt(
                vaults,
                Attempt(
                    host=host.name,
                    asset=asset,
                    run=run,
                    at=at,
                    seconds=41.0,
                    state=JobState.FAILED,
                    error=_NO_ROOM,
                ),
            )


def _run_id(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
