"""Encrypting old snapshots anew, for the recipients of now: run kind `rewrap` (docs/keys.md).

Each becomes a new snapshot of the same content, time and facts; the old one goes when the new one is there. Wherever
it is broken off, every content is still there at least once, and the next run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from backends.archive.keys import normal_recipients
from backends.archive.signing import Signer, load_signer
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import (
    Cancelled,
    ConfigurationError,
    Damaged,
    KeyUnavailable,
    Locked,
    MastovaultError,
    NotFound,
    VaultError,
    VaultStalled,
)
from backends.model import Asset, JobResult, JobState, Trust
from backends.operations.backup_work import note_away
from backends.operations.choose import open_identities
from backends.operations.each_asset import each_asset
from backends.operations.leases import hold_vaults
from backends.operations.locks import hold
from backends.operations.mishap import failure, internal
from backends.operations.removal import Remover, Unsure, remover_of
from backends.operations.rewrap_copy import Tools, carry_checks, encrypt_anew, remove, require_whole
from backends.operations.rewrap_look import Copy, Family, Seen, look
from backends.operations.verify import opened, refresh
from backends.progress import Job
from backends.vault.base import Vault

OnResult = Callable[[JobResult], None]
_DOING = "encrypted anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the jobs of one host share."""

    config: Config
    paths: Paths
    host: str
    run: str
    recipients: Sequence[str]
    identities: Sequence[Any]
    signer: Signer | None
    vaults: list[Vault]
    """Those that can be used."""
    closed: dict[str, str]
    catalog: Catalog

    def close(self) -> None:
        """Let go of the vaults."""
        for vault in self.vaults:
            vault.close()


@dataclass(slots=True)
class _Account:
    """What became of the snapshots of one asset."""

    made: int = 0
    bytes: int = 0
    removed: int = 0
    unmade: int = 0
    """Snapshots that could not be encrypted anew."""
    left: list[str] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    """Snapshots that were just made, whose objects the commit has looked at."""
    packs: dict[str, dict[str, int]] = field(default_factory=dict)
    """Shared objects that removed snapshots named, and their bytes, by vault."""


def rewrap_host(
    config: Config,
    paths: Paths,
    host: str,
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: OnResult = lambda _result: None,
) -> list[JobResult]:
    """Encrypt anew what any vault holds of one host for other recipients than the current ones.

    Args:
        config: the configuration; its recipients are who can read it afterwards. The identities are needed.
        paths: where state and cache are.
        host: whose snapshots; it need not be configured any more.
        jobs: where each asset reports to.
        run_id: the run this belongs to.
        on_result: told of each result as soon as it is known.

    Returns:
        One result for each asset, in order of importance. Faults are results, never raised.
    """

    def prepare() -> closing[_Work]:
        first = next(asset for asset in Asset if asset in jobs)
        return closing(_prepare(config, paths, host, run_id, jobs[first]))

    def one(work: _Work, asset: Asset) -> JobResult:
        result = _job(work, asset, jobs[asset])
        refresh(work.catalog, work.vaults, jobs[asset])
        return result

    return each_asset(host, jobs, prepare, one, on_result)


def _prepare(config: Config, paths: Paths, host: str, run: str, job: Job) -> _Work:
    recipients = normal_recipients(config.encryption.recipients)
    if not recipients:
        raise ConfigurationError("there is nobody to encrypt to", "`mastovault key new` makes a key.")
    signer = _signer(config)
    identities = open_identities(config, job.ask, job.log)
    vaults, closed = opened(config)
    return _Work(
        config=config,
        paths=paths,
        host=host,
        run=run,
        recipients=recipients,
        identities=identities,
        signer=signer,
        vaults=vaults,
        closed=closed,
        catalog=Catalog(paths.cache_dir, config.signers),
    )


def _signer(config: Config) -> Signer | None:
    """What signs the new manifests; unlike in a backup it must be there, or what was trusted would be so no more."""
    path = config.encryption.signing_key
    if path is not None:
        return load_signer(path.expanduser())
    if config.signers:
        raise KeyUnavailable(
            "signers are configured, but there is no signing key here: what is encrypted anew would not be trusted",
            "Set `signing_key` below [encryption], or do it on the machine that has it.",
        )
    return None


def _job(work: _Work, asset: Asset, job: Job) -> JobResult:
    """One asset; every way it can end is a result."""
    began = time.monotonic()
    account = _Account()
    try:
        with hold(work.paths.state_dir, work.host, asset, work.run, _DOING):
            job.check_cancelled()
            _asset(work, asset, job, account)
        result = _judged(work, asset, account)
    except MastovaultError as error:
        result = failure(work.host, asset, _cancelled(job) or error, began)
    except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
        result = failure(work.host, asset, _cancelled(job) or internal(error), began)
    return replace(result, bytes=account.bytes, seconds=time.monotonic() - began)


