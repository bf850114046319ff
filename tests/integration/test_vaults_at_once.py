"""A directory and a bucket at once, fed by one read; the bucket's server is killed in the middle."""

from __future__ import annotations

import io
import secrets
from pathlib import Path

import pytest

from backends.archive.writer import begin_snapshot
from backends.config.schema import S3Vault as S3Config
from backends.embedded.processes import Processes
from backends.lab.bucket import BucketServer
from backends.model import Asset
from backends.vault import s3_bucket
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from backends.vault.s3 import S3Vault
from tests.sync_world import RECIPIENT, is_whole

_SIZE = 40 * 1024 * 1024


class _Cutting(io.RawIOBase):
    """Random bytes; what is to happen half-way happens."""

    def __init__(self, server: BucketServer) -> None:
        self._server, self._left = server, _SIZE
        self.reads = 0

    def read(self, size: int = -1, /) -> bytes:
        before, self._left = self._left, max(0, self._left - size)
        if before > _SIZE // 2 >= self._left:
            self._server.stop()
        self.reads += 1
        return secrets.token_bytes(before - self._left)


def test_a_server_that_is_killed_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_bucket, "TRIES", 2)
    processes = Processes(f"cut-{secrets.token_hex(8)}")
    server = BucketServer(tmp_path / "s3" / "buckets", processes)
    monkeypatch.setenv("CUT_KEY", server.access_key)
    monkeypatch.setenv("CUT_SECRET", server.secret_key)
    config = S3Config(
        type="s3",
        bucket="vault",
        endpoint_url=server.endpoint_url,
        access_key_env="CUT_KEY",
        secret_key_env="CUT_SECRET",
    )
    bucket = server.make("vault")
    near, far = DirectoryVault("near", tmp_path / "near"), S3Vault("far", config)
    try:
        server.start()
        for vault in (near, far):
            prepare(vault, [RECIPIENT])
        lines: list[str] = []
        snapshot = begin_snapshot(
            [near, far], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT], log=lines.append
        )
        snapshot.write("database.pgdump", _Cutting(server), compress=False)
        manifest = snapshot.commit({})
        assert snapshot.vaults == ("near",)
        assert set(snapshot.lacking) == {"far"}
        assert "the vault far will lack this snapshot" in lines[0]
        assert manifest.bytes > _SIZE, "the other one has all of it"
        assert is_whole(near) == [snapshot.id]
        server.start()
        assert is_whole(far) == []
        assert not list(bucket.rglob("*.age")), "nothing of it is an object"
        again = begin_snapshot([near, far], host="social", asset=Asset.DATABASE, run="r", recipients=[RECIPIENT])
        again.write("database.pgdump", io.BytesIO(b"x" * 100), compress=False)
        again.commit({})
        assert again.vaults == ("near", "far")
        assert is_whole(far) == [again.id]
    finally:
        far.close()
        server.stop()
        processes.close()
