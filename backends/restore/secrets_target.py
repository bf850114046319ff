"""Whose settings are on the target now, which files of a snapshot go where, and what will count afterwards."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backends.errors import Damaged
from backends.mastodon.environment import DOTENV_NAMES, Effective
from backends.mastodon.host_files import FileState, HostFile, read_files
from backends.model import Asset, Secret
from backends.restore.base import Target, Work
from backends.restore.secrets_configured import configured
from backends.restore.secrets_merge import merge
from backends.restore.secrets_source import format_of, read_environment_tar, settings_of
from backends.restore.source import Source

MAIN = ".env.production"
_DEFAULTS = re.compile(r"/etc/(?:default|sysconfig|conf\.d)/[A-Za-z0-9_.@-]*mastodon[A-Za-z0-9_.@-]*")
_DROP_IN = re.compile(r"/etc/systemd/system/(?P<unit>[A-Za-z0-9_.@:-]+\.service)\.d/[A-Za-z0-9_.@-]+\.conf")
# What a drop-in may set without becoming more than settings: a vault must not be able to run programs as root.
_SETS = re.compile(
    r"(?:Pass|Unset)?Environment(?:File)?|ReadWritePaths|Limit\w+|Restart\w*|Timeout\w+|OOM\w+|Memory\w+"
)


@dataclass(frozen=True, slots=True)
class Placed:
    """One file of a snapshot, where it goes on the target, and what will be in it."""

    file: HostFile
    form: str
    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Own:
    """The settings files that are on the target now, and what they say."""

    files: tuple[tuple[HostFile, str], ...]
    settings: Effective

    @property
    def any(self) -> bool:
        """Whether the target has settings of its own."""
        return any(form != "raw" for _, form in self.files)


def own_settings(target: Target) -> Own:
    """Read the target's settings; what cannot be read counts as not there.

    Raises:
        AssetFailed: a file is larger than a settings file can be.
        ConnectionFailed: the connection is gone.
    """
    known = () if target.bare else target.installation.secret_files
    users = [*(file.read_as for file in known), target.installation.user or None, target.root]
    read = read_files(target.connection, [file.path for file in known], users) if known else None
    files: list[tuple[HostFile, str]] = []
    for each in known:
        file = read.files.get(each.path) if read else None
        if file is not None and file.state is FileState.READ:
            files.append((file, each.format))
    return Own(tuple(files), settings_of((file.path, form, file.content) for file, form in files))


def stored_files(source: Source) -> list[tuple[HostFile, str]]:
    """The files of a snapshot with their formats, from the first vault that gives good bytes.

    Raises:
        AssetFailed, Damaged, KeyUnavailable, VaultError: as `read_environment_tar`.
    """
    while True:
        try:
            files = read_environment_tar(source)
        except Damaged as error:
            if not source.give_up_copy(error):
                raise
            continue
        return [(file, format_of(file.path, source.manifest.facts)) for file in files]


def place(files: Iterable[tuple[HostFile, str]], target: Target, own: Own) -> tuple[list[Placed], list[str]]:
    """Which files go where, and sentences on those that are left out.

    Raises:
        AssetFailed: settings cannot be joined with the machine's own.
    """
    placed: list[Placed] = []
    left: list[str] = []
    files = list(files)
    known = _known(files, target, own)
    for file, form in files:
        path = _path(file, form, target)
        if path is None:
            left.append(file.path)
            continue
        content = file.content
        if known is not None:
            main = posixpath.basename(path) == MAIN
            content = merge(content, known, form=form, add=main and form == "dotenv")
        placed.append(Placed(file, form, path, content))
    return placed, left


def _known(files: Iterable[tuple[HostFile, str]], target: Target, own: Own) -> Mapping[str, Secret] | None:
    """The settings of a machine that win over those of the snapshot; None when the snapshot's stay as they are."""
    if target.same_host:
        return None
    if own.any:
        return own.settings.values
    stored = settings_of((file.path, form, file.content) for file, form in files)
    return configured(target.installation, stored.values)


def _path(file: HostFile, form: str, target: Target) -> str | None:
    """Where a file goes; None for one that is no settings file of this target."""
    name = posixpath.basename(file.path)
    if form == "dotenv":
        return posixpath.join(target.installation.root, name) if name in DOTENV_NAMES else None
    if form == "raw" and not only_settings(file.content):
        return None
    if file.path in {known.path for known in target.installation.secret_files if known.format == form}:
        return file.path
    if form == "systemd":
        return file.path if _DEFAULTS.fullmatch(file.path) else None
    match = _DROP_IN.fullmatch(file.path)
    ours = match and (match["unit"] in target.installation.units or match["unit"].startswith("mastodon"))
    return file.path if ours else None


def only_settings(drop_in: bytes) -> bool:
    """Whether a drop-in of a unit sets nothing but its environment and limits."""
    joined = re.sub(r"\\\r?\n", " ", drop_in.decode("utf-8", "replace"))
    lines = (line.strip() for line in joined.splitlines())
    wanted = (line for line in lines if line and line[0] not in "#;")
    return all(
        line == "[Service]" or ("=" in line and _SETS.fullmatch(line.partition("=")[0].strip()) is not None)
        for line in wanted
    )


def after(placed: Iterable[Placed], own: Own) -> Effective:
    """What will count when the files are in place: theirs, and those of files that stay."""
    files = {file.path: (form, file.content) for file, form in own.files}
    files.update({each.path: (each.form, each.content) for each in placed})
    return settings_of((path, form, content) for path, (form, content) in files.items())


def serving(work: Work) -> dict[str, Secret]:
    """The settings that will serve the restored database: those of the restore, else the target's own.

    Raises:
        AssetFailed, Damaged, VaultError: the restored ones cannot be read.
    """
    return serving_settings(work.target, work.sources.get(Asset.SECRETS))


def serving_settings(target: Target, source: Source | None) -> dict[str, Secret]:
    """As `serving`, before there is any work."""
    live: Mapping[str, Secret] = target.installation.environment
    if source is None:
        return dict(live)
    own = own_settings(target)
    placed, _ = place(stored_files(source), target, own)
    # A name that only a unit sets is in no file.
    restored = after(placed, own).values
    ours = own.settings.values
    return {**{name: value for name, value in live.items() if name not in ours}, **restored}
