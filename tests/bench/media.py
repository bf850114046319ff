"""How fast small files go into packs, and how much memory the index of many files needs.

    .venv/bin/python -m tests.bench.media [FILES]

Prints files and MB per second for a real tree on this machine, beside the same tree through plain `tar`, and the
growth of the process for a listing and an index of a million made-up files.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from backends.archive.file_index import IndexEntry, IndexSpool
from backends.archive.manifest import ObjectEntry
from backends.archive.snapshot import Source
from backends.assets.base import BackupContext
from backends.assets.media import HANDLER
from backends.assets.media_listing import Listed, Listing
from backends.mastodon.installation import Installation, InstallKind, MediaKind, MediaPlace
from backends.progress import QuietJob
from tests.servers.backup import MemoryWriter, local_host

_MILLION = 1_000_000
_SIZE = 30_000


class _Nowhere(MemoryWriter):
    """Takes everything and keeps nothing."""

    def write_shared(self, key: str, source: Source, *, compress: bool) -> ObjectEntry:
        return self.write(key, source, compress=compress)

    def write(self, name: str, source: Source, *, compress: bool, already: object = ()) -> ObjectEntry:
        size = 0
        while chunk := source.read(256 * 1024):
            size += len(chunk)
        return ObjectEntry(name=name, bytes=size, sha256="", codecs=[], plain_bytes=size)


def _names(count: int) -> Iterator[str]:
    for number in range(count):
        digits = f"{109_000_000_000_000_000 + number * 7919:018d}"
        folders = "/".join(digits[start : start + 3] for start in range(0, 18, 3))
        yield f"media_attachments/files/{folders}/original/{os.urandom(8).hex()}.png"


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tree(files: int) -> None:
    """Back up a real tree, and read it with tar alone."""
    with tempfile.TemporaryDirectory(prefix="mastovault-bench-") as directory:
        content = os.urandom(_SIZE)
        for name in _names(files):
            path = Path(directory) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        began = time.perf_counter()
        with subprocess.Popen(["tar", "-cf", "-", "-C", directory, "."], stdout=subprocess.PIPE) as plain:
            assert plain.stdout is not None
            while plain.stdout.read(256 * 1024):
                pass
        alone = time.perf_counter() - began
        place = MediaPlace(kind=MediaKind.LOCAL, path=directory)
        with local_host() as host:
            here = Installation(host="social", kind=InstallKind.NATIVE, root="/", user=host.login_user, media=place)
            began = time.perf_counter()
            HANDLER.back_up(BackupContext(connection=host, installation=here, job=QuietJob()), _Nowhere())
            taken = time.perf_counter() - began
    rate = files * _SIZE / 1e6
    print(f"{files} files of {_SIZE} bytes: {files / taken:.0f} files/s, {rate / taken:.0f} MB/s")  # noqa: T201
    print(f"tar alone: {files / alone:.0f} files/s, {rate / alone:.0f} MB/s")  # noqa: T201


def memory() -> None:
    """List and index a million files; the growth must stay far below 150 MB."""
    before = _resident()
    began = time.perf_counter()
    listing = Listing()
    for number, name in enumerate(_names(_MILLION)):
        listing.add(Listed(name.encode(), "f", _SIZE + number % 99991, 1_700_000_000_000_000_000 + number, 0o644))
    listed = _resident()
    spool = IndexSpool()
    for one in listing.drain():
        spool.add(IndexEntry(one.path, one.size, one.mtime, one.mode, os.urandom(32).hex(), "ab" * 16, one.size))
    indexed = _resident()
    source = spool.source()
    size = 0
    while chunk := source.read(256 * 1024):
        size += len(chunk)
    taken = time.perf_counter() - began
    print(  # noqa: T201
        f"a million files: listing +{listed - before:.0f} MB, index +{indexed - listed:.0f} MB, reading it back "
        f"+{_resident() - indexed:.0f} MB, process {_resident():.0f} MB, {taken:.0f} s, index {size / 1e6:.0f} MB plain"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run both; they have no target, only a bound on memory that their tests hold."""
    memory()
    tree(int(arguments[0]) if arguments else 20_000)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
