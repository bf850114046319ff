"""What each step of a database's restore does, undoes and forgets. Each may be called again after any cut."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from backends.assets.database_access import command, parameters, place_of, shown
from backends.connection.base import Connection
from backends.errors import AssetFailed
from backends.model import Asset
from backends.restore.base import Work
from backends.restore.database_admin import Admin, drop_database, find_admin
from backends.restore.database_check import compare
from backends.restore.database_load import Wanted, load_dump, workers
from backends.restore.database_names import identifier
from backends.restore.database_role import create_role_statement, shown_create_role
from backends.restore.database_settings import copy_attributes
from backends.restore.database_staging import unstage
from backends.restore.database_statements import execute, with_options
from backends.restore.database_swap import databases, exchange, reopen
from backends.restore.database_tools import Toolbox
from backends.untrusted import clean

_ROLE = "database.role"
_LOADED = "database.loaded"
_LIVE, _RESTORED = "database.live_oid", "database.restored_oid"


class Steps:
    """The steps of one restore, from the facts of its look."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        # Looking for the programs again for each step would lengthen the downtime.
        self._boxes: WeakKeyDictionary[Connection, Toolbox] = WeakKeyDictionary()
        self.live = str(facts["database"])
        self.restored = str(facts["restored"])
        self.before = str(facts["before"])

    # --- the role

    def create(self, work: Work) -> None:
        """Make Mastodon's role where it is missing."""
        admin = self._admin(work)
        if admin.role_exists:
            return
        place = place_of(work.target.installation)
        # Remembered first: a role that is there without it was not made by us.
        work.memory.set(_ROLE, place.user)
        work.job.log(f"$ {shown(('psql', '-c', shown_create_role(place.user, place.password)))}")
        execute(work.connection, admin.place, admin.psql, [create_role_statement(place.user, place.password)])

    def drop_role(self, work: Work) -> None:
        """Take the role back, unless something belongs to it."""
        role = work.memory.get(_ROLE)
        if not role or work.way != "rollback":
            return
        admin = self._admin(work)
        if admin.live is None:
            execute(work.connection, admin.place, admin.psql, [f"DROP ROLE IF EXISTS {identifier(str(role))}"])

    # --- the load

    def load(self, work: Work) -> None:
        """Fill a fresh database beside the live one; one that a cut left half-made is dropped first."""
        admin = self._admin(work)
        there = admin.databases.get(self.restored)
        if there is not None and there == work.memory.get(_LOADED):
            return
        self._clear(work, admin)
        source = work.sources[Asset.DATABASE]
        load_dump(
            work.connection,
            admin.place,
            database=self.restored,
            owner=str(self._facts["owner"]),
            source=source,
            job=work.job,
            staging=self._facts["staging"],
            wanted=Wanted(
                role=str(self._facts["role"]),
                privileges=bool(self._facts["privileges"]),
                workers=int(self._facts["workers"]),
                live_locale=admin.live.locale if admin.live else None,
                tablespace=str(self._facts["tablespace"]),
            ),
        )
        made = databases(work.connection, admin, [self.restored])
        work.memory.set(_LOADED, made[self.restored])

    def unload(self, work: Work) -> None:
        """Drop the half-made database and the staged file; an undo keeps the database."""
        admin = self._admin(work)
        if work.way == "undo" and admin.databases.get(self.restored) == work.memory.get(_LOADED):
            self._unstage(work, admin)
            return
        self._clear(work, admin)

    def forget_restored(self, work: Work) -> None:
        """After an undo: drop what the restore had brought."""
        self._clear(work, self._admin(work))

    def _clear(self, work: Work, admin: Admin) -> None:
        if self.restored in admin.databases:
            work.job.log(f"dropping {clean(self.restored, 100)}")
            drop_database(work.connection, admin, self.restored)
        self._unstage(work, admin)

    def _unstage(self, work: Work, admin: Admin) -> None:
        if self._facts["staging"]:
            unstage(work.connection, admin.place, str(self._facts["staging"]))

    # --- the proof

    def check(self, work: Work) -> None:
        """Compare rows, indexes and constraints with the manifest."""
        admin = self._admin(work)
        found = compare(work.connection, admin.at(self.restored), work.sources[Asset.DATABASE].manifest, work.job)
        for text in found:
            work.job.log(text)
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise AssetFailed(
                f"What was restored is not what the snapshot should hold: {found[0]}{more}.",
                "Restore another snapshot; the job's log names every difference.",
            )
        work.job.log("rows, indexes, constraints, sequences and functions are as the manifest says")

    def analyze(self, work: Work) -> None:
        """Give the planner its statistics, which no dump holds."""
        admin = self._admin(work)
        work.job.step("analysing")
        place = admin.at(self.restored)
        tools = self._facts["programs"]
        if not tools["vacuumdb"]:
            execute(work.connection, place, admin.psql, ["ANALYZE"], timeout=6 * 3600)
            return
        argv = (tools["vacuumdb"], *parameters(place), "--analyze-only", f"-j{self._workers}")
        work.job.log(f"$ {shown(argv)}")
        run = with_options(command(place, argv), statement_timeout="0", client_min_messages="error")
        with work.connection.start(run) as process, ExitStack() as stack:
            stack.callback(work.job.on_cancel(process.terminate))
            work.job.check_cancelled()
            process.close_stdin()
            status = process.wait()
            work.job.check_cancelled()
            if status != 0:
                said = process.stderr_tail().splitlines()
                raise AssetFailed(
                    f"vacuumdb failed on {work.connection.host}: {clean(said[-1] if said else 'it said nothing', 300)}",
                    "Look at PostgreSQL's own log there.",
                )

    @property
    def _workers(self) -> int:
        return workers(int(self._facts["workers"]))

    def settle(self, work: Work) -> None:
        """Give the restored database the live one's rights and settings."""
        work.job.step("copying rights and settings")
        copy_attributes(work.connection, self._admin(work), self.live, self.restored, work.job)

    # --- the swap

    def swap(self, work: Work) -> None:
        """Let the restored database take the live one's name."""
        admin = self._admin(work)
        there = databases(work.connection, admin, [self.live, self.restored, self.before])
        if self.restored not in there:
            if self.live in there and (self.before in there or not self._facts["exists"]):
                reopen(work.connection, admin, self.live)
                return
            raise AssetFailed(
                f"The restored database {clean(self.restored, 100)} is no longer there.", "Run the restore again."
            )
        if self.live in there and self.before in there:
            raise _three(self.live, self.restored, self.before)
        work.memory.set(_LIVE, there.get(self.live))
        work.memory.set(_RESTORED, there[self.restored])
        work.job.step("ending sessions and renaming")
        work.job.check_cancelled()
        moves = [(self.live, self.before)] if self.live in there else []
        exchange(work.connection, admin, [*moves, (self.restored, self.live)], work.job)

    def swap_back(self, work: Work) -> None:
        """Let the old database be the live one again; the restored one gets its own name back."""
        admin = self._admin(work)
        there = databases(work.connection, admin, [self.live, self.restored, self.before])
        moves: list[tuple[str, str]] = []
        if self.restored not in there and self.live in there and self._is_ours(work, there):
            moves.append((self.live, self.restored))
        if self.before in there and (moves or self.live not in there):
            moves.append((self.before, self.live))
        if self.before in there and not moves:
            raise _three(self.live, self.restored, self.before)
        if not moves:
            reopen(work.connection, admin, self.live)
            return
        work.job.step("ending sessions and renaming")
        exchange(work.connection, admin, moves, work.job)

    def _is_ours(self, work: Work, there: dict[str, int]) -> bool:
        """Whether the live database is the one that this restore brought."""
        known = work.memory.get(_RESTORED)
        if known is None:
            return False
        if there[self.live] == known:
            return True
        if self.before in there:
            raise AssetFailed(
                f"The database {clean(self.live, 100)} was replaced again since this restore; nothing was changed.",
                "Undo the later restore first.",
            )
        return False

    def forget_before(self, work: Work) -> None:
        """Drop the database that was live before."""
        admin = self._admin(work)
        if self.before in admin.databases and self.live in admin.databases:
            work.job.log(f"dropping {clean(self.before, 100)}")
            drop_database(work.connection, admin, self.before)

    def _admin(self, work: Work) -> Admin:
        # Whoever was found at the look: the staging directory is that user's.
        known = self._facts["admin"]
        prefer = (str(known["user"]), known["as_user"])
        box = self._boxes.get(work.connection)
        admin = find_admin(work.connection, place_of(work.target.installation), prefer=prefer, box=box)
        self._boxes[work.connection] = admin.box
        return admin


def _three(live: str, restored: str, before: str) -> AssetFailed:
    names = ", ".join(clean(name, 80) for name in (live, restored, before))
    return AssetFailed(
        f"{names} are all there, so which one is live cannot be told; nothing was changed.",
        "Rename or drop the one that is not needed by hand.",
    )
