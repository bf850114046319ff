"""The secrets: `.env.production` and what stands beside it, modes and owners kept."""

from __future__ import annotations

import io
import posixpath
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from backends.archive.manifest import Manifest
from backends.archive.snapshot import SnapshotWriter
from backends.assets.base import BackupContext, Outcome, Plan, Step
from backends.connection.base import Connection
from backends.errors import AssetFailed, DiscoveryFailed
from backends.mastodon.env_file import MAX_BYTES
from backends.mastodon.environment import Effective, effective
from backends.mastodon.fingerprint import DigestKey, changes, digest_key, fingerprint, key_digests
from backends.mastodon.host_files import FilesRead, FileState, HostFile, read_files
from backends.mastodon.installation import Installation, SecretFile
from backends.mastodon.key_check import KeyCheck, check_keys
from backends.mastodon.kinds import explain, require_supported
from backends.model import Asset, AssetObservation
from backends.untrusted import clean

OBJECT = "environment.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Secrets:
    """What was read of one installation, each file once."""

    files: tuple[tuple[HostFile, str], ...]
    left_out: tuple[str, ...]
    """Sentences on files beside the settings that could not be read."""
    settings: Effective
    check: KeyCheck
    key: DigestKey | None

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file, _ in self.files)

    @property
    def fingerprint(self) -> str | None:
        """The keyed digest of all files; None when one is missing, for then it would compare unlike things."""
        if self.key is None or self.left_out:
            return None
        return fingerprint(self.key, (file for file, _ in self.files))

    @property
    def warnings(self) -> tuple[str, ...]:
        open_files = tuple(
            f"{clean(file.path, 300)} may be read by everyone on the host (mode {file.mode:04o})"
            for file, form in self.files
            if form != "raw" and file.mode & 0o004
        )
        return (*self.check.warnings, *self.settings.warnings, *open_files, *self.left_out)


class SecretsHandler:
    """Settings and secrets of an installation."""

    asset: ClassVar[Asset] = Asset.SECRETS

    def probe(self, connection: Connection, installation: Installation) -> AssetObservation:
        """Read the files and look at the keys; the fingerprint says whether a copy still equals them.

        Raises:
            AssetFailed: the settings cannot be read.
            ConnectionFailed: the connection is gone.
        """
        if not installation.secret_files:
            return AssetObservation(asset=self.asset, present=False, detail=_absent(installation))
        found = _read(connection, installation)
        count = len(found.files)
        return AssetObservation(
            asset=self.asset,
            present=True,
            detail=f"{len(found.settings.values)} keys in {count} {'file' if count == 1 else 'files'}",
            bytes=found.bytes,
            fingerprint=found.fingerprint,
            warnings=found.warnings,
        )

    def plan_backup(self, connection: Connection, installation: Installation) -> Plan:
        """Read each file, compare, store."""
        blocked = explain(installation.kind)
        if blocked:
            blocked = f"Mastodon on {installation.host} {blocked}"
        elif not installation.secret_files:
            blocked = _absent(installation)
        steps = [Step(name="read", what=_about(file), command=_command(file)) for file in installation.secret_files]
        steps.append(Step(name="compare", what="with the newest copy, by keyed fingerprint; equal ones are not stored"))
        steps.append(Step(name="store", what=f"{OBJECT} with modes and owners, encrypted here"))
        return Plan(host=installation.host, asset=self.asset, steps=tuple(steps), blocked=blocked)

    def back_up(self, context: BackupContext, writer: SnapshotWriter) -> Outcome:
        """Store all files in one tar, unless the newest copy holds exactly the same.

        Raises:
            AssetFailed: the settings are not there or cannot be read.
            DiscoveryFailed: the installation is of a kind that is only recognised.
            CommandFailed, ConnectionFailed, VaultError: nothing was committed.
            Cancelled: the operator asked to stop.
        """
        job, installation = context.job, context.installation
        require_supported(installation)
        if not installation.secret_files:
            raise AssetFailed(_absent(installation), "Restore it from an older copy, or correct `root` for this host.")
        job.step("read settings", total=len(installation.secret_files), unit="files")
        found = _read(context.connection, installation)
        job.advance(len(found.files))
        for sentence in found.left_out:
            job.warn(sentence)
        job.check_cancelled()
        digest = found.fingerprint
        if digest is not None and context.previous and context.previous.facts.get("fingerprint") == digest:
            job.log(f"unchanged since {context.previous.id}")
            return Outcome(unchanged=context.previous.id)
        facts = _facts(installation, found)
        _log_changes(context, facts)
        content = tar_of([file for file, _ in found.files])
        job.step("store", total=len(content))
        writer.write(OBJECT, io.BytesIO(content), compress=False)
        job.advance(len(content))
        return Outcome(facts=facts)


