"""What a restore of Redis reads from hosts and vaults: any text is survived, and what is meant is understood."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.archive.manifest import Manifest, ObjectEntry
from backends.errors import AssetFailed
from backends.model import Asset
from backends.restore.plan import Phase, RedisChoice, RestoreRequest
from backends.restore.redis import PART
from backends.restore.redis_config import RedisConfig, parse_arguments, parse_lines, same_socket
from backends.restore.redis_crc import RdbChecksum
from backends.restore.redis_disk import parse_disk
from backends.restore.redis_live import Counts, counts_of, missing
from backends.restore.redis_moment import moment
from backends.restore.redis_place import Facts, Server
from backends.restore.redis_saved import SavedServer, can_read, saved_servers
from backends.restore.redis_seen import databases, parse_version
from backends.restore.redis_service import parse_units
from backends.restore.redis_stage import keys_read
from backends.restore.source import Source

AT = datetime(2026, 11, 22, 14, 2, 11, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["object", "roles", "keys", "jobs", "rdb_version", "saved_at", "version", "flavour"])


def manifest(servers: Any = None, *, asset: Asset = Asset.REDIS, at: datetime = AT, run: str = "run") -> Manifest:
    return Manifest(
        id=f"social/{asset}/20261122T140211Z-0001",
        host="social",
        asset=asset,
        run=run,
        started_at=at,
        finished_at=at,
        tool_version="1",
        recipients=[],
        objects=[
            ObjectEntry(name=name, bytes=1, sha256="", codecs=["age"], plain_bytes=7) for name in ("dump.rdb", "b")
        ],
        facts={} if servers is None else {"servers": servers},
    )


def request(*assets: Asset, redis: RedisChoice = RedisChoice.RESTORE, at: datetime = AT) -> RestoreRequest:
    snapshots = {asset: f"social/{asset}/x" for asset in assets}
    return RestoreRequest(id="20261122t150000", host="social", snapshots=snapshots, redis=redis, at=at)


@given(JSON | st.lists(st.dictionaries(KEYS, JSON, max_size=6), max_size=4))
def test_any_facts_of_a_manifest_are_survived(facts: Any) -> None:
    for server in saved_servers(manifest(facts)):
        assert server.object in {"dump.rdb", "b"}
        assert server.waiting >= 0


def test_the_servers_of_a_snapshot_are_read() -> None:
    facts = {
        "object": "dump.rdb",
        "roles": ["base", "sidekiq", "cache", 3],
        "version": "7.0.15",
        "rdb_version": 10,
        "saved_at": 1794902272,
        "keys": {"db0": 6, "db12": 1, "x": 1},
        "jobs": {"waiting": 5},
    }
    (server,) = saved_servers(manifest([facts, facts, {"object": "gone"}, "x"]))
    assert server == SavedServer(
        object="dump.rdb",
        roles=("base", "sidekiq"),
        version="7.0.15",
        rdb_version=10,
        saved_at=1794902272,
        keys={0: 6, 12: 1},
        waiting=5,
        plain_bytes=7,
    )


@pytest.mark.parametrize(
    ("flavour", "version", "rdb", "reads"),
    [
        ("redis", "6.2.5", 9, True),
        ("redis", "6.2.5", 10, False),
        ("redis", "7.0.15", 10, True),
        ("redis", "7.0.15", 11, False),
        ("redis", "7.2.4", 11, True),
        ("redis", "7.4.0", 12, True),
        ("redis", "8.2.0", 12, True),
        ("redis", "8.2.0", 80, False),
        ("redis", "", 10, False),
        ("valkey", "8.1.0", 11, True),
        ("valkey", "8.1.0", 12, False),
        ("valkey", "8.1.0", 80, False),
        ("valkey", "9.0.0", 80, True),
        ("valkey", "9.0.0", 12, False),
    ],
)
def test_which_server_reads_which_format(flavour: str, version: str, rdb: int, reads: bool) -> None:
    assert can_read(flavour, version, SavedServer(object="x", roles=(), rdb_version=rdb)) is reads


def test_what_the_same_server_wrote_it_reads() -> None:
    saved = SavedServer(object="x", roles=(), rdb_version=99, flavour="redis", version="9.1.0")
    assert can_read("redis", "9.1.0", saved)
    assert not can_read("redis", "9.0.9", saved)
    assert not can_read("valkey", "9.1.0", saved)


@given(st.text(max_size=300))
def test_any_text_of_a_host_is_survived(text: str) -> None:
    for _ in parse_lines(text):
        pass
    parse_arguments(text.split(" "))
    parse_disk(text)
    parse_units(text)
    keys_read(text)
    parse_version(text)
    same_socket(text, "/run/redis.sock")


@given(st.dictionaries(st.text(max_size=6) | st.sampled_from(["db0", "db1", "process_id"]), JSON, max_size=6))
def test_any_answer_to_info_is_survived(info: dict[str, Any]) -> None:
    counts_of(info)
    databases(info)


def test_a_configuration_file_is_read() -> None:
    text = '# appendonly yes\nDIR "/var/lib/my redis"\n\n  appendonly yes \nsave 3600 1\nrequirepass "it\'s #1"\n'
    assert [*parse_lines(text)] == [
        ("dir", ["/var/lib/my redis"]),
        ("appendonly", ["yes"]),
        ("save", ["3600", "1"]),
        ("requirepass", ["it's #1"]),
    ]
    assert RedisConfig(values={"appendonly": "YES"}).aof
    assert RedisConfig().get("dbfilename") == "dump.rdb"


def test_a_command_line_is_read() -> None:
    line = "/etc/redis/redis.conf --supervised systemd --daemonize no --port 6380 --requirepass secret"
    assert parse_arguments(line.split()) == ("/etc/redis/redis.conf", {"port": "6380"})
    assert parse_arguments(["--appendonly", "yes"]) == ("", {"appendonly": "yes"})
    assert parse_arguments([]) == ("", {})


def test_units_are_read() -> None:
    text = (
        "Id=redis-server.service\nLoadState=loaded\nActiveState=active\nMainPID=71\nUnitFileState=enabled\nUser=redis\n"
        "ExecStart={ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis/redis.conf --daemonize no ; "
        "ignore_errors=no ; pid=0 }\n\nId=gone.service\nLoadState=not-found\n\nId=bad name.service\nLoadState=loaded\n"
    )
    (unit,) = parse_units(text)
    assert (unit.name, unit.state, unit.main_pid, unit.user) == ("redis-server.service", "active", 71, "redis")
    assert unit.arguments == ("/etc/redis/redis.conf", "--daemonize", "no")
    assert unit.program == "/usr/bin/redis-server"


def test_versions_of_programs_are_read() -> None:
    assert parse_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc") == ("redis", "7.0.15")
    assert parse_version("Valkey server v=8.1.1 sha=0") == ("valkey", "8.1.1")
    assert parse_version("command not found") == ("redis", "")


def test_the_keys_that_redis_counted_are_read() -> None:
    said = "[offset 0] Checking\n[info] 26 keys read\n[info] 2 expires\n[info] 1 already expired\n"
    assert keys_read(said) == {"keys": 26, "expires": 2}
    assert keys_read("All is well") is None


def test_missing_keys_are_those_that_cannot_have_expired() -> None:
    assert missing(Counts(keys=100, expires=0), 100, 0) == ""
    assert missing(Counts(keys=95, expires=0), 100, 5) == ""
    assert missing(Counts(keys=94, expires=0), 100, 5) == "it holds 94 keys instead of 100"
    assert missing(Counts(keys=0, expires=0), 0, 0) == ""
    assert missing(Counts(keys=90, expires=0), 100, None) == ""
    assert missing(Counts(keys=80, expires=0, expired_at_load=10), 100, None) == ""
    assert "instead of" in missing(Counts(keys=0, expires=0), 100, None)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_a_checksum_does_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    whole, parts = RdbChecksum(), RdbChecksum()
    whole.update(b"".join(pieces))
    for piece in pieces:
        parts.update(piece)
    assert (whole._crc, whole._held) == (parts._crc, parts._held)


def test_the_checksum_is_that_of_redis() -> None:
    # the test vector of Redis's own src/crc64.c
    sum_ = RdbChecksum()
    sum_.update(b"123456789" + 0xE9C6D914C4B8D9CA.to_bytes(8, "little"))
    assert sum_.fits
    other = RdbChecksum()
    other.update(b"123456788" + 0xE9C6D914C4B8D9CA.to_bytes(8, "little"))
    assert not other.fits
    unset = RdbChecksum()
    unset.update(b"anything" + bytes(8))
    assert unset.fits


def source(made: Manifest) -> Source:
    return Source(manifest=made, vaults=[], identities=[])


def test_an_old_queue_is_said_to_be_one() -> None:
    redis = source(manifest([]))
    found = moment(request(Asset.REDIS, at=AT + timedelta(hours=5)), {Asset.REDIS: redis}, redis)
    assert (found.level, "5 hours ago" in found.text, "empty" in found.way_out) == ("note", True, True)
    same = source(manifest(asset=Asset.DATABASE, at=AT + timedelta(hours=5)))
    found = moment(request(Asset.REDIS, Asset.DATABASE), {Asset.REDIS: redis, Asset.DATABASE: same}, redis)
    assert found.level == "ok"
    later = source(manifest(asset=Asset.DATABASE, at=AT + timedelta(days=5), run="another"))
    found = moment(request(Asset.REDIS, Asset.DATABASE), {Asset.REDIS: redis, Asset.DATABASE: later}, redis)
    assert (found.level, "5 days older" in found.text) == ("note", True)
    empty = moment(request(redis=RedisChoice.EMPTY), {}, None)
    assert "feeds build" in empty.way_out


def server(role: str, *, aof: bool = False, directory: str = "/var/lib/redis") -> Server:
    return Server(
        role=role,
        aof=aof,
        name="Redis at localhost:6379",
        object="dump.rdb",
        unit="redis-server.service",
        running=True,
        directory=directory,
        file="dump.rdb",
        aof_names=("appendonlydir", "appendonly.aof"),
        config="/etc/redis/redis.conf",
        owner="redis",
        group="redis",
    )


def test_facts_go_through_json_and_give_the_same_steps() -> None:
    made = (server("base"), server("sidekiq", aof=True, directory="/var/lib/redis sidekiq"))
    facts = json.loads(json.dumps(Facts.write(made)))
    assert Facts.read(facts) == made
    actions = PART.actions(request(Asset.REDIS), facts)
    infos = [action.info for action in actions]
    assert [info.id for info in infos] == ["redis.stage", "redis.stage-sidekiq", "redis.swap", "redis.swap-sidekiq"]
    assert [info.phase for info in infos] == [Phase.STAGE, Phase.STAGE, Phase.SWAP, Phase.SWAP]
    assert "systemctl stop redis-server.service" in infos[2].commands
    assert "cd '/var/lib/redis sidekiq'" in infos[3].commands
    assert any("CONFIG SET appendonly yes" in command for command in infos[3].commands)
    assert not any("appendonly yes" in command for command in infos[2].commands)
    assert PART.actions(request(Asset.REDIS), {}) == []


def test_facts_that_are_none_are_refused() -> None:
    with pytest.raises(AssetFailed, match="cannot be read"):
        Facts.read({"servers": [{"role": "base"}]})
