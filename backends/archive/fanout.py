"""One stream of bytes into several vaults at once; one that fails drops out, the others go on."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from backends.errors import VaultError
from backends.vault.base import Upload, Vault

_AHEAD = 4 * 1024 * 1024
"""Bytes that may wait for one vault."""
_WORTH = 256 * 1024
"""Bytes for which a waiting vault is woken up."""


class Lane:
    """One vault's part: a thread that writes to it, a bounded queue before it, and what became of it."""

    def __init__(self, vault: Vault, key: str) -> None:
        self.vault = vault
        self.error: VaultError | None = None
        self.count = 0
        self._key = key
        self._pieces: list[bytes] = []
        self._held = 0
        """Bytes handed over and not yet taken by the vault."""
        self._waiting = 0
        """Those of them that are still in the queue."""
        self._ending: str = ""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"to {vault.name}", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Hand over a piece; blocks while too much waits, does nothing after a failure."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < _AHEAD or self.error is not None)
            if self.error is None:
                self._pieces.append(data)
                self._waiting += len(data)
                self._held += len(data)
                if self._waiting >= _WORTH:
                    self._changed.notify_all()

    def end(self, how: str) -> None:
        """Say that no more comes: `commit` or `abort`."""
        with self._changed:
            self._ending = how
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until the vault has it, or does not."""
        self._thread.join()

    def _work(self) -> None:
        try:
            with self.vault.open_upload(self._key) as upload:
                self._pass_on(upload)
        except VaultError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a vault's fault must not hang the others
            self._fail(VaultError(f"the vault {self.vault.name} failed: {type(error).__name__}", "See the run's log."))

    def _pass_on(self, upload: Upload) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting >= _WORTH or self._ending)
                if self._ending == "abort":
                    return
                piece = b"".join(self._pieces)
                self._pieces.clear()
                self._waiting = 0
            if not piece:
                upload.commit()
                return
            upload.write(piece)
            self.count += len(piece)
            with self._changed:
                self._held -= len(piece)
                self._changed.notify_all()

    def _fail(self, error: VaultError) -> None:
        with self._changed:
            self.error = error
            self._pieces.clear()
            self._changed.notify_all()


class Fanout:
    """The same object being written to every one of some vaults."""

    def __init__(self, vaults: Sequence[Vault], key: str) -> None:
        self.lanes = [Lane(vault, key) for vault in vaults]

    def write(self, data: bytes) -> None:
        """Pass a piece on to every vault. Raises the `VaultError` of the last one when none is left."""
        for lane in self.lanes:
            lane.put(data)
        self._some_left()

    def commit(self) -> None:
        """Make the object durable everywhere. Raises `VaultError` when no vault took it."""
        self._end("commit")
        self._some_left()

    def abort(self) -> None:
        """Give up; what was written is removed."""
        self._end("abort")

    def _end(self, how: str) -> None:
        for lane in self.lanes:
            lane.end(how)
        for lane in self.lanes:
            lane.join()

    def _some_left(self) -> None:
        errors = [lane.error for lane in self.lanes if lane.error is not None]
        if len(errors) == len(self.lanes):
            raise errors[-1] if errors else VaultError("there is no vault to write to", "Add a vault.")
