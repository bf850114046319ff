"""What stands in an object of a lease. Anybody who can write to the vault can write it: hostile input."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from backends.model import rfc3339, utc_now
from backends.untrusted import clean
from backends.vault.lease_owner import Owner, this_process

State = Literal["claim", "held", "released"]
FORMAT = 1
MAX_BYTES = 16 * 1024
MAX_TTL = timedelta(minutes=15)
"""What an object may ask for at most: nobody keeps others out for days by writing a large number."""
TTL = timedelta(minutes=5)
_REMEMBERED = 32
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}/[a-z]{1,20}/\d{8}T\d{6}Z-[0-9a-f]{8}")
_TOKEN = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One object of a lease."""

    state: State
    token: str
    """16 hex digits, made once for each attempt; empty when it cannot be understood."""
    owner: Owner
    run: str = ""
    doing: str = ""
    """`backed up`: follows "is being"."""
    since: str = ""
    """For people: by the clock of the machine that wrote it."""
    ttl: timedelta = TTL
    wrote: tuple[str, ...] = ()
    """Snapshots that this holder and those before it wrote lately, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease, for people; every text is cleaned."""

    name: str
    vault: str
    user: str
    host: str
    pid: int
    run: str
    doing: str
    since: str

    @property
    def sentence(self) -> str:
        """`social/media is being backed up by ann on laptop, run ... (pid 12), since ...: it holds the lease in v`."""
        what = self.name.rpartition("/")[0] or self.name
        where = f"the lease is in the vault {self.vault}"
        if not self.run:
            return f"{what} is being worked on by another run; {where}"
        by = f"{self.user} on {self.host}, run {self.run} (pid {self.pid}), since {self.since}"
        return f"{what} is being {self.doing or 'worked on'} by {by}; {where}"


UNKNOWN = Record(state="held", token="", owner=Owner("", "", "", 0, 0))
"""What cannot be understood is taken for a lease that somebody holds: it expires as every other."""


def new_record(token: str, *, run: str, doing: str, ttl: timedelta) -> Record:
    """A claim of this process that begins now."""
    return Record(
        state="claim",
        token=token,
        owner=this_process(),
        run=run,
        doing=doing,
        since=rfc3339(utc_now()),
        ttl=min(ttl, MAX_TTL),
    )


def holder(record: Record, name: str, vault: str) -> Holder:
    """Who wrote a record."""
    return Holder(
        name=name,
        vault=vault,
        user=record.owner.user,
        host=record.owner.host,
        pid=record.owner.pid,
        run=record.run,
        doing=record.doing,
        since=record.since,
    )


def remembered(*wrote: Sequence[str]) -> tuple[str, ...]:
    """Ids of snapshots together, each once, as many of the last as are kept."""
    together = dict.fromkeys(each for some in wrote for each in some)
    return tuple(together)[-_REMEMBERED:]


def encode(record: Record) -> bytes:
    """A record as it is stored."""
    document = {
        "format": FORMAT,
        "state": record.state,
        "token": record.token,
        "owner": record.owner.user,
        "host": record.owner.host,
        "machine": record.owner.machine,
        "pid": record.owner.pid,
        "started": record.owner.started,
        "run": record.run,
        "doing": record.doing,
        "since": record.since,
        "ttl_seconds": record.ttl.total_seconds(),
        "wrote": list(record.wrote),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def parse(data: bytes) -> Record:
    """What an object says; `UNKNOWN` when it says nothing that this version understands. Never raises."""
    if len(data) > MAX_BYTES:
        return UNKNOWN
    try:
        document = json.loads(data)
        if document["format"] != FORMAT or document["state"] not in ("claim", "held", "released"):
            return UNKNOWN
        return Record(
            state=document["state"],
            token=_matching(_TOKEN, document["token"]),
            owner=Owner(
                user=_text(document["owner"]),
                host=_text(document["host"]),
                machine=_text(document["machine"]),
                pid=_number(document["pid"]),
                started=_number(document["started"]),
            ),
            run=_text(document["run"]),
            doing=_text(document["doing"]),
            since=_text(document["since"]),
            ttl=_ttl(document["ttl_seconds"]),
            wrote=remembered([_matching(_SNAPSHOT, each) for each in document["wrote"]]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return UNKNOWN


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return clean(value, 80)


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError("form")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("number")
    return value


def _ttl(value: Any) -> timedelta:
    if type(value) not in (int, float) or not 0 < value < 1e9:
        raise ValueError("ttl")
    return min(timedelta(seconds=value), MAX_TTL)
