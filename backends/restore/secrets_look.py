"""The look before settings are restored: what changes, by name and never by value, and what stands in the way."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Literal

from backends.errors import ConnectionFailed, MastovaultError
from backends.mastodon.host_files import HostFile
from backends.mastodon.key_check import check_keys
from backends.model import Asset, Secret
from backends.restore.base import Target
from backends.restore.plan import Finding, Look, Space
from backends.restore.secrets_files import Probed, Spot, probe
from backends.restore.secrets_merge import machine_bound
from backends.restore.secrets_target import Own, Placed, after, own_settings, place, stored_files
from backends.restore.source import Source
from backends.untrusted import clean

DOMAIN = "domain"
"""The word that overrides a snapshot of another domain."""
KEYS = "keys"
"""The word that overrides settings without a secret that Mastodon does not start without."""
_SHOWN = 30


def look(target: Target, source: Source) -> Look:
    """Everything about the restore of settings, read-only.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    try:
        own = own_settings(target)
        placed, left = place(stored_files(source), target, own)
        probed = _probe(target, placed)
    except ConnectionFailed:
        raise
    except MastovaultError as error:
        return Look(findings=(_block(error.sentence, error.next_step),))
    seen = _Seen(target, own, placed, probed)
    findings = [
        *seen.differences(),
        *seen.identity(),
        *seen.machine(),
        *seen.keys(),
        *seen.places(),
        *seen.staying(),
        *(
            _note(
                f"{clean(path, 200)} in the snapshot is no settings file of this target: it is left out",
                "`mastovault restore --to DIR` writes it as a file here.",
            )
            for path in left
        ),
    ]
    blocked = any(finding.level == "block" and not finding.accept for finding in findings)
    return Look(
        facts={} if blocked else seen.facts(),
        findings=tuple(findings),
        spaces=seen.spaces(),
        lost=seen.lost(),
    )


def differing(before: Mapping[str, Secret], now: Mapping[str, Secret]) -> tuple[list[str], list[str], list[str]]:
    """Names that are only in `now`, only in `before`, and in both with another value."""
    return (
        sorted(name for name in now if name not in before),
        sorted(name for name in before if name not in now),
        sorted(name for name in now if name in before and now[name] != before[name]),
    )


def _probe(target: Target, placed: Sequence[Placed]) -> Probed:
    names = [name for each in placed for name in (each.file.owner, each.file.group)]
    names.append(target.installation.user)
    return probe(target.connection, [each.path for each in placed], names, target.root)


