"""The steps of a vault check: each does one thing with one small object, and says what it found."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from backends.errors import AlreadyExists, NotFound, VaultDenied, VaultError
from backends.untrusted import clean
from backends.vault.base import Vault, VaultLook
from backends.vault.format import VaultFormat, read_format

CLOCK = 300.0
"""Seconds that the clocks may differ."""
_AGAIN = (0.1, 0.4, 1.5)
"""Seconds; some providers list and read what was written only a moment later."""
_LOOKED_AT = 5000
_LOOKED_FOR = 2.5
_FOREIGN = 5
_OURS = re.compile(
    r"mastovault\.json|README\.txt|leases/.+|hosts/[A-Za-z0-9][A-Za-z0-9._-]{0,62}/(database|secrets|media|redis|runs)/.+"
)
_APPENDING = (
    "That is fine when it is meant so: old snapshots must then be removed by somebody else, for example by rules of the"
    " provider."
)


class Failed(VaultError):
    """A step found something wrong; the next ones can still be tried."""


class Steps:
    """What a check does, and what it found. Each step returns words to show; raises `Failed`, `MastovaultError`."""

    def __init__(self, vault: Vault, recipients: Sequence[str]) -> None:
        """Choose a key that no reader takes for content, below `leases/`."""
        self.vault, self._recipients = vault, recipients
        self.key = f"leases/probe-{secrets.token_hex(8)}"
        self._data = secrets.token_bytes(1024)
        self.there = False
        """The object was written, or that is not known."""
        self._begun = self._ended = 0.0
        self._modified: float | None = None
        self.look = VaultLook()
        self.free_bytes: int | None = None
        self.clock_seconds: float | None = None
        self.foreign: tuple[str, ...] = ()
        self.found: VaultFormat | None = None
        self.ours: bool | None = None
        self.is_exclusive: bool | None = None

    def reach(self) -> str:
        """Connect, and read what vault is there already."""
        self.found = read_format(self.vault)
        self.look = self.vault.look()
        with suppress(VaultError):
            self.free_bytes = self.vault.free_bytes()
        if self.found is None:
            return "no vault is there yet"
        who = ""
        if self._recipients:
            self.ours = not set(self._recipients).isdisjoint(self.found.recipients)
            who = ", ours among them" if self.ours else ", none of them ours"
        count = len(self.found.recipients)
        since = clean(self.found.created, 40)[:10]
        return f"a vault since {since}, id {self.found.id}, {count} recipient{'' if count == 1 else 's'}{who}"

    def write(self) -> str:
        """Write a new object."""
        self._begun, self.there = time.time(), True
        try:
            self.vault.put_new(self.key, self._data)
        except VaultDenied:
            self.there = False
            raise
        self._ended = time.time()
        return ""

    def read(self) -> str:
        """Read it."""
        _until(lambda: self._content() == self._data, "it gives back other bytes than were written")
        return ""

    def list(self) -> str:
        """Find it in a listing, when it could be written; look around for what is none of ours."""

        def listed() -> bool:
            found = [each for each in self.vault.list(self.key) if each.key == self.key]
            if found:
                self._modified = found[0].modified_at.timestamp()
            return bool(found) and found[0].bytes == len(self._data)

        if self._ended:
            _until(listed, "it does not list what was just written, or not with its length")
        self.foreign = self._foreign()
        return ""

    def replace(self) -> str:
        """Write another object in its place."""
        self._data = secrets.token_bytes(2048)
        try:
            with self.vault.open_upload(self.key) as upload:
                upload.write(self._data)
                upload.commit()
        except (VaultDenied, AlreadyExists) as error:
            raise Failed(f"nothing can be replaced: {error.sentence}", _APPENDING) from None
        _until(lambda: self._content() == self._data, "what was replaced still has its old content")
        return ""

    def delete(self) -> str:
        """Remove it."""
        try:
            self.vault.delete(self.key)
        except VaultDenied as error:
            self.there = False
            raise Failed(
                f"nothing can be removed: backups go on, prune does not, and {self.key} stays ({error.sentence})",
                _APPENDING,
            ) from None
        _until(self._is_gone, "what was removed is still there")
        self.there = False
        return ""

    def exclusive(self) -> str:
        """Ask whether of several writers one wins; it works without, too."""
        self.is_exclusive = self.vault.exclusive()
        return "" if self.is_exclusive else "no: two writers are told apart by a slower protocol"

    def clock(self) -> str:
        """Compare the time at which the vault says that the object was written."""
        if self._modified is None:
            raise Failed("it does not say when the object was written", "Update that server.")
        # File systems count in whole seconds, and cut them.
        off = min(0.0, self._modified + 1 - self._begun) + max(0.0, self._modified - self._ended)
        self.clock_seconds = off
        if abs(off) > CLOCK:
            raise Failed(
                f"its clock is {_words(abs(off))} {'ahead of' if off > 0 else 'behind'} this machine's",
                "Correct the clock that is wrong: ages of backups are told by this machine's.",
            )
        return ""

    def _foreign(self) -> tuple[str, ...]:
        """Some objects that are none of ours, of the first that are listed."""
        foreign: list[str] = []
        until = time.monotonic() + _LOOKED_FOR
        for number, each in enumerate(self.vault.list()):
            if number >= _LOOKED_AT or len(foreign) >= _FOREIGN or time.monotonic() > until:
                break
            if not _OURS.fullmatch(each.key):
                foreign.append(clean(each.key, 200))
        return tuple(foreign)

    def _content(self) -> bytes:
        with self.vault.read(self.key) as stored:
            return stored.read(len(self._data) + 1)

    def _is_gone(self) -> bool:
        try:
            self._content()
        except NotFound:
            return True
        return False


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    """Ask again a few times. Raises `Failed`."""
    for pause in (*_AGAIN, None):
        with suppress(NotFound):
            if holds():
                return
        if pause is not None:
            time.sleep(pause)
    raise Failed(otherwise, "Do not rely on it: what is written there may not be what is read.")


def _words(seconds: float) -> str:
    if seconds >= 1.5 * 86400:
        return f"{seconds / 86400:.0f} days"
    if seconds >= 1.5 * 3600:
        return f"{seconds / 3600:.0f} hours"
    return f"{seconds / 60:.0f} minutes"
