"""From a directory into a bucket of a real S3 server, and back into another directory: every byte is the same."""

from __future__ import annotations

from pathlib import Path

from backends.model import Asset, JobState
from backends.operations.storage import CopyState, copies
from tests.servers.s3 import S3Server, rclone_server, s3_keys
from tests.sync_world import HOST, SyncWorld

__all__ = ["rclone_server", "s3_keys"]


def test_there_and_back(rclone_server: S3Server, tmp_path: Path) -> None:
    world = SyncWorld(tmp_path, ("one", "back"))
    vaults = {**world.config.vaults, "bucket": rclone_server.config()}
    there = world.config.model_copy(update={"vaults": vaults})
    first = world.back_up("one", asset=Asset.MEDIA, age=3, shared=["a"], data=b"m" * 9_000_000)
    world.back_up("one", asset=Asset.MEDIA, age=2, shared=["b"], refer=first.objects[1:])
    world.back_up("one", age=1, data=b"")
    every = [Asset.DATABASE, Asset.MEDIA]
    out = world.sync("bucket", source="one", assets=every, config=there)
    assert (out.state, out.error, out.in_part) == (JobState.DONE, None, False)
    (world.place / "one").rename(world.place / "lost")
    home = world.sync("back", assets=every, config=there)
    assert (home.state, home.error) == (JobState.DONE, None)
    assert any("one could not be read" in text for text in home.warnings)
    (world.place / "lost").rename(world.place / "one")
    assert world.content("back") == world.content("one")
    assert len(world.content("back")) == 3 * 2 + 2
    for seen in copies(there, world.catalog(), HOST):
        assert [copy.state for copy in seen.vaults] == [CopyState.HELD] * 3
        assert (seen.held, seen.offsite) == (3, 0), "this bucket is on this machine"