class _Seen:
    """The snapshot beside the target."""

    def __init__(self, target: Target, own: Own, placed: list[Placed], probed: Probed) -> None:
        self._target, self._own, self._placed, self._probed = target, own, placed, probed
        self._before = own.settings.values
        self._after = after(placed, own)
        self._added, self._removed, self._changed = differing(self._before, self._after.values)

    def facts(self) -> dict[str, object]:
        """What the steps are made from; nothing secret."""
        files = []
        dirs: list[str] = []
        for each in self._placed:
            spot = self._spot(each)
            directory = posixpath.dirname(spot.path)
            for _ in range(spot.missing):
                dirs.insert(0, directory)
                directory = posixpath.dirname(directory)
            owner, group = self._owner(each.file)
            files.append(
                {
                    "stored": each.file.path,
                    "path": spot.path,
                    "mode": f"{each.file.mode:04o}",
                    "owner": owner,
                    "group": group,
                    "exists": spot.kind == "file",
                    "bytes": len(each.content),
                }
            )
        return {
            "files": files,
            "dirs": sorted(set(dirs)),
            "reload": any(each.form == "raw" for each in self._placed),
            "as_user": self._target.root,
        }

    def differences(self) -> list[Finding]:
        """What changes, by name."""
        if not self._own.any:
            return [_note(f"there are no settings yet: {len(self._after.values)} keys come with the snapshot", "")]
        told = []
        for names, one, many in (
            (self._changed, "gets the snapshot's value", "get the snapshot's values"),
            (self._added, "comes back", "come back"),
            (self._removed, "is not in the snapshot and goes", "are not in the snapshot and go"),
        ):
            if names:
                words = f"1 setting {one}" if len(names) == 1 else f"{len(names)} settings {many}"
                told.append(_note(f"{words}: {_listed(names)}", ""))
        return told or [_ok("the settings on the target are those of the snapshot")]

    def identity(self) -> list[Finding]:
        """Another domain, or a server that is being shut down for good."""
        found = []
        now, then = (self._domain(values) for values in (self._before, self._after.values))
        if self._own.any and now and then and now != then:
            text = f"the snapshot is of {then}, and this Mastodon is {now} (LOCAL_DOMAIN): it would be another server"
            found.append(_block(text, f"Restore to a host of {then}.", accept=DOMAIN))
        if self._after.values.get("SELF_DESTRUCT"):
            text = "SELF_DESTRUCT is set in the snapshot: Mastodon would go on deleting itself from all other servers"
            found.append(_block(text, "Choose an older snapshot of the settings."))
        return found

    def machine(self) -> list[Finding]:
        """Where the database, Redis and media are."""
        names = [name for name in (*self._changed, *self._added, *self._removed) if machine_bound(name)]
        if not self._target.same_host and self._own.any:
            return [_ok("where the database, Redis and media are stays as the target's own settings say")]
        if not self._target.same_host and any(each.content != each.file.content for each in self._placed):
            return [_ok("where the database and Redis are is written as the configuration of this host says")]
        if not self._target.same_host:
            bound = sorted(name for name in self._after.values if machine_bound(name))
            text = f"the settings of another machine say where the database and Redis are: {_listed(bound)}"
            return [_note(text, "Look whether they are right on the target.")] if bound else []
        if names and self._own.any:
            text = f"Mastodon will look for its database, Redis or media as the snapshot says: {_listed(sorted(names))}"
            return [_note(text, "Look whether that still holds: a password may have been changed since.")]
        return []

    def keys(self) -> list[Finding]:
        """Secrets that are missing or malformed."""
        values = {**self._target.installation.environment, **self._after.values}
        if self._own.any:
            for name in self._removed:
                values.pop(name, None)
        check = check_keys(self._target.installation.version, values, self._after.computed)
        found = [_note(f"in the snapshot {text}", "") for text in check.warnings if "SELF_DESTRUCT" not in text]
        # Without the keys of web push it starts all the same.
        needed = [name for name in check.missing if not name.startswith("VAPID")]
        worse = [name for name in needed if self._before.get(name) or not self._own.any]
        if worse:
            text = f"Mastodon does not start without {_listed(worse)}, and the snapshot has none"
            found.append(_block(text, "Choose a newer snapshot of the settings.", accept=KEYS))
        return found

    def places(self) -> list[Finding]:
        """Rights, owners and room."""
        found = []
        who = self._target.root or self._target.connection.login_user
        for each in self._placed:
            spot = self._spot(each)
            where = clean(spot.path, 200)
            if spot.kind == "other":
                found.append(_block(f"{where} is no file on the target", "Look at what is there, and move it away."))
            if not spot.writable:
                text = f"{who} may not write into {clean(posixpath.dirname(spot.path), 200)}"
                found.append(_block(text, 'Set `become = "sudo"` for this host, or log in as root.'))
            elif who != "root" and self._owner(each.file)[0] != who:
                text = f"{who} cannot give {where} to {self._owner(each.file)[0]}, whose it must be"
                found.append(_block(text, 'Set `become = "sudo"` for this host, or log in as root.'))
            if spot.free is not None and spot.free < len(each.content) + 4096:
                found.append(_block(f"there is no room for {where}", "Free some space there."))
            if spot.path != each.path:
                found.append(_note(f"{clean(each.path, 200)} is a link to {where}, which is replaced", ""))
            found += self._ownership(each, spot)
        return found

    def _ownership(self, each: Placed, spot: Spot) -> list[Finding]:
        owner, group = self._owner(each.file)
        where = clean(spot.path, 200)
        if owner not in self._probed.users:
            way_out = f"Make it first: adduser --disabled-password --gecos Mastodon {owner}"
            return [_block(f"there is no user {owner} on the target, whose {where} must be", way_out)]
        found = []
        if (owner, group) != (each.file.owner, each.file.group):
            text = f"{each.file.owner}:{each.file.group}, whose {where} was, is not on the target: {owner}:{group} is"
            found.append(_note(text, ""))
        if each.form != "raw" and each.file.mode & 0o004:
            text = f"{where} may be read by everyone on the host, as in the snapshot (mode {each.file.mode:04o})"
            found.append(_note(text, f"chmod 600 {where}"))
        return found

    def staying(self) -> list[Finding]:
        """Settings files that the snapshot does not hold, and which win."""
        paths = {each.path for each in self._placed}
        found = []
        alone = after(self._placed, Own((), self._own.settings)).values
        for file, form in self._own.files:
            if file.path in paths or form == "raw":
                continue
            won = sorted(
                name for name, value in alone.items() if self._after.values.get(name) != value
            )  # fmt: skip
            also = f"; it wins over the snapshot in {_listed(won)}" if won else ""
            text = f"{clean(file.path, 200)} is not in the snapshot and stays{also}"
            found.append(_note(text, "Move it away when the snapshot's settings shall count." if won else ""))
        return found

    def spaces(self) -> tuple[Space, ...]:
        """Room for the files."""
        needs: dict[str, tuple[int, int | None]] = {}
        for each in self._placed:
            spot = self._spot(each)
            directory = clean(posixpath.dirname(spot.path), 300)
            need, _ = needs.get(directory, (0, None))
            needs[directory] = (need + len(each.content), spot.free)
        return tuple(
            Space(what="settings beside those that are there", path=path, need=need, free=free)
            for path, (need, free) in needs.items()
        )

    def lost(self) -> tuple[str, ...]:
        """What the target has and the snapshot has not."""
        names = sorted([*self._changed, *self._removed])
        return (f"the present values of the settings {_listed(names)}",) if names and self._own.any else ()

    def _spot(self, each: Placed) -> Spot:
        return self._probed.spots[each.path]

    def _owner(self, file: HostFile) -> tuple[str, str]:
        """Owner and group as the target knows them: those that it lacks become Mastodon's user."""
        user = self._target.installation.user
        owner = file.owner if file.owner in self._probed.users else user
        if file.group in self._probed.groups:
            return owner, file.group
        return owner, owner if owner in self._probed.groups else "root"

    def _domain(self, values: Mapping[str, Secret]) -> str:
        found = values.get("LOCAL_DOMAIN")
        return clean(found.reveal().strip(), 253) if found else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(clean(name, 80) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _finding(level: Literal["ok", "note", "block"], text: str, way_out: str, accept: str = "") -> Finding:
    return Finding(level=level, text=text, way_out=way_out, asset=Asset.SECRETS, accept=accept)


def _ok(text: str) -> Finding:
    return _finding("ok", text, "")


def _note(text: str, way_out: str) -> Finding:
    return _finding("note", text, way_out)


def _block(text: str, way_out: str, accept: str = "") -> Finding:
    return _finding("block", text, way_out, accept)