HANDLER = SecretsHandler()


def tar_of(files: Sequence[HostFile]) -> bytes:
    """A tar of files with their modes, owners and times; paths without their leading slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            member = tarfile.TarInfo(posixpath.normpath(file.path).lstrip("/"))
            member.size, member.mode, member.mtime = len(file.content), file.mode, file.modified
            member.uid, member.gid, member.uname, member.gname = file.uid, file.gid, file.owner, file.group
            tar.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()


def _absent(installation: Installation) -> str:
    return f"{clean(installation.root, 300)}/.env.production does not exist on {installation.host}"


def _about(file: SecretFile) -> str:
    as_user = f", as {clean(file.read_as, 100)}" if file.read_as else ""
    return f"{clean(file.path, 300)} ({file.mode:04o} {clean(file.owner)}:{clean(file.group)}{as_user})"


def _command(file: SecretFile) -> str:
    return clean(shlex.join(("head", "-c", str(MAX_BYTES), "--", file.path)))


def _read(connection: Connection, installation: Installation) -> _Secrets:
    known = installation.secret_files
    users = [*(file.read_as for file in known), installation.user or None]
    read = read_files(connection, [file.path for file in known], users)
    kept: list[tuple[HostFile, str]] = []
    left_out: list[str] = []
    for each in known:
        file = read.files.get(each.path)
        if file is not None and file.state is FileState.READ:
            kept.append((file, each.format))
        elif each.format == "raw":
            left_out.append(f"{_why(connection, each, file, read)}; it is not in the copy")
        else:
            raise AssetFailed(_why(connection, each, file, read), _next_step(file))
    try:
        settings = effective([(file.path, form, file.content) for file, form in kept])
    except DiscoveryFailed as error:
        raise AssetFailed(error.sentence, error.next_step) from None
    # What a unit sets itself stands in no settings file, and is no missing key.
    everything = {**installation.environment, **settings.values}
    return _Secrets(
        files=tuple(kept),
        left_out=tuple(left_out),
        settings=settings,
        check=check_keys(installation.version, everything, settings.computed),
        key=digest_key(everything, settings.computed),
    )


def _why(connection: Connection, known: SecretFile, file: HostFile | None, read: FilesRead) -> str:
    path, host = clean(known.path, 300), connection.host
    state = file.state if file else FileState.ABSENT
    if state is FileState.ABSENT:
        return f"{path} was there and is gone on {host}"
    if state is FileState.LARGE and file is not None:
        return f"{path} on {host} is {file.bytes / 1e6:.1f} MB large; a settings file has a few kilobytes"
    if state.lacks_right:
        refused = f": {read.refusal}" if read.refusal else ""
        right = f"mode {known.mode:04o}, owner {clean(known.owner, 100)}:{clean(known.group, 100)}"
        return f"{path} on {host} cannot be read by {connection.login_user} ({right}){refused}"
    return f"{path} on {host} could not be read to its end"


def _next_step(file: HostFile | None) -> str:
    if file is not None and file.state.lacks_right:
        return f'Log in as {file.owner or "its owner"}, or set `become = "sudo"` for this host.'
    if file is not None and file.state is FileState.LARGE:
        return "Look at what is in it: a log or a dump may have been written there by mistake."
    return "Look at the file on the host and try again."


def _facts(installation: Installation, found: _Secrets) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "mastodon_version": clean(installation.version, 60),
        "files": [
            {
                "path": clean(file.path, 1000),
                "mode": f"{file.mode:04o}",
                "owner": file.owner,
                "group": file.group,
                "bytes": file.bytes,
                "format": form,
            }
            for file, form in found.files
        ],
        "keys": [clean(name, 200) for name in found.settings.values],
        "missing_keys": list(found.check.missing),
        "malformed_keys": list(found.check.malformed),
        "warnings": list(found.warnings),
    }
    if found.key is not None:
        facts["fingerprint_key"] = found.key.source
        facts["key_digests"] = key_digests(found.key, found.settings.values)
    if found.fingerprint is not None:
        facts["fingerprint"] = found.fingerprint
    return facts


def _log_changes(context: BackupContext, facts: Mapping[str, Any]) -> None:
    """Say which settings changed, by name."""
    before, after = _digests(context.previous), facts.get("key_digests", {})
    if not before or not after:
        return
    names = changes(before, after)
    if "SECRET_KEY_BASE" in names:
        context.job.log("SECRET_KEY_BASE changed, so which other settings did cannot be told")
    elif names:
        context.job.log(f"changed since {context.previous.id if context.previous else ''}: {', '.join(names)}")


def _digests(manifest: Manifest | None) -> dict[str, str]:
    found = manifest.facts.get("key_digests") if manifest else None
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}
