"""Media from real trees, with the real find and tar, over the local connection."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.archive.file_index import IndexEntry, read_index
from backends.assets.base import BackupContext, Outcome
from backends.assets.media import HANDLER
from backends.connection.base import Connection
from backends.errors import AssetFailed, Cancelled
from backends.mastodon.installation import Installation, InstallKind, MediaKind, MediaPlace
from tests.servers.backup import AsNobody, MemoryWriter, WatchedJob, local_host
from tests.servers.command_lines import command_lines

AVATAR = b"accounts/avatars/109/302/123/original/0123456789abcdef.png"
ODD = [
    b"accounts/new\nline.png",
    b"accounts/\xff\xfe\xfa.png",
    b"-dash",
    b"back\\nslash [*]?",
    b"tab\tand 'quotes' \"",
    b"~",
]


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that other users may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="mastovault-media-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def tree(public: Path) -> Path:
    """A small `public/system` that anybody may read."""
    root = public / "system"
    put(root, AVATAR, b"\x89PNG" + b"a" * 5000)
    put(root, b"cache/accounts/avatars/1/original/remote.png", b"remote")
    put(root, b"media_attachments/files/1/original/empty.mp4", b"")
    for name in ODD:
        put(root, name, b"content of " + name)
    return root


def at(root: Path, name: bytes) -> Path:
    """A path below the root, whatever bytes its name holds."""
    return root / os.fsdecode(name)


def put(root: Path, name: bytes, content: bytes, mode: int = 0o644) -> Path:
    """Write a file below the root; returns its full path."""
    path = at(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def installation(path: Path | None, **place: object) -> Installation:
    media = MediaPlace(kind=MediaKind.LOCAL, path=str(path) if path else None)
    return Installation(host="social", kind=InstallKind.NATIVE, root="/live", user="mastodon", media=media)


def back_up(
    host: Connection, root: Path, job: WatchedJob | None = None, *, include_cache: bool = False
) -> tuple[Outcome, MemoryWriter]:
    # the tree belongs to whoever runs the tests, so that user stands for Mastodon's
    place = Installation(
        host="social",
        kind=InstallKind.NATIVE,
        root="/live",
        user=host.login_user,
        media=MediaPlace(kind=MediaKind.LOCAL, path=str(root)),
    )
    context = BackupContext(connection=host, installation=place, job=job or WatchedJob(), include_cache=include_cache)
    writer = MemoryWriter()
    return HANDLER.back_up(context, writer), writer


def contents(writer: MemoryWriter) -> dict[bytes, bytes]:
    """What the index and the packs hold together."""
    found = {}
    for entry in entries(writer):
        pack = writer.objects[f"hosts/social/media/packs/{entry.pack}.tar"]
        found[entry.path] = pack[entry.offset : entry.offset + entry.size]
    return found


def entries(writer: MemoryWriter) -> list[IndexEntry]:
    return list(read_index(io.BytesIO(writer.objects["files.ndjson"])))


def test_every_file_but_the_cache_is_kept_byte_for_byte(host: Connection, tree: Path) -> None:
    outcome, writer = back_up(host, tree)
    kept = contents(writer)
    assert set(kept) == {AVATAR, b"media_attachments/files/1/original/empty.mp4", *ODD}
    assert kept[AVATAR] == b"\x89PNG" + b"a" * 5000
    assert all(kept[name] == b"content of " + name for name in ODD)
    assert outcome.facts["files"] == len(kept)
    assert outcome.facts["packs"] == 1
    assert writer.compressed == {name: name == "files.ndjson" for name in writer.objects}


def test_the_cache_comes_along_when_asked_for(host: Connection, tree: Path) -> None:
    _, writer = back_up(host, tree, include_cache=True)
    assert b"cache/accounts/avatars/1/original/remote.png" in contents(writer)


def test_the_index_keeps_modes_and_times_exactly(host: Connection, tree: Path) -> None:
    path = put(tree, b"accounts/suspended.png", b"x", mode=0o600)
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    entry = {entry.path: entry for entry in entries(back_up(host, tree)[1])}[b"accounts/suspended.png"]
    assert (entry.mode, entry.mtime, entry.size) == (0o600, 1_600_000_000_123_456_789, 1)


def test_plain_tar_opens_a_pack(host: Connection, tree: Path, tmp_path: Path) -> None:
    _, writer = back_up(host, tree)
    (pack,) = (data for name, data in writer.objects.items() if name.endswith(".tar"))
    target = tmp_path / "restored"
    target.mkdir()
    subprocess.run(["tar", "-x", "-f", "-", "-C", target], input=pack, check=True)
    for name in (AVATAR, *ODD):
        assert at(target, name).read_bytes() == at(tree, name).read_bytes()


def test_the_root_may_be_a_link_and_links_below_are_kept_as_links(host: Connection, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tree / "custom_emojis").symlink_to(tmp_path / "elsewhere")
    (tree / "favicon").symlink_to("gone")
    (tmp_path / "link").symlink_to(tree)
    job = WatchedJob()
    outcome, writer = back_up(host, tmp_path / "link", job)
    links = {entry.path: entry.link for entry in entries(writer) if entry.link is not None}
    assert links == {b"custom_emojis": os.fsencode(tmp_path / "elsewhere"), b"favicon": b"gone"}
    assert outcome.facts["links"] == 2
    assert len(job.warnings) == 1
    assert "custom_emojis" in job.warnings[0]


def test_hard_links_each_keep_their_content(host: Connection, tree: Path) -> None:
    at(tree, b"zz-second.png").hardlink_to(at(tree, AVATAR))
    kept = contents(back_up(host, tree)[1])
    assert kept[b"zz-second.png"] == kept[AVATAR]


def test_many_packs_when_files_are_many(host: Connection, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.assets.media_stream.BATCH_FILES", 7)
    monkeypatch.setattr("backends.assets.media.PACK_BYTES", 64 * 1024)
    expected = {b"big/%03d" % number: bytes([number]) * (number * 500) for number in range(100)}
    for name, content in expected.items():
        put(tree, name, content)
    outcome, writer = back_up(host, tree)
    assert contents(writer).items() >= expected.items()
    assert outcome.facts["packs"] > 30


def test_an_empty_tree_is_a_backup_too(host: Connection, tmp_path: Path) -> None:
    outcome, writer = back_up(host, tmp_path)
    assert list(writer.objects) == ["files.ndjson"]
    assert outcome.facts["files"] == 0


def test_unreadable_files_are_said_and_the_rest_is_kept(host: Connection, tree: Path) -> None:
    for number in range(5):
        put(tree, b"accounts/secret%d.png" % number, b"x", mode=0)
    put(tree, b"closed/inside.png", b"x")
    (tree / "closed").chmod(0)
    job = WatchedJob()
    try:
        outcome, writer = back_up(AsNobody(host), tree, job)
    finally:
        (tree / "closed").chmod(0o755)
    assert set(contents(writer)) == {AVATAR, b"media_attachments/files/1/original/empty.mp4", *ODD}
    assert (outcome.facts["unreadable"], outcome.facts["unreadable_directories"]) == (5, 1)
    first, second = job.warnings
    assert first.startswith("5 files could not be read as nobody: accounts/secret0.png")
    assert first.endswith("and 2 more")
    assert second == "1 directory could not be read as nobody: closed"


def test_nothing_readable_is_a_failure(host: Connection, public: Path) -> None:
    root = public / "system"
    put(root, b"one.png", b"x", mode=0)
    with pytest.raises(AssetFailed, match="None of 1 media files on social could be read as nobody"):
        back_up(AsNobody(host), root)


def test_files_that_are_deleted_meanwhile_are_no_fault(host: Connection, tree: Path) -> None:
    def delete(step: str, done: int) -> None:
        if step == "copying files" and not done:
            at(tree, AVATAR).unlink()

    job = WatchedJob(delete)
    outcome, writer = back_up(host, tree, job)
    assert AVATAR not in contents(writer)
    assert outcome.facts["vanished"] == 1
    assert not job.warnings


def test_a_file_cut_short_while_it_is_read_is_read_again(host: Connection, tree: Path) -> None:
    path = put(tree, b"video.mp4", b"v" * 8_000_000)
    touched: list[int] = []

    def shorten(step: str, done: int) -> None:
        if step == "copying files" and done > 100_000 and not touched:
            touched.append(done)
            os.truncate(path, 300_000)

    job = WatchedJob(shorten)
    outcome, writer = back_up(host, tree, job)
    assert contents(writer)[b"video.mp4"] == b"v" * 300_000
    assert len(entries(writer)) == outcome.facts["files"]
    assert not job.warnings


def test_a_file_that_never_holds_still_is_left_out_and_said(host: Connection, tree: Path) -> None:
    path = put(tree, b"video.mp4", b"v" * 8_000_000)

    def rewrite(step: str, done: int) -> None:
        if step == "copying files" and done:
            with path.open("r+b") as file:
                file.seek(7_900_000)
                file.write(os.urandom(1000))

    job = WatchedJob(rewrite)
    outcome, writer = back_up(host, tree, job)
    assert b"video.mp4" not in contents(writer)
    assert outcome.facts["changed"] == 1
    assert job.warnings == ["1 file kept changing while being read, left out: video.mp4"]


def test_cancel_ends_it_and_what_it_started(host: Connection, tree: Path) -> None:
    put(tree, b"video.mp4", b"v" * 8_000_000)
    job = WatchedJob()
    job._at = lambda step, done: job.cancel() if done > 1_000_000 else None
    with pytest.raises(Cancelled):
        back_up(host, tree, job)
    assert not [line for line in _commands() if os.fsencode(tree) in line]


def _commands() -> list[bytes]:
    return [line for line in command_lines() if b"tar\0" in line or b"find\0" in line]


def _fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, script: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_tar_that_dies_half_way_stores_nothing(
    host: Connection, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake(tmp_path, monkeypatch, "tar", 'case $1 in --version) echo "GNU tar";; *) /bin/tar "$@" | head -c 3000;; esac')
    with pytest.raises(AssetFailed, match="Reading the media from social broke off: the tar stream ended"):
        back_up(host, tree)


def test_a_find_that_dies_half_way_stores_nothing(
    host: Connection, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake(
        tmp_path, monkeypatch, "find", 'case $1 in --version) echo "GNU find";; *) /usr/bin/find "$@"; exit 137;; esac'
    )
    with pytest.raises(AssetFailed, match="Listing the media on social broke off"):
        back_up(host, tree)


def test_busybox_is_explained(host: Connection, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake(tmp_path, monkeypatch, "find", "echo BusyBox")
    plan = HANDLER.plan_backup(host, installation(tree))
    assert plan.blocked == "social lacks GNU find, needed to read the media."


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, r"The media directory .*/system is not on social"),
        (lambda path: path.write_text("file"), r"/system on social is no directory"),
        (lambda path: path.mkdir(mode=0o311), r"The media directory .*/system on social cannot be read as nobody"),
    ],
)
def test_a_bad_root_is_one_sentence(
    host: Connection, public: Path, make: Callable[[Path], object], sentence: str
) -> None:
    make(public / "system")
    with pytest.raises(AssetFailed, match=sentence) as caught:
        back_up(AsNobody(host), public / "system")
    assert caught.value.next_step


def test_the_probe_says_how_big_it_is(host: Connection, tree: Path) -> None:
    seen = HANDLER.probe(host, installation(tree))
    assert seen.present
    assert seen.bytes == 5004 + sum(len(b"content of " + name) for name in ODD)
    assert not HANDLER.probe(host, installation(tree / "none")).present
    assert not HANDLER.probe(host, installation(None)).present


def test_the_plan_names_its_steps(host: Connection, tree: Path) -> None:
    assert [step.name for step in HANDLER.plan_backup(host, installation(tree)).steps] == ["list", "copy", "index"]
    assert HANDLER.plan_backup(host, installation(None)).blocked
