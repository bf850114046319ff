"""The settings' part of a restore: a diff by name, staged beside, put in place by renaming, the old ones kept."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from backends.connection.base import Command
from backends.errors import AssetFailed
from backends.model import Asset
from backends.restore.base import Action, Target, Work
from backends.restore.plan import Look, Phase, RestoreRequest, StepInfo
from backends.restore.secrets_files import Files, before_path, staged_path
from backends.restore.secrets_look import look
from backends.restore.secrets_target import own_settings, place, stored_files
from backends.restore.source import Source
from backends.untrusted import clean


class SecretsPart:
    """`.env.production` and what stands beside it."""

    asset: ClassVar[Asset | None] = Asset.SECRETS

    def look(self, request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
        """See the contract."""
        return look(target, sources[Asset.SECRETS])

    def actions(self, request: RestoreRequest, facts: Mapping[str, Any]) -> Sequence[Action]:
        """Stage, swap."""
        if not facts.get("files"):
            return ()
        steps = _Steps(dict(facts))
        return (
            Action(info=_stage_info(facts, request.id), do=steps.stage, undo=steps.unstage, forget=steps.forget_staged),
            Action(info=_swap_info(facts, request.id), do=steps.swap, undo=steps.swap_back, forget=steps.forget_before),
        )


class _Steps:
    """What the steps do, from the facts of the look."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def stage(self, work: Work) -> None:
        """Write every file beside its place; values are in memory and on stdin only."""
        files = self._files(work)
        placed, _ = place(stored_files(work.sources[Asset.SECRETS]), work.target, own_settings(work.target))
        contents = {each.file.path: each.content for each in placed}
        work.job.step("staging the settings", total=len(self._facts["files"]), unit="files")
        for file in self._facts["files"]:
            work.job.check_cancelled()
            content = contents.get(str(file["stored"]))
            if content is None:
                raise AssetFailed(
                    f"{clean(str(file['stored']), 200)} is not in the snapshot any more, or not for this target.",
                    "Run the restore again.",
                )
            work.job.log(f"cat >{clean(staged_path(str(file['path']), work.request.id), 300)}")
            files.stage(file, content)
            work.job.advance(1)

    def unstage(self, work: Work) -> None:
        """Remove what was staged; an undo keeps what the restore had brought."""
        if work.way == "rollback":
            self._files(work).remove_staged(dirs=True)

    def forget_staged(self, work: Work) -> None:
        """Remove what an undo kept."""
        self._files(work).remove_staged(dirs=False)

    def swap(self, work: Work) -> None:
        """Put the staged files in place."""
        work.job.step("putting the settings in place")
        for file in self._facts["files"]:
            path = str(file["path"])
            work.job.log(f"mv {clean(staged_path(path, work.request.id), 300)} {clean(path, 300)}")
        self._files(work).swap()
        self._reload(work)

    def swap_back(self, work: Work) -> None:
        """Put the old files back."""
        work.job.step("putting the old settings back")
        self._files(work).back()
        self._reload(work)

    def forget_before(self, work: Work) -> None:
        """Give up the old files."""
        self._files(work).remove_before()

    def _files(self, work: Work) -> Files:
        return Files(work.target, self._facts, work.request.id)

    def _reload(self, work: Work) -> None:
        """Let systemd read a unit's drop-in anew."""
        if not self._facts.get("reload"):
            return
        work.job.log("systemctl daemon-reload")
        command = Command(("systemctl", "daemon-reload"), as_user=work.target.root)
        done = work.connection.run(command)
        if done.status != 0:
            said = clean(done.stderr, 300).strip() or f"status {done.status}"
            raise AssetFailed(f"systemctl daemon-reload failed on {work.connection.host}: {said}", "Run it by hand.")


def _stage_info(facts: Mapping[str, Any], mark: str) -> StepInfo:
    commands: list[str] = [f"mkdir -p {shlex.quote(str(directory))}" for directory in facts.get("dirs", ())]
    for file in facts["files"]:
        path = shlex.quote(staged_path(str(file["path"]), mark))
        commands.append(f"(umask 077; cat >{path})")
        commands.append(f"chown {file['owner']}:{file['group']} {path} && chmod {file['mode']} {path}")
    return StepInfo(
        id="secrets.stage",
        asset=Asset.SECRETS,
        phase=Phase.STAGE,
        name="stage settings",
        what=f"{_names(facts)} beside, with mode and owner",
        commands=tuple(commands),
        seconds=1.0,
    )


def _swap_info(facts: Mapping[str, Any], mark: str) -> StepInfo:
    commands: list[str] = []
    for file in facts["files"]:
        path = str(file["path"])
        if file["exists"]:
            commands.append(shlex.join(("ln", path, before_path(path, mark))))
        commands.append(shlex.join(("mv", staged_path(path, mark), path)))
    if facts.get("reload"):
        commands.append("systemctl daemon-reload")
    kept = "the old one kept beside" if any(file["exists"] for file in facts["files"]) else "there was none"
    return StepInfo(
        id="secrets.swap",
        asset=Asset.SECRETS,
        phase=Phase.SWAP,
        name="swap settings",
        what=f"{_names(facts)} in place by renaming, {kept}",
        commands=tuple(commands),
        seconds=0.5,
    )


def _names(facts: Mapping[str, Any]) -> str:
    return clean(", ".join(str(file["path"]) for file in facts["files"]), 300)


PART = SecretsPart()
