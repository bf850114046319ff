"""A media tree, its snapshot in two real vaults, and a target that it is restored to step by step."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import load_identities, new_identity, write_identity
from backends.archive.manifest import Manifest
from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext
from backends.assets.media import HANDLER
from backends.config.schema import DirectoryVault
from backends.connection.base import Connection
from backends.mastodon.installation import Installation, InstallKind, MediaKind, MediaPlace
from backends.model import Asset
from backends.progress import Job, QuietJob
from backends.restore.base import Action, Target, Way, Work
from backends.restore.media import PART
from backends.restore.plan import Look, RestoreRequest
from backends.restore.source import Source
from backends.vault.base import Vault
from backends.vault.format import prepare
from backends.vault.open import open_vault
from tests.servers.backup import WatchedJob, local_host

MARK = "20261122t140211ab12"
FILES: Mapping[bytes, bytes] = {
    b"accounts/avatars/109/302/original/0123456789abcdef.png": b"avatar" * 900,
    b"accounts/headers/109/302/original/fedcba9876543210.png": b"header" * 500,
    b"media_attachments/files/111/222/original/moderated.png": b"closed" * 100,
    b"media_attachments/files/111/222/original/new\nline \xff.mp4": b"video" * 70_000,
    b"media_attachments/files/111/333/small/empty.png": b"",
    b"site_uploads/files/1/-dash 'quoted' $(touch x).png": b"hero",
}
NEWER = b"media_attachments/files/999/888/original/newer.png"
AVATAR = b"accounts/avatars/109/302/original/0123456789abcdef.png"
HEADER = b"accounts/headers/109/302/original/fedcba9876543210.png"
CLOSED = b"media_attachments/files/111/222/original/moderated.png"


class Notes:
    """The memory of a restore's steps."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """What was kept."""
        return self.known.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep it."""
        self.known[key] = value


@dataclass
class MediaWorld:
    """One tree and its snapshot."""

    place: Path
    root: Path
    vaults: list[Vault] = field(default_factory=list)
    identities: list[Any] = field(default_factory=list)
    recipient: str = ""
    manifest: Manifest | None = None
    user: str = "root"

    @classmethod
    def make(cls, place: Path, files: Mapping[bytes, bytes] = FILES) -> MediaWorld:
        """A tree with these files, and its snapshot in two vaults."""
        world = cls(place, place / "public" / "system")
        world.root.mkdir(parents=True)
        for name, content in files.items():
            put(world.root, name, content, 0o600 if name == CLOSED else 0o644)
        identity, world.recipient = new_identity()
        write_identity(place / "identity.age", identity, None)
        world.identities = load_identities(place / "identity.age", lambda _: None)
        for vault_name in ("local", "offsite"):
            (place / vault_name).mkdir()
            vault = open_vault(vault_name, DirectoryVault(type="directory", path=place / vault_name))
            prepare(vault, [world.recipient])
            world.vaults.append(vault)
        world.back_up()
        return world

    def back_up(self, *, cache: bool = False) -> Manifest:
        """Make a snapshot of the tree as it is."""
        with local_host() as host:
            writer = begin_snapshot(
                self.vaults, host="social", asset=Asset.MEDIA, run="run", recipients=[self.recipient]
            )
            context = BackupContext(
                connection=host, installation=self.installation(host.login_user), job=WatchedJob(), include_cache=cache
            )
            self.manifest = writer.commit(HANDLER.back_up(context, writer).facts)
        return self.manifest

    def installation(self, user: str = "", root: Path | None = None) -> Installation:
        """What discovery would find."""
        media = MediaPlace(kind=MediaKind.LOCAL, path=str(root or self.root))
        return Installation(host="social", kind=InstallKind.NATIVE, root="/live", user=user or self.user, media=media)

    def source(self) -> Source:
        """The snapshot, to read."""
        assert self.manifest is not None
        return Source(manifest=self.manifest, vaults=list(self.vaults), identities=self.identities)

    def restore(self, connection: Connection, **changes: Any) -> Restore:
        """A restore of the snapshot to a target."""
        target: dict[str, Any] = {key: changes.pop(key) for key in ("bare", "become", "root", "perl") if key in changes}
        return Restore(self, connection, changes, target)

    def packs(self, vault: int = 0) -> list[Path]:
        """The stored packs of a vault."""
        return sorted((self.place / self.vaults[vault].name).rglob("*.tar.age"))

    def leftovers(self) -> list[str]:
        """What restores left beside or in the tree."""
        return sorted(str(path) for path in self.place.rglob("*") if ".mastovault-" in path.name)


class Restore:
    """One restore, its steps carried out by hand."""

    def __init__(
        self, world: MediaWorld, connection: Connection, changes: Mapping[str, Any], target: Mapping[str, Any]
    ) -> None:
        assert world.manifest is not None
        self.world, self.connection = world, connection
        self.request = RestoreRequest(
            id=MARK, host="social", snapshots={Asset.MEDIA: world.manifest.id}, at=datetime.now(UTC)
        )
        self.request = dataclasses.replace(self.request, **changes)
        self.sources = {Asset.MEDIA: world.source()}
        self.target = Target(
            name="social",
            connection=connection,
            installation=world.installation(root=target.get("root")),
            bare=target.get("bare", False),
            become=target.get("become", "none"),
        )
        self.perl = target.get("perl", True)
        self.looked: Look | None = None
        self.job: Job = WatchedJob()
        self.notes = Notes()
        self.done: set[str] = set()

    def look(self) -> Look:
        """The look; kept for the steps."""
        looked = PART.look(self.request, self.target, self.sources)
        if looked.facts and not self.perl:
            looked.facts["perl"] = False
        self.looked = looked
        return looked

    def actions(self) -> list[Action]:
        """The steps of the look."""
        looked = self.looked or self.look()
        assert not [found for found in looked.findings if found.level == "block"], looked.findings
        return list(PART.actions(self.request, looked.facts)) if looked.facts else []

    def work(self, way: Way = "rollback", job: Job | None = None) -> Work:
        """What a step has at hand."""
        return Work(
            request=self.request,
            target=self.target,
            sources=self.sources,
            job=job or self.job,
            memory=self.notes,
            way=way,
        )

    def do(self, job: Job | None = None) -> None:
        """Every step that is not done yet."""
        for action in self.actions():
            if action.info.id not in self.done:
                action.do(self.work(job=job))
                self.done.add(action.info.id)

    def undo(self, way: Way = "undo") -> None:
        """Every step taken back."""
        for action in reversed(self.actions()):
            action.undo(self.work(way, QuietJob()))
        self.done.clear()

    def forget(self) -> None:
        """What was kept is given up."""
        for action in self.actions():
            action.forget(self.work("undo", QuietJob()))


def put(root: Path, name: bytes, content: bytes, mode: int = 0o644, mtime: int = 1_700_000_000_123_456_789) -> Path:
    """Write a file below a root, with directories that others may enter."""
    path = root / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime, mtime))
    return path


Seen = dict[bytes, tuple[Any, ...]]


def seen(root: Path) -> Seen:
    """Everything below a root: content, mode, time and owner of files; mode and owner of directories; links."""
    found: Seen = {}
    for path in sorted(root.rglob("*")):
        if any(".mastovault-" in part for part in path.parts):
            continue
        known = path.lstat()
        name = os.fsencode(path.relative_to(root))
        owner = (known.st_uid, known.st_gid)
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()), *owner)
        elif path.is_dir():
            found[name] = ("directory", oct(known.st_mode & 0o7777), *owner)
        else:
            found[name] = (path.read_bytes(), oct(known.st_mode & 0o7777), known.st_mtime_ns, *owner)
    return found


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def world(tmp_path: Path) -> MediaWorld:
    return MediaWorld.make(tmp_path)


@pytest.fixture(params=["perl", "shell"])
def perl(request: pytest.FixtureRequest) -> bool:
    """Both programs that move files do the same."""
    return bool(request.param == "perl")


def at(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(name)


def files(root: Path) -> Seen:
    """Files and links below a root, without the directories."""
    return {name: state for name, state in seen(root).items() if state[0] != "directory"}


def lose_all(world: MediaWorld) -> None:
    shutil.rmtree(world.root)
    world.root.mkdir()
