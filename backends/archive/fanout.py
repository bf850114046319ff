"""One stream of bytes into several vaults at once; one that fails drops out, the others go on.

The slowest vault sets the pace, for little waits before each. One that neither takes anything nor fails for `STALL`
seconds drops out, too: what hangs (a dead network file system) is left to itself in a thread that nobody waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from backends.errors import VaultError, VaultStalled
from backends.vault.base import Upload, Vault

STALL = 900.0
"""Seconds in which a vault must take at least one piece. The largest part of an S3 upload (256 MiB) needs 0.3 MB/s."""
STALL_AT_END = 3600.0
"""Seconds that making an object durable may take: a disk syncs all that it has not written yet."""
_AHEAD = 1024 * 1024
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
        self._ended = False
        self._heard = time.monotonic()
        """When the vault last took something."""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"to {vault.name}", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Hand over a piece; blocks while too much waits, does nothing after a failure."""
        with self._changed:
            self._wait(lambda: self._held < _AHEAD or self.error is not None, STALL)
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
        """Wait until the vault has it, or does not, or hangs."""
        with self._changed:
            self._wait(lambda: self._ended or isinstance(self.error, VaultStalled), STALL_AT_END)

    def _wait(self, over: Callable[[], bool], patience: float) -> None:
        """Wait, holding the condition; fail when nothing is heard of the vault for so many seconds meanwhile."""
        began = time.monotonic()
        while not self._changed.wait_for(over, max(max(self._heard, began) + patience - time.monotonic(), 0.01)):
            if time.monotonic() - max(self._heard, began) >= patience:
                self._fail(
                    VaultStalled(
                        f"the vault {self.vault.name} hangs: nothing was heard of it for {patience / 60:.0f} minutes",
                        "Look at its disk or its network; the next run tries it again.",
                    )
                )
                return

    def _work(self) -> None:
        try:
            with self.vault.open_upload(self._key) as upload:
                self._pass_on(upload)
        except VaultError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a vault's fault must not hang the others
            self._fail(VaultError(f"the vault {self.vault.name} failed: {type(error).__name__}", "See the run's log."))
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _pass_on(self, upload: Upload) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting >= _WORTH or self._ending or self.error is not None)
                if self._ending == "abort" or self.error is not None:
                    return
                piece = b"".join(self._pieces)
                self._pieces.clear()
                self._waiting = 0
            if piece:
                upload.write(piece)
                self._took(len(piece))
            else:
                upload.commit()
                self._committed()
                return

    def _took(self, count: int) -> None:
        with self._changed:
            self.count += count
            self._held -= count
            self._heard = time.monotonic()
            self._changed.notify_all()

    def _committed(self) -> None:
        """Take back what a vault made of it after all, when it had been given up meanwhile."""
        if self.error is not None:
            with suppress(VaultError):
                self.vault.delete(self._key)

    def _fail(self, error: VaultError) -> None:
        with self._changed:
            self.error = self.error or error
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
