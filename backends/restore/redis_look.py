"""The look before Redis is restored: which server takes which snapshot, and what stands in the way. Read-only."""

from __future__ import annotations

from collections.abc import Mapping

from backends.archive.manifest import Manifest
from backends.assets.redis import Depths, depths_of
from backends.assets.redis_client import where
from backends.errors import AssetFailed, BecomeRefused
from backends.model import Asset
from backends.restore.base import Target
from backends.restore.plan import Finding, Look, RedisChoice, RestoreRequest, Space
from backends.restore.redis_disk import look_at_disk
from backends.restore.redis_files import EMPTY_RDB
from backends.restore.redis_moment import moment
from backends.restore.redis_place import Facts, Server
from backends.restore.redis_saved import SavedServer, can_read, not_newer, readable, saved_servers
from backends.restore.redis_seen import Seen, find_servers
from backends.restore.source import Source
from backends.untrusted import clean

_EMPTY_INSTEAD = "Or let Redis start empty: the feeds are built again from the database."
SHARED = "shared"
"""The word that overrides a server which others use as well."""


def look(request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
    """Look at Redis on the target. Raises `ConnectionFailed`."""
    if Asset.REDIS not in request.assets:
        return Look()
    empty = request.redis is RedisChoice.EMPTY
    source = None if empty else sources.get(Asset.REDIS)
    if not empty and source is None:
        return Look(findings=(_block("There is no snapshot of Redis to restore.", "Choose one, or start empty."),))
    try:
        seen = find_servers(target)
        pairs = _pair(seen, source.manifest) if source else [(one, None) for one in seen]
        examined = [_Examined(target, one, saved) for one, saved in pairs]
    except (AssetFailed, BecomeRefused) as error:
        way_out = (
            error.next_step if empty else f"{error.next_step} {_EMPTY_INSTEAD if isinstance(error, _Mismatch) else ''}"
        )
        return Look(findings=(_block(error.sentence, way_out.strip()),))
    findings = [finding for one in examined for finding in one.findings]
    findings.append(moment(request, sources, source))
    blocked = any(finding.level == "block" and not finding.accept for finding in findings)
    return Look(
        facts={} if blocked else Facts.write(tuple(one.server for one in examined)),
        findings=tuple(findings),
        spaces=tuple(one.space for one in examined),
        lost=tuple(text for one in examined for text in one.lost()),
        untouched=_untouched(target, seen),
    )


class _Mismatch(AssetFailed):
    """The snapshot and the target do not fit each other; starting empty would be a way."""


def _pair(seen: list[Seen], manifest: Manifest) -> list[tuple[Seen, SavedServer | None]]:
    """Each server of the target with what the snapshot holds for its roles. Raises `AssetFailed`."""
    saved = saved_servers(manifest)
    if not saved:
        raise _Mismatch(f"{manifest.id} holds no snapshot of a Redis.", "Choose another snapshot.")
    pairs: list[tuple[Seen, SavedServer | None]] = []
    for one in seen:
        fitting = [each for each in saved if set(each.roles) & set(one.live.roles)]
        if len(fitting) != 1 or any(fitting[0] is taken for _, taken in pairs):
            raise _Mismatch(
                f"The snapshot comes from {_servers(len(saved))}, and {_servers(len(seen))} "
                "serve Mastodon on the target: data cannot be split or joined.",
                "Give the target as many Redis servers for its roles (SIDEKIQ_REDIS_URL).",
            )
        _require_same_databases(one, fitting[0])
        pairs.append((one, fitting[0]))
    return pairs


def _require_same_databases(one: Seen, saved: SavedServer) -> None:
    number = one.live.place.database
    if saved.keys and number not in saved.keys:
        others = ", ".join(str(each) for each in sorted(saved.keys))
        raise _Mismatch(
            f"The snapshot keeps its keys in database {others} of Redis, and Mastodon on the target uses {number}.",
            f"Let REDIS_URL on the target name database {min(saved.keys)}.",
        )


def _servers(count: int) -> str:
    return "one Redis" if count == 1 else f"{count} Redis servers"


class _Examined:
    """One server of the target beside what it is to load."""

    def __init__(self, target: Target, seen: Seen, saved: SavedServer | None) -> None:
        self.findings: list[Finding] = []
        self._target, self._seen, self._saved = target, seen, saved
        self._depths = depths_of(target.connection, seen.live, target.installation) if seen.running else Depths()
        self._disk = look_at_disk(
            target.connection, seen.directory, seen.file, seen.config.path, seen.aof_names, target.root
        )
        self.server = self._server()
        self.space = self._space()
        self._require_version()
        self._require_rights()
        self._require_aof()
        self._require_saving()
        self._tell_shared()
        self._tell_unit()

    @property
    def name(self) -> str:
        """For people."""
        return self._seen.live.name

    def lost(self) -> list[str]:
        """What will be gone."""
        now, then = self._depths, self._saved
        keys = sum(self._seen.databases.values())
        if not self._seen.running:
            return []
        instead = f"; the {then.waiting} of the snapshot wait instead" if then else ""
        texts = [f"{now.waiting} jobs that wait in {self.name} now{_queues(now)}{instead}"]
        what = "goes back to the snapshot" if then else "begins anew"
        texts.append(f"what else {self.name} holds ({keys} keys) {what}: feeds, activity counters, rate limits")
        return texts

    def _server(self) -> Server:
        seen, saved, disk = self._seen, self._saved, self._disk
        used = seen.live.info.get("used_memory", 0)
        return Server(
            role=seen.live.place.role,
            name=seen.live.name,
            object=saved.object if saved else "",
            unit=seen.unit.name,
            running=seen.running,
            directory=seen.directory,
            file=seen.file,
            aof=seen.aof,
            aof_names=seen.aof_names,
            config=disk.config,
            owner=disk.owner or seen.unit.user or "redis",
            group=disk.group or seen.unit.group or "redis",
            mode=disk.mode,
            reads=readable(seen.flavour, seen.version),
            same_kind=saved is not None and not_newer(saved, seen.flavour, seen.version),
            keys=sum(saved.keys.values()) if saved else 0,
            waiting=saved.waiting if saved else 0,
            bytes=saved.plain_bytes if saved else len(EMPTY_RDB),
            old_bytes=max(disk.file_bytes or 0, used if isinstance(used, int) else 0),
        )

    def _space(self) -> Space:
        times = 2 if self._seen.aof else 1
        old = self._disk.file_bytes or 0
        need = times * self.server.bytes + old
        if self._disk.free is not None and self._disk.free < need:
            self._say(
                f"{clean(self._seen.directory, 200)} has {_mb(self._disk.free)} free, and {_mb(need)} are needed.",
                "Make room there.",
            )
        return Space(what="Redis: the snapshot beside its data", path=clean(self._seen.directory, 300), need=need,
                     free=self._disk.free)  # fmt: skip

    def _require_version(self) -> None:
        seen, saved = self._seen, self._saved
        shown = f"{seen.flavour} {seen.version or '(version unknown)'}"
        if saved is None:
            return
        if can_read(seen.flavour, seen.version, saved):
            text = f"{self.name} ({shown}) reads the snapshot's RDB format {saved.rdb_version}"
            self.findings.append(Finding(level="ok", text=text, asset=Asset.REDIS))
            return
        self._say(
            f"The snapshot has RDB format {saved.rdb_version} (from {saved.flavour} {saved.version}), and {self.name} "
            f"is {shown}, which reads no newer one than {readable(seen.flavour, seen.version)[0]}.",
            f"Let Redis start empty and the feeds be built again, or install {saved.flavour} {saved.version} there.",
        )

    def _require_rights(self) -> None:
        if self._disk.reachable and self._disk.writable:
            return
        user = self._target.root or self._target.connection.login_user
        self._say(
            f"{user} may not write into {clean(self._seen.directory, 200)}, where {self.name} keeps its data.",
            'Set `become = "sudo"` for this host, or log in as root.',
        )

    def _require_aof(self) -> None:
        seen, config = self._seen, self._seen.config
        if seen.running and config.path and config.whole and config.aof != seen.aof:
            now, then = ("on", "no") if seen.aof else ("off", "yes")
            self._say(
                f"{self.name} runs with its append-only file {now}, but its configuration says appendonly {then}: "
                "it would lose data when it is started again, with or without a restore.",
                "Let them agree first: `redis-cli CONFIG REWRITE` writes what runs into the file.",
            )
        if not seen.aof:
            return
        if seen.running and not self._disk.aof and self._disk.reachable:
            self._say(
                f"{self.name} has its append-only file on, but there is none in {clean(seen.directory, 200)}: it would "
                "come back empty when it is started again, with or without a restore.",
                "Let it be written first: `redis-cli BGREWRITEAOF`.",
            )
        if "appendonly" in config.on_command_line or not self._disk.config:
            self._say(
                f"{self.name} has its append-only file on, and it must be off while the snapshot is loaded; "
                "that cannot be done in its configuration file.",
                "Let a configuration file that root may change say `appendonly yes`, instead of the unit.",
            )

    def _require_saving(self) -> None:
        if self._seen.live.info.get("rdb_last_bgsave_status", "ok") != "ok":
            self._say(
                f"{self.name} failed to save its data the last time; it could not be brought back by an undo.",
                f"Make room in {clean(self._seen.directory, 200)}, and let it save (`redis-cli BGSAVE`).",
            )

    def _tell_shared(self) -> None:
        address = where(self._seen.live.place)
        ours = {place.database for place in self._target.installation.redis if where(place) == address}
        others = {number: keys for number, keys in self._seen.databases.items() if number not in ours and keys}
        if not others:
            return
        listed = ", ".join(f"{keys} keys in database {number}" for number, keys in sorted(others.items()))
        what = "go back to what the snapshot holds of them" if self._saved else "be gone"
        self.findings.append(
            Finding(
                level="block",
                text=f"{self.name} is used by others than Mastodon: {listed} would {what}.",
                way_out="Give Mastodon a Redis of its own, or leave Redis out of this restore.",
                asset=Asset.REDIS,
                accept=SHARED,
            )
        )

    def _tell_unit(self) -> None:
        seen = self._seen
        if not seen.unit.enabled:
            text = f"{seen.unit.name} is not enabled: Redis will not come up after a reboot"
            self._note(text, f"systemctl enable {seen.unit.name}")
        if not seen.running:
            self._note(f"{self.name} does not run now; it is started with the data of the restore", "")
        if seen.live.info.get("connected_slaves"):
            self._note(f"{self.name} has replicas, which will take over the restored data from it", "")

    def _say(self, text: str, way_out: str) -> None:
        self.findings.append(_block(text, way_out))

    def _note(self, text: str, way_out: str) -> None:
        self.findings.append(Finding(level="note", text=text, way_out=way_out, asset=Asset.REDIS))


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _queues(depths: Depths) -> str:
    parts = [f"{name} {count}" for name, count in depths.queues.items() if count]
    parts += [
        f"{count} {what}" for what, count in (("scheduled", depths.schedule), ("to retry", depths.retry)) if count
    ]
    return f" ({', '.join(parts[:8])})" if parts else ""


def _untouched(target: Target, seen: list[Seen]) -> tuple[str, ...]:
    ours = {where(one.live.place) for one in seen}
    places = {where(place) for place in target.installation.redis if place.role == "cache"}
    return tuple(f"the cache in Redis at {address}" for address in sorted(places - ours))


def _block(text: str, way_out: str) -> Finding:
    return Finding(level="block", text=text, way_out=way_out, asset=Asset.REDIS)
