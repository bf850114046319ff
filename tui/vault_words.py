"""How the storage screens say how a vault is: its state, its room, its price, how it grows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from backends.catalog.usage import VaultUsage
from backends.config.schema import Config, S3Vault, VaultConfig
from backends.operations.fleet import VaultStatus
from backends.operations.storage import StorageRow, StorageState
from tui.vaults import CheckedVault
from tui.widgets import say
from tui.widgets.text import Line, Piece, wrapped

_STATES: Mapping[StorageState, Piece] = {
    StorageState.AWAY: ("AWAY ?", "unkn"),
    StorageState.UNASKED: ("not asked", "quiet"),
    StorageState.FULL: ("FULL ▲▲", "crit"),
    StorageState.LOW: ("LOW SPACE ▲", "high"),
    StorageState.DAMAGED: ("DAMAGED ▲▲", "crit"),
    StorageState.BEHIND: ("BEHIND ▲", "warn"),
    StorageState.OK: ("OK ✓", "ok"),
}
_KINDS: Mapping[str, str] = {"directory": "a directory", "s3": "a bucket", "sftp": "over SFTP"}
_TIGHT = {StorageState.FULL, StorageState.LOW}
_CELLS = 60
_FAR = 3 * 365 * 86400.0


def state(row: StorageRow, checked: CheckedVault | None = None) -> Piece:
    """One word with its sign and the name of its style; what cannot be asked is never shown as good."""
    if checked is not None and not checked.report.usable and row.state in {StorageState.OK, StorageState.BEHIND}:
        return "CHECK ✗", "bad"
    if row.state is StorageState.OK and row.said:
        return "UNREADABLE ▲", "warn"
    return _STATES[row.state]


def kind(row: StorageRow) -> str:
    """What kind of vault it is."""
    return _KINDS.get(row.kind, row.kind)


def site(row: StorageRow) -> Piece:
    """Whether it survives the loss of the building."""
    return ("off-site ✓", "ok") if row.offsite else ("not off-site", "warn")


def tight(row: StorageRow) -> bool:
    """Whether there is too little room in it."""
    return row.state in _TIGHT


def used_free(status: VaultStatus) -> str:
    """`1.9T / –`; with `~` when nobody could look again."""
    if status.read_at is None:
        return "–"
    if status.error:
        return f"{say.size(status.bytes)} ~ / –"
    return f"{say.size(status.bytes)} / {say.size(status.free_bytes)}"


def away(status: VaultStatus, interval: int, now: datetime) -> str:
    """Since when it cannot be reached, and what that means."""
    since = "it never answered" if status.read_at is None else f"last answer {say.ago(status.read_at, now)}"
    return f"{since}; asked again every {say.every(interval)}, backups to it wait"


def price(row: StorageRow) -> str:
    """What it costs a month, when somebody wrote down what a gigabyte does; empty otherwise."""
    if row.price is None:
        return ""
    shown = f"{row.price:.2f}" if row.price >= 0.01 or not row.price else "less than 0.01"
    return f"{shown} {row.currency} a month"


def growth(usage: VaultUsage, now: datetime) -> str:
    """How fast it grows, and when it is full at that pace; empty while that is not known."""
    rate = int(usage.growth)
    if not usage.bytes or not any(usage.days[:-1]):
        return ""
    text = f"{'-' if rate < 0 else '+'}{say.size(abs(rate))} a day"
    if usage.full_at is None or rate <= 0:
        return text
    left = max(0.0, (usage.full_at - now).total_seconds())
    return f"{text}, room for years" if left > _FAR else f"{text}, full in {_far(left)}"


def _far(seconds: float) -> str:
    days = seconds / 86400
    return say.span(seconds) if days < 3 else f"{days:.0f} days" if days < 90 else f"{days / 30.4:.0f} months"


def encrypted(status: VaultStatus, config: Config) -> Piece:
    """For how many keys the backups in it are encrypted, and whether these are ours."""
    ours = config.encryption.recipients
    if not ours:
        return "no key yet ▲", "warn"
    number = len(status.recipients or ours)
    text = f"encrypted for {number} key{'s' * (number != 1)}"
    if status.recipients and not set(status.recipients) & set(ours):
        return f"{text}, NONE OF THEM OURS ▲", "high"
    if status.recipients and set(status.recipients) != set(ours):
        return f"{text}, other ones from the next backup on", ""
    return text, ""


def settings(status: VaultStatus, config: VaultConfig | None) -> list[Piece]:
    """What the provider keeps it from: versioning, Object Lock, and how objects are put there."""
    made: list[Piece] = []
    if status.versioning:
        made.append((f"versioning {status.versioning}", "ok" if status.versioning == "on" else ""))
    if status.object_lock:
        made.append((f"Object Lock {status.object_lock}", "ok"))
    if isinstance(config, S3Vault):
        if config.lock_days:
            made.append((f"put under a lock of {config.lock_days} days", ""))
        if config.storage_class:
            made.append((f"class {config.storage_class}", ""))
    return made


def check_word(checked: CheckedVault) -> Piece:
    """How a check went, in a word."""
    if checked.report.good:
        return "everything works ✓", "ok"
    if checked.report.usable:
        return "usable •", "warn"
    return "NOT USABLE ✗", "bad"


def counted(*numbers: tuple[int, str]) -> str:
    """`3 hosts, 412 snapshots`."""
    return ", ".join(f"{say.count(number)} {word}{'s' * (number != 1)}" for number, word in numbers if number)


def banner(rows: Sequence[StorageRow], config: Config) -> str:
    """What the fleet says of vaults until it is mended: away, full, unreadable, or not there at all."""
    if config.hosts and not rows:
        return "no vault yet, so nothing can be backed up: a adds one"
    if config.hosts and not config.encryption.recipients:
        return "no key yet, so nothing can be backed up: `mastovault key new` makes one"
    for state_ in (StorageState.AWAY, StorageState.FULL):
        bad = [row for row in rows if row.state is state_]
        if bad:
            more = f" (and {len(bad) - 1} more, 4 shows them)" if len(bad) > 1 else ""
            return f"vault {bad[0].name}: {bad[0].said}{more}"
    warned = next((row for row in rows if row.state is StorageState.OK and row.said), None)
    return f"vault {warned.name}: {warned.said}" if warned is not None else ""


def forgetting(row: StorageRow, *, last: bool) -> Sequence[Line]:
    """What it means to forget a vault, below the question."""
    count = row.status.snapshots
    held = f" It holds {say.count(count)} snapshot{'' if count == 1 else 's'}, {say.size(row.status.bytes)}."
    said = [
        (f"What is stored there stays, no object is removed.{held if count else ''}", ""),
        ("Until it is added again, no backup goes there, and nothing of it is listed or restored.", ""),
        *([("It is the only vault: nothing can be backed up without one.", "warn")] if last else []),
    ]
    where: list[Line] = [[(line, "quiet")] for line in wrapped(row.where, _CELLS)]
    return [*where, [], *([(line, tone)] for text, tone in said for line in wrapped(text, _CELLS))]
