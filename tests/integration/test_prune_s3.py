"""Pruning buckets: rclone's server, and moto's with an Object Lock and credentials that may not delete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.model import Asset, JobState
from backends.operations.prune import plan_prune
from backends.vault.base import Vault
from backends.vault.open import open_vault
from tests.contract.append_only import AppendOnlyVault
from tests.prune_world import run, through
from tests.servers.s3 import S3Server, moto_server, rclone_server, s3_keys
from tests.sync_world import HOST, SyncWorld, is_whole

__all__ = ["moto_server", "rclone_server", "s3_keys"]


class BucketWorld(SyncWorld):
    """One vault, `one`, in a bucket."""

    def __init__(self, place: Path, server: S3Server, bucket: str, **settings: object) -> None:
        table = server.config(bucket, **settings).model_dump(exclude_none=True)
        super().__init__(place, (), vaults={"one": table}, retention={"last": 1, "after_backup": False})
        self.vaults["one"] = self.vault()

    def vault(self) -> Vault:
        """The bucket."""
        return open_vault("one", self.config.vaults["one"])


@pytest.fixture
def world(tmp_path: Path, rclone_server: S3Server) -> BucketWorld:
    return BucketWorld(tmp_path, rclone_server, rclone_server.make_bucket())


def test_a_bucket_is_pruned(world: BucketWorld) -> None:
    made = [world.back_up("one", age=days).id for days in (3, 2, 1)]
    result = run(world, Asset.DATABASE)[0]
    assert (result.state, result.in_part) == (JobState.DONE, False), result
    assert is_whole(world.vault()) == made[2:]
    assert not [stored.key for stored in world.vault().list("hosts/") if made[0] in stored.key]


def test_credentials_that_may_only_add(world: BucketWorld) -> None:
    made = [world.back_up("one", age=days).id for days in (3, 2, 1)]
    with through(lambda vault: AppendOnlyVault(vault, replaces=True)):
        result = run(world, Asset.DATABASE)[0]
    assert (result.state, result.in_part) == (JobState.DONE, True)
    assert "may not delete" in result.warnings[0]
    assert is_whole(world.vault()) == made


def test_an_object_lock_is_kept(tmp_path: Path, moto_server: S3Server) -> None:
    world = BucketWorld(tmp_path, moto_server, moto_server.make_bucket(lock=True), lock_days=30)
    made = [world.back_up("one", age=days).id for days in (3, 2, 1)]
    result = run(world, Asset.DATABASE)[0]
    assert result.state is JobState.DONE
    assert result.detail == "nothing had to go"
    assert is_whole(world.vault()) == made
    [part] = plan_prune(world.config, world.paths, [HOST]).parts
    why = {verdict.snapshot.id: verdict.why for verdict in part.verdicts}
    assert why[made[0]][0].startswith(f"under an Object Lock until {datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}")
    assert part.bytes == 0
