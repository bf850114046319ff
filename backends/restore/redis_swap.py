"""Let a staged snapshot take the place of Redis's data, and bring the old data back.

A running Redis would write its own data over the file when it ends, so it is stopped first, for certain. A server with
an append-only file ignores the snapshot as long as that is on (redis.io, persistence): it is started with the
append-only file off, which is turned on again when the data is in memory, and only then the configuration agrees again.
"""

from __future__ import annotations

from backends.errors import AssetFailed
from backends.progress import Job, QuietJob
from backends.restore.base import Work
from backends.restore.redis_files import Files, State
from backends.restore.redis_live import Counts, Live, missing
from backends.restore.redis_place import Server
from backends.restore.redis_service import Service


def swap(work: Work, server: Server) -> None:
    """Stop Redis, put the snapshot in place, start it and prove that it holds the data. Mastodon must be stopped.

    Raises:
        AssetFailed: it did not work; `undo` brings the old data back.
    """
    one = _Swap(work, server, work.job)
    state = one.files.state()
    if not state.staged and not state.before:
        raise AssetFailed(
            f"{server.name}: the staged snapshot is not there any more.", "Roll back, and start the restore again."
        )
    if state.staged:
        one.stop_saved(state)
        if server.aof:
            one.config_off()
        work.job.step("putting the snapshot in place")
        work.job.log(f"mv {server.staged(work.request.id)} {server.file}")
        one.files.place()
        state = one.files.state()
    wanted = _expected(work, server)
    if server.aof and (state.kept or not state.aof):
        one.load_then_aof(wanted)
    one.files.config_back()
    one.start(wanted, aof=server.aof)


def undo_swap(work: Work, server: Server) -> None:
    """Bring the old data back; with `way` undo what the restore brought stays aside."""
    one = _Swap(work, server, QuietJob())  # the way back is not cancelled
    state = one.files.state()
    aof_since = _aof_since(work, one)
    if state.touched:
        one.stop(state, save=work.way == "undo")
        if server.config and (server.aof or aof_since):
            one.config_off()
        work.job.step("bringing the old data back")
        one.files.back()
        if aof_since:
            # Whatever append-only file is there now never held the old data.
            one.files.drop_aof()
            one.load_then_aof(None)
    one.files.config_back()
    if server.running:
        one.start(None, aof=None)
    else:
        one.stop(state, save=False)
    if work.way == "rollback":
        one.files.remove("undone")


def forget_swap(work: Work, server: Server) -> None:
    """Remove the old data, and after an undo what the restore had brought."""
    Files(work.target, server, work.request.id).remove("before", "undone", "none")


def _expected(work: Work, server: Server) -> Counts:
    """What the snapshot holds, as redis-check-rdb counted it or, about, as its manifest says (`expires` is -1)."""
    counted = work.memory.get(f"redis.{server.role}.staged")
    if isinstance(counted, dict):
        return Counts(keys=int(counted.get("keys", 0)), expires=int(counted.get("expires", 0)))
    return Counts(keys=server.keys, expires=-1)


def _aof_since(work: Work, one: _Swap) -> bool:
    """Whether the append-only file was off at the restore and was turned on afterwards; noted once it is known."""
    if one.server.aof or not one.server.config:
        return False
    name = f"redis.{one.server.role}.aof_since"
    noted = work.memory.get(name)
    if isinstance(noted, bool):
        return noted
    counts = one.live.now()
    if counts is not None:
        work.memory.set(name, counts.aof)
    return counts is not None and counts.aof


class _Swap:
    """One server's swap, there or back. Each method can be called again after it was cut off."""

    def __init__(self, work: Work, server: Server, job: Job) -> None:
        self.work, self.server = work, server
        self.files = Files(work.target, server, work.request.id)
        self.service = Service(work.target, server)
        self.live = Live(work.target, server, job)

    def stop_saved(self, state: State) -> None:
        """Stop Redis on the way there: its data must be in its file afterwards, for an undo will want it."""
        if not self.service.up:
            return self._end(None)
        if not self.server.running:
            return self.stop(state, save=False)  # it does not come up by itself: nothing to be saved
        counts = self.live.loaded()
        if counts.aof != self.server.aof or (counts.aof and not state.aof):
            raise AssetFailed(
                f"The append-only file of {self.server.name} is not as it was when it was looked at.",
                "Start the restore again.",
            )
        since, _ = self.files.times()
        self.work.job.step("stopping Redis")
        self.live.saved()
        self._end(counts)
        _, written = self.files.times()
        if counts.keys and written < since - 1:
            raise AssetFailed(
                f"{self.server.name} did not save its data when it was stopped.",
                f"Look at the log of Redis and at the room in {self.server.directory}.",
            )
        return None

    def stop(self, state: State, *, save: bool) -> None:
        """Stop Redis on the way back, whatever state it is in; with `save` its data goes to its file if it can."""
        counts = self.live.now() if self.service.up else None
        if counts is not None:
            self.work.job.step("stopping Redis")
            if save:
                self.live.saved()
            if state.kept and counts.aof:
                self.live.turn_aof_off()  # it does not end while it writes its first append-only file
        self._end(counts)

    def config_off(self) -> None:
        """Let every start read the snapshot, until `Files.config_back`."""
        self.work.job.log(f"appendonly no, until it is loaded: {self.server.config}")
        self.files.config_off()

    def load_then_aof(self, wanted: Counts | None) -> None:
        """Start with the append-only file off, turn it on, let the configuration agree again, and stop."""
        self.files.config_off()
        counts = self.start(wanted, aof=None)
        self.work.job.step("writing the append-only file")
        self.work.job.log("redis-cli CONFIG SET appendonly yes")
        self.live.turn_aof_on()
        if not self.files.state().aof:
            raise AssetFailed(
                f"{self.server.name}: its append-only file is not where it should be.",
                f"Look at {self.server.directory} and the log of Redis.",
            )
        self.files.config_back()
        self.work.job.step("starting Redis again")
        self._end(counts)

    def start(self, wanted: Counts | None, *, aof: bool | None) -> Counts:
        """Start Redis, wait until its data is loaded, and compare it with what is wanted.

        Args:
            wanted: what it must hold, when that is known.
            aof: whether its append-only file must be on; None: either.
        """
        self.work.job.step("starting Redis")
        self.service.start(self.work.job.log)
        counts = self.live.loaded()
        self.work.job.log(f"{self.server.name}: {counts.keys} keys; {counts.expired_at_load} more had expired")
        if aof is not None and counts.aof != aof:
            raise AssetFailed(
                f"{self.server.name} runs with its append-only file {'on' if counts.aof else 'off'}, "
                f"which should be {'on' if aof else 'off'}.",
                "Let its configuration file and its unit agree on `appendonly`.",
            )
        if wanted is not None:
            why = missing(counts, wanted.keys, None if wanted.expires < 0 else wanted.expires)
            if why:
                raise AssetFailed(
                    f"{self.server.name} did not take the snapshot: {why}.",
                    "Choose another snapshot, or start Redis empty and let the feeds be built again.",
                )
        return counts

    def _end(self, counts: Counts | None) -> None:
        self.service.stop(counts.pid if counts else None, self.work.job.log)
