"""What has been chosen in the wizard so far, and the requests made of it. Pure: nothing here looks anywhere."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.model import Asset, SnapshotInfo
from backends.restore.plan import RedisChoice, RestoreRequest, request_to_json
from tui.source import Wish

if TYPE_CHECKING:
    from backends.operations.choose import RestorePoint


class Where(StrEnum):
    """Where a copy is brought back to; the safest first."""

    SANDBOX = "sandbox"
    FILES = "files here"
    OTHER = "another host"
    IN_PLACE = "in place"


@dataclass(slots=True, kw_only=True)
class Draft:
    """The choices of one wizard. `id` goes into every name that a restore makes on its target."""

    host: str
    at: datetime
    id: str
    point: RestorePoint | None = None
    assets: set[Asset] = field(default_factory=set)
    where: Where = Where.SANDBOX
    other: str = ""
    directory: str = ""
    redis: RedisChoice = RedisChoice.RESTORE
    subtree: str = ""
    exact: bool = False

    @property
    def copies(self) -> Mapping[Asset, SnapshotInfo]:
        """The chosen assets of the chosen point, in order of importance."""
        held = self.point.snapshots if self.point is not None else {}
        return {asset: info for asset, info in held.items() if asset in self.assets}

    @property
    def chosen(self) -> tuple[Asset, ...]:
        """What comes back, in order of importance."""
        return self.request().assets if self.to_host else tuple(self.copies)

    @property
    def to_host(self) -> bool:
        """Whether a Mastodon server is the target."""
        return self.where in {Where.OTHER, Where.IN_PLACE}

    @property
    def target(self) -> str:
        """The host that the run is about: of a drill and of files here, the one whose copies they are."""
        return self.other if self.where is Where.OTHER else self.host

    @property
    def name(self) -> str:
        """`host/asset`, or `host` for more than one asset."""
        return f"{self.host}/{next(iter(self.copies))}" if len(self.copies) == 1 else self.host

    @property
    def redis_is_older(self) -> bool:
        """Whether Redis is from before the database: then starting it empty may be better."""
        held = self.copies
        redis, database = held.get(Asset.REDIS), held.get(Asset.DATABASE)
        return redis is not None and database is not None and redis.at < database.at

    @property
    def options(self) -> tuple[str, ...]:
        """Which options apply to what was chosen: `redis`, `subtree`, `exact`."""
        found = ["redis"] if Asset.REDIS in self.copies and self.to_host else []
        if Asset.MEDIA in self.copies and self.where is not Where.SANDBOX:
            found.append("subtree")
            found += ["exact"] if self.to_host else []
        return tuple(found)

    def lacks(self, page: int) -> str:
        """Why one cannot go on from page 1 or 2; empty when one can."""
        if page == 1:
            if self.point is None:
                return "There is no copy to choose."
            return "" if self.copies else "Choose at least one asset (tab, then space)."
        if self.where is Where.OTHER and not self.other:
            return "Choose the other host (space on its row)."
        if self.where is Where.FILES:
            return directory_problem(self.directory)
        return ""

    def request(self, *, accept: Sequence[str] = (), confirm: str = "") -> RestoreRequest:
        """A restore onto a host."""
        empty = Asset.REDIS in self.copies and self.redis is RedisChoice.EMPTY
        media = Asset.MEDIA in self.copies
        return RestoreRequest(
            id=self.id,
            host=self.target,
            snapshots={a: one.id for a, one in self.copies.items() if not (empty and a is Asset.REDIS)},
            redis=RedisChoice.EMPTY if empty else RedisChoice.RESTORE,
            subtree=self.subtree.strip("/ ") if media else "",
            exact=self.exact and media,
            accept=tuple(accept),
            confirm=confirm,
            at=self.at,
        )

    def look(self) -> Wish | None:
        """The run that makes the plan; None for a sandbox, of which all is known beforehand."""
        if self.where is Where.SANDBOX:
            return None
        if self.where is Where.FILES:
            return Wish(kind="plan", host=self.host, assets=tuple(self.copies), options=self._files())
        request = self.request()
        return Wish(kind="plan", host=self.target, assets=request.assets, options={"request": _document(request)})

    def order(self, *, accept: Sequence[str] = (), confirm: str = "") -> Wish:
        """The run that does it."""
        words = {"accept": list(accept)} if accept else {}
        if self.where is Where.SANDBOX:
            options = {"snapshots": self._snapshots(), "on": None, **words}
            return Wish(kind="drill", host=self.host, assets=tuple(self.copies), options=options)
        if self.where is Where.FILES:
            return Wish(kind="extract", host=self.host, assets=tuple(self.copies), options=self._files() | words)
        request = self.request(accept=accept, confirm=confirm)
        return Wish(kind="restore", host=self.target, assets=request.assets, options={"request": _document(request)})

    def _snapshots(self) -> dict[str, str]:
        return {asset.value: one.id for asset, one in self.copies.items()}

    def _files(self) -> dict[str, Any]:
        subtree = self.subtree.strip("/ ") if Asset.MEDIA in self.copies else ""
        directory = str(Path(self.directory).expanduser())
        return {"snapshots": self._snapshots(), "directory": directory, "subtree": subtree}


def new_draft(host: str, now: datetime, assets: Sequence[Asset] = ()) -> Draft:
    """An empty draft: the safest target, and a directory beside nothing of value."""
    return Draft(
        host=host,
        at=now,
        id=f"{now:%Y%m%dt%H%M%S}{secrets.token_hex(2)}",
        assets=set(assets),
        directory=f"~/restored-{host}-{now:%Y%m%dT%H%M}",
    )


def directory_problem(text: str) -> str:
    """What is wrong with the name of a directory; empty when nothing is."""
    if not text.strip():
        return "Say into which directory."
    try:
        path = Path(text.strip()).expanduser()
    except RuntimeError:
        return "That home directory is not known."
    return "" if path.is_absolute() else "Write the whole path, from / or ~."


def _document(request: RestoreRequest) -> Any:
    return json.loads(request_to_json(request))
