"""What the storage screens show in tests: vaults of every state, what they hold, checks, plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backends.catalog.usage import DAYS, AssetUsage, VaultUsage
from backends.config.schema import Config, SftpVault, VaultConfig
from backends.errors import HostKeyUnknown, MastovaultError
from backends.model import Asset, SnapshotInfo
from backends.operations.fleet import VaultStatus
from backends.operations.storage import StorageRow, StorageState
from backends.operations.vault_check import STEPS, Proof, VaultReport
from backends.vault.base import VaultLook
from tests.ui import given
from tui.source import Seen
from tui.vaults import Plan, PlanRow, VaultDetail, row_of

GIB = given.GIB
SIZES: Mapping[Asset, int] = {Asset.DATABASE: 82, Asset.SECRETS: 0, Asset.MEDIA: 812, Asset.REDIS: 4}


def config(**extra: Any) -> Config:
    """Three vaults, one of each kind."""
    vaults = {
        "eu-backup": {
            "type": "s3",
            "bucket": "mb-eu",
            "prefix": "mastodon",
            "price_per_gb_month": 0.0125,
            "currency": "EUR",
            "lock_days": 30,
        },
        "local": {"type": "directory", "path": "/srv/backup"},
        "nas": {"type": "sftp", "address": "vault@nas.lan:22", "path": "/backups"},
    }
    return given.config(**{"vaults": vaults, **extra})


def usage(name: str, size: int, *, full_days: float | None = None) -> VaultUsage:
    """What a vault holds of two hosts, growing."""
    assets = [
        AssetUsage(host=host, asset=asset, bytes=(gib * GIB or 12288) // part, snapshots=90 // part)
        for part, host in enumerate(("social.ex", "mstdn.art"), 1)
        for asset, gib in SIZES.items()
    ]
    return VaultUsage(
        vault=name,
        bytes=size,
        assets=tuple(assets),
        days=tuple(size * (60 + day) // (60 + DAYS) for day in range(1, DAYS + 1)),
        growth=12.4 * GIB,
        full_at=None if full_days is None else given.before(days=-full_days),
        verified_at=given.before(days=3),
        drilled_at=given.before(days=6),
    )


def row(name: str, state: StorageState = StorageState.OK, said: str = "", **extra: Any) -> StorageRow:
    """One of the three vaults."""
    where = {"eu-backup": "s3://mb-eu/mastodon", "local": "/srv/backup", "nas": "sftp://vault@nas.lan:22/backups"}[name]
    kind = {"eu-backup": "s3", "local": "directory", "nas": "sftp"}[name]
    values: dict[str, Any] = {
        "name": name,
        "where": where,
        "offsite": name != "local",
        "read_at": given.before(minutes=4),
        "checked_at": given.before(hours=9),
        "snapshots": 412,
        "bytes": 1900 * GIB,
        "free_bytes": None if name == "eu-backup" else 931 * GIB,
        "recipients": ("age1qqq", "age1rrr"),
        "versioning": "on" if name == "eu-backup" else "",
        "object_lock": "governance, 30 days" if name == "eu-backup" else "",
        "kind": kind,
    }
    made = {**values, **extra}
    status = VaultStatus(**made)
    price = 1900 * GIB * 0.0125 / 1e9 if name == "eu-backup" else None
    return StorageRow(
        name=name,
        kind=kind,
        where=made["where"],
        state=state,
        said=said,
        offsite=status.offsite,
        status=status,
        usage=usage(name, status.bytes, full_days=6 if state is StorageState.LOW else 400),
        hosts=tuple(config().hosts),
        price=price,
        currency="EUR" if price else "",
    )


ROWS = (
    row("eu-backup"),
    row("local", StorageState.LOW, "full in 6 days, as it grows now", bytes=412 * GIB, free_bytes=31 * GIB),
    row(
        "nas", StorageState.AWAY, "nas.lan port 22: connection refused", error="nas.lan port 22: connection refused",
        read_at=given.before(minutes=22), snapshots=300,
    ),
)  # fmt: skip


def snapshots(vault: str) -> tuple[SnapshotInfo, ...]:
    """Some that a vault holds: good ones, one that is in no other, one damaged here, one not signed."""
    made = []
    for day in range(6):
        for asset, gib in SIZES.items():
            vaults = ("eu-backup",) if day == 1 else ("eu-backup", "local")
            made.append(
                given.snapshot(
                    "social.ex" if day % 2 == 0 else "mstdn.art",
                    asset,
                    given.before(days=day, hours=4.2),
                    max(4096, gib * GIB // 2),
                    vaults=vaults,
                    verified_at=given.before(days=3) if day == 3 else None,
                    drilled_at=given.before(days=6) if day == 5 else None,
                    damaged=("local",) if day == 2 and asset is Asset.DATABASE else (),
                )
            )
    return tuple(one for one in made if vault in one.vaults)


def detail(name: str, lacks: int = 2) -> VaultDetail:
    """The content of a vault."""
    lacking = [
        given.snapshot("toot.lan", asset, given.before(hours=5), GIB, vaults=("nas",)) for asset in list(Asset)[:lacks]
    ]
    return VaultDetail(name=name, snapshots=snapshots(name), lacks=tuple(lacking))


def report(name: str = "offsite", where: str = "s3://my-backups/mastodon", **failed: str) -> VaultReport:
    """A check in which some steps failed; what they said is by name."""
    steps = tuple(
        Proof(step, step not in failed, 0.012 * number, failed.get(step, "")) for number, step in enumerate(STEPS, 1)
    )
    return VaultReport(
        name=name,
        where=where,
        steps=steps,
        look=VaultLook(versioning="on", object_lock="governance, 30 days"),
        next_step="Give these credentials the right to do it." if failed else "",
        exclusive=True,
        clock_seconds=0.2,
    )


GOOD = report()
APPENDING = report(delete="nothing can be removed: access denied; backups go on, prune does not")
BROKEN = replace(
    report(**{step: "not tried" for step in STEPS if step != "reach"}, reach="there is no bucket my-backups"),
    next_step="Make it at the provider, or correct its name.",
)
SHOWN = HostKeyUnknown(
    "the host key of nas is not known yet",
    "Compare it.",
    fingerprint="SHA256:u9PFzIhQ0Xp0HuQofF92hdwhyeVXxAyPDePM4DbeEEA",
    key_type="ssh-ed25519",
    key_base64="AAAA",
)
UNKNOWN_KEY = replace(
    report(**{step: "not tried" for step in STEPS if step != "reach"}, reach="the host key of nas is not known yet"),
    host_key=SHOWN,
)


def _rows(*, goes: str, stays: str) -> tuple[PlanRow, ...]:
    rows = []
    for number, info in enumerate(snapshots("eu-backup")):
        going = number % 3 == 2
        rows.append(row_of(info, vault="eu-backup", goes=going, why=goes if going else stays))
    return tuple(sorted(rows, key=lambda each: not each.goes))


PRUNE = Plan(
    rows=_rows(goes="no policy keeps it", stays="daily 2026-11-20"),
    bytes=210 * GIB,
    notes=("nas could not be asked: nas.lan port 22: connection refused",),
)
SYNC = Plan(
    rows=tuple(
        row_of(one, vault="eu-backup", goes=place != 3, why="" if place != 3 else "the next prune would remove it")
        for place, one in enumerate(snapshots("eu-backup")[:9])
    ),
    bytes=120 * GIB,
    free=31 * GIB,
)


@dataclass
class StorageSource(given.GivenSource):
    """A source with vaults; checks give the next of some reports, the last one again and again."""

    reports: list[VaultReport] = field(default_factory=lambda: [GOOD])
    refuses: str = ""
    sync: Plan = SYNC
    prune: Plan = PRUNE
    plan_fails: MastovaultError | None = None
    lacks: int = 2
    runs_refused: str = ""

    def vault(self, name: str) -> VaultDetail:
        return detail(name, self.lacks)

    def check_vault(self, name: str, config: VaultConfig) -> VaultReport:
        self.done.append(("check", name, config))
        made = self.reports.pop(0) if len(self.reports) > 1 else self.reports[0]
        return replace(made, name=name)

    def accept_vault_key(self, name: str, config: SftpVault, shown: HostKeyUnknown) -> None:
        self.done.append(("accept", name, shown.fingerprint))

    def add_vault(self, name: str, values: Mapping[str, Any]) -> None:
        if self.refuses:
            raise MastovaultError(self.refuses, "Look at the disk.")
        self.done.append(("add", name, dict(values)))

    def forget_vault(self, name: str) -> None:
        if self.refuses:
            raise MastovaultError(self.refuses, "Look at the disk.")
        self.done.append(("forget", name))

    def plan_sync(self, target: str) -> Plan:
        if self.plan_fails is not None:
            raise self.plan_fails
        return self.sync

    def plan_prune(self, hosts: Sequence[str], vaults: Sequence[str]) -> Plan:
        self.done.append(("plan_prune", tuple(hosts), tuple(vaults)))
        if self.plan_fails is not None:
            raise self.plan_fails
        return self.prune

    def kinds(self) -> list[tuple[str, str]]:
        """The kinds and hosts of the runs that were started."""
        return [(call[1].kind, call[1].host) for call in self.done if call[0] == "start"]


def seen(rows: Sequence[StorageRow] = ROWS, **extra: Any) -> Seen:
    """The usual fleet on these vaults."""
    statuses = [one.status for one in rows]
    return given.seen(config(**extra), given.fleet(vaults=statuses), rows)


def source(rows: Sequence[StorageRow] = ROWS, **extra: Any) -> StorageSource:
    """A source with these vaults."""
    return StorageSource(seen=seen(rows), **extra)
