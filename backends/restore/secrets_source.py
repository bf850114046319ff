"""The settings in a snapshot: read and decrypted in memory only, from a tar that nobody vouches for."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from backends.archive.manifest import Manifest
from backends.assets.secrets import OBJECT
from backends.errors import AssetFailed, DiscoveryFailed
from backends.mastodon.env_file import MAX_BYTES
from backends.mastodon.environment import DOTENV_NAMES, Effective, effective
from backends.mastodon.host_files import FileState, HostFile
from backends.restore.source import Source
from backends.untrusted import clean

MAX_FILES = 100
_MAX_TAR = 24 * MAX_BYTES
_MAX_PATH = 4096
FORMATS = ("systemd", "dotenv", "raw")


def read_environment_tar(source: Source) -> list[HostFile]:
    """The files of a snapshot of settings, with absolute paths, modes and owners, in the order they were stored.

    Raises:
        AssetFailed: the snapshot holds no settings, or not what a backup writes.
        Damaged, KeyUnavailable, VaultError: as `Source.open`.
    """
    entry = source.entry(OBJECT)
    if entry is None:
        raise AssetFailed(f"{source.manifest.id} holds no settings.", "Choose another snapshot.")
    with closing(source.open(entry)) as stream:
        content = stream.read(_MAX_TAR + 1)
        if len(content) > _MAX_TAR:
            raise _no_settings(source.manifest, "it is larger than settings can be")
        # Only at its end are the bytes known to be those that were stored.
        stream.read(1)
    return files_of(content, source.manifest)


def files_of(content: bytes, manifest: Manifest) -> list[HostFile]:
    """The files in a tar. Raises `AssetFailed` for one that no backup of settings writes."""
    found: dict[str, HostFile] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                if len(found) == MAX_FILES:
                    raise _no_settings(manifest, f"it holds more than {MAX_FILES} files")
                file = _file(tar, member, manifest)
                if file.path in found:
                    raise _no_settings(manifest, f"it holds {clean(file.path, 200)} twice")
                found[file.path] = file
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError, RecursionError, MemoryError):
        raise _no_settings(manifest, "its tar cannot be read") from None
    if not found:
        raise _no_settings(manifest, "it is empty")
    return list(found.values())


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo, manifest: Manifest) -> HostFile:
    shown = clean(member.name, 200)
    if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.sparse is not None:
        raise _no_settings(manifest, f"{shown} in it is no plain file")
    path = f"/{member.name}"
    unfit = any(character < " " or character == "\x7f" for character in path)
    unfit = unfit or path.startswith("//")
    if unfit or len(path) > _MAX_PATH or posixpath.normpath(path) != path or not posixpath.basename(path):
        raise _no_settings(manifest, f"{shown} in it is no path of a file")
    if member.size > MAX_BYTES:
        raise _no_settings(manifest, f"{shown} in it is larger than a settings file can be")
    stored = tar.extractfile(member)
    body = stored.read() if stored else b""
    if len(body) != member.size:
        raise _no_settings(manifest, f"{shown} in it is cut off")
    return HostFile(
        path=path,
        state=FileState.READ,
        content=body,
        mode=member.mode & 0o777,
        bytes=len(body),
        uid=member.uid,
        gid=member.gid,
        owner=clean(member.uname, 100) or str(member.uid),
        group=clean(member.gname, 100) or str(member.gid),
        modified=int(member.mtime),
    )


def _no_settings(manifest: Manifest, why: str) -> AssetFailed:
    return AssetFailed(
        f"{manifest.id} is no snapshot of settings as a backup writes it: {why}.",
        "Choose another snapshot, and look who may write to the vault.",
    )


def format_of(path: str, facts: Mapping[str, Any]) -> str:
    """How a file is to be read: as the manifest says, else by its name."""
    files = facts.get("files")
    for each in files if isinstance(files, list) else ():
        if isinstance(each, dict) and each.get("path") == clean(path, 1000) and each.get("format") in FORMATS:
            return str(each["format"])
    return "dotenv" if posixpath.basename(path) in DOTENV_NAMES else "raw"


def settings_of(files: Iterable[tuple[str, str, bytes]]) -> Effective:
    """The settings that count in some files (path, format, content), in whichever order they come.

    Raises:
        AssetFailed: a file is larger than a settings file can be.
    """
    try:
        return effective(sorted(files, key=_load_order))
    except DiscoveryFailed as error:
        raise AssetFailed(error.sentence, error.next_step) from None


def _load_order(file: tuple[str, str, bytes]) -> tuple[int, int]:
    name = posixpath.basename(file[0])
    return FORMATS.index(file[1]), DOTENV_NAMES.index(name) if name in DOTENV_NAMES else len(DOTENV_NAMES)


def environment_of(source: Source) -> Effective:
    """The settings in a snapshot as Mastodon would see them. Raises as `read_environment_tar`."""
    facts = source.manifest.facts
    return settings_of((file.path, format_of(file.path, facts), file.content) for file in read_environment_tar(source))
