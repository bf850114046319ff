"""A run's folder in the state directory: its request, its process, its events."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.errors import MastovaultError
from backends.model import Asset, utc_now
from backends.operations.locks import whoami
from backends.untrusted import clean

RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
SETTLED = "settled"
"""A file that says that nothing is left to do for this run; see `recover`."""
_MAX_BYTES = 1 << 20
# A unix socket's path may have 107 bytes (unix(7)).
_MAX_SOCKET = 100
_SHORT = "/tmp"  # noqa: S108 - the directory made there is private and its name cannot be guessed
_OWN = "mastovault-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run was asked to do, as `run.json` holds it. `pid` is 0 until its process has said who it is."""

    id: str
    kind: str
    host: str
    assets: tuple[Asset, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    begun_at: datetime
    pid: int = 0
    started: int = 0
    """When the process began, in clock ticks since boot (`/proc/<pid>/stat` field 22): a pid alone may be recycled."""
    control: str = ""
    """The control socket."""
    who: str = ""
    """The user who began it."""


def runs_dir(state_dir: Path) -> Path:
    """Where the run folders are."""
    return state_dir / "runs"


def folder_of(state_dir: Path, run: str) -> Path:
    """The folder of a run, named by its id or an unambiguous end of it.

    Raises:
        MastovaultError: there is no such run, or several end like this.
    """
    found = [name for name in _names(state_dir) if name.endswith(run)] if run else []
    if run in found:
        found = [run]
    if len(found) != 1:
        many = "more than one run ends in" if found else "there is no run"
        raise MastovaultError(f"{many} {run[:40]!r}", "`mastovault runs` lists them.")
    return runs_dir(state_dir) / found[0]


def _names(state_dir: Path) -> list[str]:
    try:
        return sorted(path.name for path in runs_dir(state_dir).iterdir() if RUN_ID.fullmatch(path.name))
    except FileNotFoundError:
        return []


def folders(state_dir: Path) -> list[Path]:
    """Every run folder, oldest first."""
    return [runs_dir(state_dir) / name for name in _names(state_dir)]


def begun_at(folder: Path) -> datetime:
    """When a run began, by the name of its folder."""
    try:
        return datetime.strptime(folder.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:  # the digits of a name that we did not make
        return datetime.fromtimestamp(0, UTC)


def new_folder(
    state_dir: Path, *, kind: str, host: str, assets: Sequence[Asset], options: Mapping[str, Any]
) -> tuple[Path, Request]:
    """Make the folder of a new run, 0700, with its request in it."""
    now = utc_now()
    run = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    folder = runs_dir(state_dir) / run
    folder.mkdir(mode=0o700, parents=True)
    request = Request(
        id=run,
        kind=kind,
        host=host,
        assets=tuple(assets),
        options=dict(options),
        begun_at=now,
        control=_socket(folder),
        who=whoami(),
    )
    write_request(folder, request)
    return folder, request


def _socket(folder: Path) -> str:
    beside = str(folder / "control.sock")
    if len(os.fsencode(beside)) <= _MAX_SOCKET:
        return beside
    # Not in XDG_RUNTIME_DIR: that goes when its user logs out, which a run outlives.
    return f"{_SHORT}/{_OWN}{secrets.token_hex(12)}/control.sock"


def has_own_directory(control: Path) -> bool:
    """Whether a control socket is in a directory made for it alone, because the run's folder has too long a name."""
    return control.parent.parent == Path(_SHORT) and control.parent.name.startswith(_OWN)


def remove_socket(control: Path) -> None:
    """Remove a control socket that nobody listens on any more."""
    with contextlib.suppress(OSError):
        control.unlink(missing_ok=True)
    if has_own_directory(control):
        shutil.rmtree(control.parent, ignore_errors=True)


def write_request(folder: Path, request: Request) -> None:
    """Write `run.json`, all at once."""
    document = {
        "id": request.id,
        "kind": request.kind,
        "host": request.host,
        "assets": [asset.value for asset in request.assets],
        "options": dict(request.options),
        "begun_at": request.begun_at.isoformat(),
        "pid": request.pid,
        "started": request.started,
        "control": request.control,
        "who": request.who,
    }
    draft = folder / f".run.json.{os.getpid()}"
    draft.write_text(json.dumps(document, indent=2))
    draft.replace(folder / "run.json")


def read_request(folder: Path) -> Request | None:
    """The request of a run; None when there is none yet or it cannot be understood."""
    try:
        with (folder / "run.json").open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
        begun = datetime.fromisoformat(document["begun_at"])
        return Request(
            id=folder.name,
            kind=clean(str(document["kind"]), 40),
            host=clean(str(document["host"]), 80),
            assets=tuple(Asset(name) for name in document["assets"]),
            options=dict(document["options"]),
            begun_at=begun if begun.tzinfo else begun.replace(tzinfo=UTC),
            pid=int(document["pid"]),
            started=int(document["started"]),
            control=str(document["control"]),
            who=clean(str(document.get("who", "")), 80),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def process_start(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 when there is none, or only its remains (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (OSError, ValueError):
        return 0
    # The name, in brackets, may hold spaces and brackets itself.
    fields = stat.rpartition(b")")[2].split()
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])


def is_alive(request: Request, now: datetime) -> bool:
    """Whether the process of a run is still there; one that has not said its pid yet gets half a minute."""
    if request.pid <= 0:
        return (now - request.begun_at).total_seconds() < 30
    return process_start(request.pid) == request.started != 0
