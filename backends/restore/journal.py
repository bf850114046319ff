"""What a restore has done, written before it is done: a killed one is continued or rolled back from here."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from backends.errors import Locked, MastovaultError
from backends.model import utc_now
from backends.restore.plan import RestoreRequest, request_from_json, request_to_json
from backends.untrusted import clean

JOURNAL = "journal.jsonl"
RESTORE_ID = re.compile(r"\d{8}t\d{6}[0-9a-f]{0,4}")
State = Literal["open", "done", "attention", "rolled_back", "undone", "forgotten"]
"""`open` until it has ended; `attention`: the new data is in place, but something after that failed."""
_STATES = frozenset({"open", "done", "attention", "rolled_back", "undone", "forgotten"})
_MAX_BYTES = 16 << 20


@dataclass(slots=True)
class Known:
    """What a journal tells."""

    request: RestoreRequest
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each part, by its name: from these its actions are made again."""
    begun: list[str] = field(default_factory=list)
    """Steps that were begun and not taken back, in order."""
    done: dict[str, float] = field(default_factory=dict)
    """Steps that were done and not taken back, and the seconds each took."""
    notes: dict[str, Any] = field(default_factory=dict)
    walk: Literal["", "rollback", "undo"] = ""
    """The way back that was begun and has not ended."""
    state: State = "open"
    sentence: str = ""
    swapped_at: datetime | None = None
    """When the first step that changes live data began."""


class Journal:
    """The journal of one restore, kept in the state directory; also the memory of its steps.

    One process at a time carries a restore out: whoever has it open through `opened`.
    """

    def __init__(self, folder: Path, known: Known, handle: int) -> None:
        self.folder, self.known, self._handle = folder, known, handle

    def get(self, key: str) -> Any:
        """What a step noted, or None."""
        return self.known.notes.get(key)

    def set(self, key: str, value: Any) -> None:
        """Note something; on disk when this returns."""
        self._write({"event": "note", "key": key, "value": value})

    def keep_facts(self, part: str, facts: Mapping[str, Any]) -> None:
        """Keep what a part's look gave."""
        self._write({"event": "facts", "part": part, "facts": dict(facts)})

    def begin(self, step: str, *, live: bool) -> None:
        """A step is about to be done. `live` ones change live data."""
        self._write({"event": "begin", "step": step, "live": live})

    def done(self, step: str, seconds: float) -> None:
        """A step is done."""
        self._write({"event": "done", "step": step, "seconds": round(seconds, 3)})

    def walk(self, way: Literal["rollback", "undo"]) -> None:
        """The way back begins."""
        self._write({"event": "walk", "way": way})

    def undone(self, step: str) -> None:
        """A step was taken back."""
        self._write({"event": "undone", "step": step})

    def end(self, state: State, sentence: str = "") -> None:
        """It has come to an end, or to a point where the operator must decide."""
        self._write({"event": "state", "state": state, "sentence": clean(sentence)})

    def _write(self, event: Mapping[str, Any]) -> None:
        document = {**event, "at": utc_now().isoformat()}
        data = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        try:
            if os.write(self._handle, data) != len(data):
                raise OSError(28, "No space left on device")
            os.fsync(self._handle)
        except OSError as error:
            raise MastovaultError(
                f"the journal of the restore cannot be written: {error.strerror}",
                f"Make room at {self.folder}: nothing is done that is not written down first.",
            ) from None
        _apply(self.known, document)


def new_journal(state_dir: Path, request: RestoreRequest) -> Path:
    """Make the folder of a new restore with its request in it, and return it. Raises `MastovaultError`."""
    folder = restores_dir(state_dir) / request.id
    try:
        folder.mkdir(mode=0o700, parents=True)
        first = {"event": "request", "request": json.loads(request_to_json(request)), "at": utc_now().isoformat()}
        handle = os.open(folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, json.dumps(first).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise MastovaultError(
            f"the journal of the restore cannot be written: {error.strerror}", f"Look at {folder}."
        ) from None
    return folder


@contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    """Open a journal to go on with its restore; nobody else can meanwhile.

    Raises:
        Locked: another process carries it out.
        MastovaultError: there is none, or it cannot be understood.
    """
    try:
        handle = os.open(folder / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise MastovaultError(
            f"there is no restore {clean(folder.name, 40)}: {error.strerror}", "`mastovault undo` lists them."
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"the restore {folder.name} is at work", "`mastovault runs` shows it.") from None
        known, torn = _read(folder)
        if torn:
            os.write(handle, b"\n")
        yield Journal(folder, known, handle)
    finally:
        os.close(handle)


def restores_dir(state_dir: Path) -> Path:
    """Where the journals are."""
    return state_dir / "restores"


def read_journal(folder: Path) -> tuple[Known, bool]:
    """What a journal tells, and whether a process is carrying the restore out now. Raises `MastovaultError`."""
    known, _ = _read(folder)
    handle = os.open(folder / JOURNAL, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return known, True
    finally:
        os.close(handle)
    return known, False


def _read(folder: Path) -> tuple[Known, bool]:
    """All that was written, and whether the last line is torn. Raises `MastovaultError`."""
    bad = MastovaultError(
        f"the journal of the restore {clean(folder.name, 40)} cannot be understood", f"Look at {folder / JOURNAL}."
    )
    try:
        with (folder / JOURNAL).open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError as error:
        raise MastovaultError(f"{folder / JOURNAL} cannot be read: {error.strerror}") from None
    *lines, rest = data.split(b"\n")
    try:
        known = Known(request_from_json(json.dumps(json.loads(lines[0])["request"]).encode()))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise bad from None
    for line in lines[1:]:
        try:
            _apply(known, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # torn: what it says was about to begin did not begin
    return known, bool(rest)


def _apply(known: Known, event: Mapping[str, Any]) -> None:
    kind = event["event"]
    step = str(event.get("step", ""))
    if kind == "note":
        known.notes[str(event["key"])] = event["value"]
    elif kind == "facts":
        known.facts[str(event["part"])] = dict(event["facts"])
    elif kind == "begin":
        if step not in known.begun:
            known.begun.append(step)
        if event["live"] is True and known.swapped_at is None:
            known.swapped_at = datetime.fromisoformat(event["at"])
    elif kind == "done":
        known.done[step] = float(event["seconds"])
    elif kind == "walk":
        known.walk, known.state = event["way"], "open"
    elif kind == "undone":
        known.done.pop(step, None)
        if step in known.begun:
            known.begun.remove(step)
    elif kind == "state" and event["state"] in _STATES:
        known.state, known.sentence = event["state"], clean(str(event["sentence"]))
        if known.state != "open":
            known.walk = ""
