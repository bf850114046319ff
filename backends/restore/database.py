"""The database's part of a restore: beside the live one, proven, swapped in by renaming, undone by renaming back."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from backends.assets.database_access import parameters, shown
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.model import Asset
from backends.restore.base import Action, Target
from backends.restore.database_load import restore_argv
from backends.restore.database_look import look as look_at
from backends.restore.database_names import identifier
from backends.restore.database_staging import FILE, shown_keep
from backends.restore.database_steps import Steps
from backends.restore.database_swap import rename_statement
from backends.restore.plan import Finding, Look, Phase, RestoreRequest, StepInfo
from backends.restore.source import Source
from backends.untrusted import clean


class DatabasePart:
    """PostgreSQL."""

    asset: ClassVar[Asset | None] = Asset.DATABASE

    def look(self, request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
        """Versions, rights, room, collation, code, and what is lost since the snapshot.

        Raises:
            ConnectionFailed: the connection is gone.
        """
        try:
            return look_at(request, target, sources[Asset.DATABASE])
        except AssetFailed as error:
            found = Finding(level="block", text=error.sentence, way_out=error.next_step, asset=Asset.DATABASE)
            return Look(findings=(found,))

    def actions(self, request: RestoreRequest, facts: Mapping[str, Any]) -> Sequence[Action]:
        """The role where it is missing, load, check, statistics, rights and settings, swap."""
        if "database" not in facts:
            return ()
        known = dict(facts)
        steps, infos = Steps(known), _Infos(known)
        made = [Action(info=infos.create(), do=steps.create, undo=steps.drop_role)] if known["create_role"] else []
        made += [
            Action(info=infos.load(), do=steps.load, undo=steps.unload, forget=steps.forget_restored),
            Action(info=infos.check(), do=steps.check),
            Action(info=infos.analyze(), do=steps.analyze),
        ]
        if known["exists"]:
            made.append(Action(info=infos.settle(), do=steps.settle))
        made.append(Action(info=infos.swap(), do=steps.swap, undo=steps.swap_back, forget=steps.forget_before))
        return made


class _Infos:
    """How the plan shows the steps."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        admin = facts["admin"]
        self._place = DatabasePlace(
            host=str(admin["host"]), port=int(admin["port"]), name=str(admin["name"]), user=str(admin["user"])
        )
        self._as_user = admin["as_user"]
        self._programs = facts["programs"]
        self._seconds: Mapping[str, float] = facts["seconds"]

    def create(self) -> StepInfo:
        """The role."""
        role = identifier(str(self._facts["owner"]))
        return self._info(
            "create",
            Phase.STAGE,
            "make the role",
            f"the role {clean(str(self._facts['owner']), 100)}, with the password of the target's settings",
            (self._sql(f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD …"),),
            1.0,
        )

    def load(self) -> StepInfo:
        """The load."""
        restored, staging = str(self._facts["restored"]), self._facts["staging"]
        count = int(self._facts["workers"]) if staging else 1
        argv = restore_argv(
            self._named(restored),
            str(self._programs["pg_restore"]),
            restored,
            str(self._facts["role"]),
            workers=count,
            privileges=bool(self._facts["privileges"]),
        )
        how = f"with {count} workers from a staged file" if staging else "streamed, with one worker"
        stays = "the site stays up" if self._facts["exists"] else "there is none yet"
        packed = bool(self._facts["compressed"])
        if staging:
            path = posixpath.join(str(staging), FILE)
            lines = [
                f"… | {shown_keep(str(staging), zstd=packed)}",
                self._typed((*argv, path)),
                f"rm {shlex.quote(path)}",
            ]
        else:
            lines = [f"… | {'zstd -d -c | ' if packed else ''}{self._typed(argv)}"]
        return self._info(
            "load",
            Phase.STAGE,
            "restore beside",
            f"new database {clean(restored, 100)}, {how}; {stays}",
            (self._sql(str(self._facts["create"])), *lines),
            self._seconds["load"],
        )

    def check(self) -> StepInfo:
        """The comparison."""
        return self._info(
            "check",
            Phase.PROVE,
            "compare",
            "rows, indexes, constraints, sequences and functions against the manifest",
            (self._typed((self._program("psql"), *parameters(self._named(str(self._facts["restored"]))))),),
            self._seconds["check"],
        )

    def analyze(self) -> StepInfo:
        """The statistics."""
        place = self._named(str(self._facts["restored"]))
        if self._programs["vacuumdb"]:
            count = int(self._facts["workers"])
            line = self._typed((self._program("vacuumdb"), *parameters(place), "--analyze-only", f"-j{count}"))
        else:
            line = self._typed((self._program("psql"), *parameters(place), "-c", "ANALYZE"))
        what = "statistics for the planner, which no dump holds"
        return self._info("analyze", Phase.PROVE, "analyse", what, (line,), self._seconds["analyze"])

    def settle(self) -> StepInfo:
        """Rights and settings."""
        live, restored = (clean(str(self._facts[name]), 100) for name in ("database", "restored"))
        return self._info(
            "settings",
            Phase.PROVE,
            "copy settings",
            f"rights to connect and settings of {live} for {restored}",
            (self._sql(f"GRANT …, ALTER DATABASE {identifier(str(self._facts['restored']))} SET … as of {live}"),),
            1.0,
        )

    def swap(self) -> StepInfo:
        """The renames."""
        live, restored, before = (str(self._facts[name]) for name in ("database", "restored", "before"))
        kept = f"{clean(live, 80)} becomes {clean(before, 100)}, " if self._facts["exists"] else ""
        renames = [rename_statement(live, before)] if self._facts["exists"] else []
        renames.append(rename_statement(restored, live))
        statement = "; ".join(("BEGIN", *renames, "COMMIT"))
        return self._info(
            "swap",
            Phase.SWAP,
            "swap",
            f"sessions are ended; {kept}{clean(restored, 100)} becomes {clean(live, 80)}",
            (self._sql(statement),),
            self._seconds["swap"],
        )

    def _named(self, database: str) -> DatabasePlace:
        place = self._place
        return DatabasePlace(host=place.host, port=place.port, name=database, user=place.user)

    def _program(self, name: str) -> str:
        return str(self._programs[name])

    def _sql(self, statement: str) -> str:
        return self._typed((self._program("psql"), *parameters(self._place), "-c", statement))

    def _typed(self, argv: Sequence[str]) -> str:
        line = shown(tuple(argv))
        return f"sudo -u {shlex.quote(str(self._as_user))} {line}" if self._as_user else line

    def _info(
        self, verb: str, phase: Phase, name: str, what: str, commands: tuple[str, ...], seconds: float
    ) -> StepInfo:
        return StepInfo(
            id=f"database.{verb}",
            asset=Asset.DATABASE,
            phase=phase,
            name=name,
            what=what,
            commands=commands,
            seconds=seconds,
        )


PART = DatabasePart()
