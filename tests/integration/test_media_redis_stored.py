"""The whole way: real host, real vault; what is stored opens with the standard age, zstd and tar."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from backends.archive.file_index import read_index
from backends.archive.keys import load_identities, new_identity, write_identity
from backends.archive.manifest import Manifest
from backends.archive.reader import open_object
from backends.archive.writer import begin_snapshot
from backends.assets.base import AssetHandler, BackupContext
from backends.assets.media import HANDLER as MEDIA
from backends.assets.redis import HANDLER as REDIS
from backends.config.schema import DirectoryVault
from backends.mastodon.installation import Installation, InstallKind, MediaKind, MediaPlace
from backends.vault.base import Vault
from backends.vault.format import prepare
from backends.vault.open import open_vault
from tests.servers.backup import WatchedJob, local_host
from tests.servers.need import need
from tests.servers.redis import RedisServer


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    """A new identity's file, and its recipient."""
    identity, recipient = new_identity()
    write_identity(tmp_path / "identity.age", identity, None)
    return tmp_path / "identity.age", recipient


@pytest.fixture
def vault(tmp_path: Path, key: tuple[Path, str]) -> Vault:
    (tmp_path / "vault").mkdir()
    opened = open_vault("local", DirectoryVault(type="directory", path=tmp_path / "vault"))
    prepare(opened, [key[1]])
    return opened


def stored(handler: AssetHandler, installation: Installation, vault: Vault, recipient: str) -> Manifest:
    with local_host() as host:
        writer = begin_snapshot([vault], host="social", asset=handler.asset, run="run", recipients=[recipient])
        outcome = handler.back_up(BackupContext(connection=host, installation=installation, job=WatchedJob()), writer)
        return writer.commit(outcome.facts)


def test_packs_and_index_open_with_standard_tools(tmp_path: Path, key: tuple[Path, str], vault: Vault) -> None:
    tree = tmp_path / "system"
    (tree / "accounts").mkdir(parents=True)
    (tree / "accounts" / "new\nline.png").write_bytes(b"picture")
    place = MediaPlace(kind=MediaKind.LOCAL, path=str(tree))
    found = Installation(host="social", kind=InstallKind.NATIVE, root="/live", user="root", media=place)
    manifest = stored(MEDIA, found, vault, key[1])
    assert json.loads(manifest.model_dump_json())["facts"]["files"] == 1
    pack, index = manifest.objects
    assert pack.key.startswith("hosts/social/media/packs/")
    assert pack.key.endswith(".tar.age")
    assert index.name == "files.ndjson.zst.age"
    with open_object(vault, manifest, index, load_identities(key[0], lambda _: None)) as plain:
        (entry,) = read_index(plain)
    assert f"{entry.pack}.tar.age" == pack.name
    (age,) = need("age")
    opened = subprocess.run(
        [age, "-d", "-i", key[0], tmp_path / "vault" / pack.key], capture_output=True, check=True
    ).stdout
    assert opened[entry.offset : entry.offset + entry.size] == b"picture"
    subprocess.run(["tar", "-x", "-C", tmp_path], input=opened, check=True)
    assert (tmp_path / "accounts" / "new\nline.png").read_bytes() == b"picture"


def test_the_redis_snapshot_is_loaded_by_another_redis(tmp_path: Path, key: tuple[Path, str], vault: Vault) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with RedisServer(tmp_path / "one") as server:
        server.client().lpush("queue:default", *map(str, range(1000)))
        found = Installation(host="social", kind=InstallKind.NATIVE, root="/", user="root", redis=(server.place(),))
        manifest = stored(REDIS, found, vault, key[1])
    (entry,) = manifest.objects
    assert entry.name == "dump.rdb.zst.age"
    with open_object(vault, manifest, entry, load_identities(key[0], lambda _: None)) as plain:
        (tmp_path / "two" / "dump.rdb").write_bytes(plain.read())
    with RedisServer(tmp_path / "two") as other:
        assert other.client().llen("queue:default") == 1000
