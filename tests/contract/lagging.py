"""A vault whose listings lag: a key is read at once, but listed, or no longer listed, only after a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backends.vault.base import StoredObject, Upload, Vault
from tests.contract.passing import PassingUpload, PassingVault


@dataclass
class _Change:
    at: float
    stored: StoredObject | None
    """None: it was deleted."""


class LaggingVault(PassingVault):
    """Shows in listings what was so `lag(key)` seconds ago, by `now`; only keys that begin with `prefix` lag.

    Every change has to go through this wrapper, or through its `also` for somebody else's view of the same vault, whose
    lag may be another one.
    """

    def __init__(
        self,
        inner: Vault,
        lag: float | Callable[[str], float],
        *,
        prefix: str = "",
        now: Callable[[], float] = time.monotonic,
        _history: dict[str, list[_Change]] | None = None,
    ) -> None:
        super().__init__(inner)
        self.lag: Callable[[str], float] = lag if callable(lag) else lambda _key: lag
        self._prefix, self._now = prefix, now
        self._history: dict[str, list[_Change]] = {} if _history is None else _history

    def also(self, lag: float | Callable[[str], float]) -> LaggingVault:
        """The same vault as somebody else sees it."""
        return LaggingVault(self.inner, lag, prefix=self._prefix, now=self._now, _history=self._history)

    def open_upload(self, key: str) -> Upload:
        return _LaggingUpload(self, self.inner.open_upload(key), key)

    def put_new(self, key: str, data: bytes) -> None:
        self.inner.put_new(key, data)
        self.note(key)

    def delete(self, key: str) -> None:
        self.inner.delete(key)
        self.note(key)

    def note(self, key: str) -> None:
        """Remember how a key is from now on."""
        found = [stored for stored in self.inner.list(key) if stored.key == key]
        self._history.setdefault(key, []).append(_Change(self._now(), found[0] if found else None))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        shown = {stored.key: stored for stored in self.inner.list(prefix)}
        for key, changes in list(self._history.items()):
            if not key.startswith(prefix) or not key.startswith(self._prefix):
                continue
            until = self._now() - self.lag(key)
            past = [change for change in changes if change.at <= until]
            shown.pop(key, None)
            if past and past[-1].stored is not None:
                shown[key] = past[-1].stored
        yield from (shown[key] for key in sorted(shown))


class _LaggingUpload(PassingUpload):
    def __init__(self, vault: LaggingVault, inner: Upload, key: str) -> None:
        super().__init__(inner)
        self._vault, self._key = vault, key

    def commit(self) -> None:
        self.inner.commit()
        self._vault.note(self._key)