def _asset(work: _Work, asset: Asset, job: Job, account: _Account) -> None:
    with (
        hold_vaults(work.vaults, work.host, asset, work.run, _DOING, job.log) as held,
        # Nobody copies from vault to vault what is about to be replaced.
        hold_vaults(held.vaults, work.host, asset, work.run, _DOING, job.log, kind="sync") as alone,
    ):
        account.left += [
            f"the vault {name} cannot be used: {why}"
            for name, why in {**work.closed, **held.lacking, **alone.lacking}.items()
        ]
        job.step("reading the manifests", unit="manifests")

        def tick() -> None:
            job.check_cancelled()
            job.advance(1)

        seen = look(alone.vaults, work.host, asset, work.recipients, work.config.signers, tick=tick)
        account.left += seen.left

        def stalled(vault: Vault, error: VaultStalled) -> None:
            for leases in (held, alone):
                leases.abandon(vault, error.sentence)
            _leave(work, vault, error.sentence, seen)
            account.left.append(f"the vault {vault.name} cannot be used: {error.sentence}")

        tools = Tools(
            identities=work.identities,
            recipients=work.recipients,
            signer=work.signer,
            packs=seen.packs,
            job=job,
            guard=held.check,
            wrote=held.wrote,
            stalled=stalled,
        )
        removers = {
            vault.name: remover_of(
                vault, work.host, asset, held.leases[vault.name], alone.leases[vault.name], job.check_cancelled
            )
            for vault in alone.vaults
        }
        _families(work, asset, seen, tools, account, removers)
        for vault in alone.vaults:
            # a listing may show neither what was written just before nor what was made here
            known = {*held.leases[vault.name].previous, *account.fresh}
            with _noted(account, f"shared objects in {vault.name} stay until they are pruned"):
                removers[vault.name].remove_unused(work.host, account.packs.get(vault.name, {}).items(), known)


def _leave(work: _Work, vault: Vault, why: str, seen: Seen) -> None:
    """Ask nothing more of a vault that hangs: what it holds stays as it is."""
    work.vaults.remove(vault)
    work.closed[vault.name] = why
    note_away(work.catalog, vault, why)
    for family in seen.families:
        family.old = [copy for copy in family.old if copy.vault is not vault]
        family.new = [copy for copy in family.new if copy.vault is not vault]


def _families(
    work: _Work, asset: Asset, seen: Seen, tools: Tools, account: _Account, removers: Mapping[str, Remover]
) -> None:
    waiting = seen.waiting
    damaged = _damaged(work.catalog, work.host, asset)
    for number, family in enumerate(waiting, 1):
        tools.job.check_cancelled()
        if not family.old:  # in a vault that hangs
            continue
        tools.job.step(f"encrypting {number} of {len(waiting)} anew", total=max(copy.bytes for copy in family.old))
        if not family.new:
            _make(family, tools, account, damaged)
        if family.new:
            _replace(family, account, removers)


def _make(family: Family, tools: Tools, account: _Account, damaged: Mapping[str, Sequence[str]]) -> None:
    """The snapshot for the current recipients, from the first good copy, in every vault that holds an old one."""
    targets = list(dict.fromkeys(copy.vault for copy in family.old))
    said = ""
    for copy in sorted(family.old, key=lambda each: each.vault.name in damaged.get(each.id, ())):
        if copy not in family.old:  # its vault has begun to hang
            continue
        try:
            made, names = encrypt_anew(tools, copy.vault, copy.id, copy.trust, targets)
        except (Damaged, NotFound) as error:
            said = f"{copy.id} in {copy.vault.name} stays as it is: {error.sentence}"
            tools.job.log(said)
            continue
        except (KeyUnavailable, VaultError) as error:
            said = f"{copy.id} stays as it is: {error.sentence}"
            break
        account.made += 1
        account.fresh.add(made.id)
        account.bytes += made.bytes
        tools.job.log(f"{copy.id} is now {made.id}")
        trust = Trust.UNSIGNED if copy.trust is Trust.UNSIGNED else Trust.TRUSTED
        family.new += [
            Copy(vault=vault, id=made.id, at=made.started_at, bytes=made.bytes, trust=trust)
            for vault in targets
            if vault.name in names
        ]
        return
    account.left.append(said)
    account.unmade += 1


def _replace(family: Family, account: _Account, removers: Mapping[str, Remover]) -> None:
    """Remove the old copies from every vault that holds the new one."""
    for copy in family.old:
        new = family.holds_new(copy.vault)
        if not new:
            account.left.append(
                f"{copy.id} stays in {copy.vault.name}, which lacks {family.new[0].id}: "
                f"`mastovault vault sync {copy.vault.name}` fills it, then rewrap again"
            )
            continue
        with _noted(account, f"{copy.id} stays in {copy.vault.name} beside {new}"):
            if new not in account.fresh:
                require_whole(copy.vault, new)
            carry_checks(copy.vault, copy.id, new)
            removers[copy.vault.name].stop()
            why, packs = remove(removers[copy.vault.name], copy.id)
            if why:
                account.left.append(f"{copy.id} stays in {copy.vault.name} beside {new}: {why}")
                continue
            account.removed += 1
            account.packs.setdefault(copy.vault.name, {}).update(packs)


@contextmanager
def _noted(account: _Account, what: str) -> Iterator[None]:
    """A vault's fault is noted, and the others go on."""
    try:
        yield
    except (VaultError, Unsure, Locked) as error:
        account.left.append(f"{what}: {error.sentence}")


def _damaged(catalog: Catalog, host: str, asset: Asset) -> dict[str, tuple[str, ...]]:
    """The vaults whose copy of a snapshot failed its verification; they are read last."""
    try:
        return {info.id: info.damaged for info in catalog.snapshots(host, asset)}
    except MastovaultError:
        return {}


def _judged(work: _Work, asset: Asset, account: _Account) -> JobResult:
    failed = bool(account.unmade) and not account.made and not account.removed
    words = f"{account.made} snapshot{'' if account.made == 1 else 's'} encrypted anew"
    return JobResult(
        host=work.host,
        asset=asset,
        state=JobState.FAILED if failed else JobState.DONE,
        error=account.left[0] if failed else None,
        next_step="Repair that, then `mastovault key rewrap` goes on." if failed else None,
        exit_code=1 if failed else 0,
        in_part=bool(account.left) and not failed,
        warnings=tuple(account.left[1:] if failed else account.left),
        detail="" if failed else words if account.made or account.removed else "nothing to encrypt anew",
    )


def _cancelled(job: Job) -> Cancelled | None:
    try:
        job.check_cancelled()
    except Cancelled as cancelled:
        return cancelled
    return None
