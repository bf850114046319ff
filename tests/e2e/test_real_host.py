"""A real server: OpenSSH, sudo, Debian's PostgreSQL with peer authentication, and Redis; whole commands.

The administrator logs in as one user, Mastodon is another's in a home nobody else may enter, Redis keeps its file to
itself. What was stored is opened by the standard tools alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity, write_identity
from tests.servers.mastodon_tree import VERSION_RB
from tests.servers.need import need, need_root
from tests.servers.openssh import OpenSSH
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer
from tests.servers.users import Users

pytestmark = [pytest.mark.apt, pytest.mark.root]


@dataclass(frozen=True)
class Server:
    """The host, and the operator's side of it."""

    users: Users
    postgres: Postgres
    redis: RedisServer
    root: Path
    home: Path
    secrets: tuple[str, ...]

    def mastovault(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tui", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            env={
                **os.environ,
                "MASTOVAULT_CONFIG": str(self.home / "config.toml"),
                "MASTOVAULT_STATE_DIR": str(self.home / "state"),
                "MASTOVAULT_CACHE_DIR": str(self.home / "cache"),
            },
            check=False,
        )

    def back_up(self, *targets: str) -> dict[str, dict[str, Any]]:
        done = self.mastovault("backup", *targets, "--json")
        assert done.stdout, done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        for secret in self.secrets:
            assert secret not in done.stdout + done.stderr
        return {result["asset"]: result for result in summary["results"]}

    def folder(self, snapshot: str) -> Path:
        return self.home / "vault" / "hosts" / snapshot

    def open(self, path: Path, to: Path) -> Path:
        """Decrypt, and decompress where the name says so, with age and zstd."""
        script = 'case "$2" in *.zst.age) age -d -i "$1" "$2" | zstd -dc;; *) age -d -i "$1" "$2";; esac > "$3"'
        identity = str(self.home / "identity.age")
        subprocess.run(["bash", "-o", "pipefail", "-ec", script, "sh", identity, str(path), str(to)], check=True)
        return to


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_root("it adds system users")
    need("age", "zstd", "redis-check-rdb")
    home = tmp_path_factory.mktemp("operator")
    redis_dir = Path("/var/lib") / f"redis-mastovault-{os.getpid()}"
    redis_dir.mkdir(mode=0o750)
    shutil.chown(redis_dir, "redis", "redis")
    try:
        with (
            Users() as users,
            OpenSSH(home / "sshd") as sshd,
            Postgres(home / "pg") as postgres,
            RedisServer(redis_dir, password="a password of redis", as_user="redis") as redis,
        ):
            postgres.load_mastodon(statuses=2000)
            _allow_peer(postgres, users.other)
            _fill_redis(redis)
            root = _mastodon(users.other, postgres, redis)
            users.allow("{login} ALL=(ALL) NOPASSWD: ALL")
            _configure(home, sshd, users, root)
            secrets = ("a password of redis", users.password, "0123456789abcdef" * 8)
            yield Server(users, postgres, redis, root, home, secrets)
    finally:
        shutil.rmtree(redis_dir)


def _allow_peer(postgres: Postgres, user: str) -> None:
    with (postgres.data / "pg_ident.conf").open("a") as file:
        file.write(f"mast {user} mastodon\n")
    path = postgres.data / "pg_hba.conf"
    path.write_text("local all mastodon peer map=mast\n" + path.read_text())
    postgres.sql("SELECT pg_reload_conf()")


def _fill_redis(redis: RedisServer) -> None:
    client = redis.client()
    client.sadd("queues", "default", "push")
    client.rpush("queue:default", *(f'{{"jid":"{number}"}}' for number in range(40)))
    client.zadd("feed:home:1", {str(number): number for number in range(100)})


def _mastodon(user: str, postgres: Postgres, redis: RedisServer) -> Path:
    home = Path(f"/home/{user}")
    live = home / "live"
    (live / "lib/mastodon").mkdir(parents=True)
    (live / "lib/mastodon/version.rb").write_text(VERSION_RB)
    (live / ".env.production").write_text(
        f"LOCAL_DOMAIN=social.example\nSECRET_KEY_BASE={'0123456789abcdef' * 8}\n"
        f"DB_HOST={postgres.directory}\nDB_PORT={postgres.port}\nDB_NAME=mastodon_production\nDB_USER=mastodon\n"
        f"REDIS_HOST=127.0.0.1\nREDIS_PORT={redis.port}\nREDIS_PASSWORD='a password of redis'\n"
    )
    media = live / "public/system/media_attachments/files/109/000/000/000/000/001/original"
    media.mkdir(parents=True)
    for number in range(30):
        (media / f"{number:016x}.png").write_bytes(os.urandom(2000 + number))
    (media / f"{0:016x}.png").chmod(0o600)
    cache = live / "public/system/cache/accounts"
    cache.mkdir(parents=True)
    (cache / "remote.png").write_bytes(b"remote")
    for path in (live, *live.rglob("*")):
        shutil.chown(path, user, user)
    (live / ".env.production").chmod(0o600)
    home.chmod(0o750)
    return live


def _configure(home: Path, sshd: OpenSSH, users: Users, root: Path) -> None:
    identity, recipient = new_identity()
    write_identity(home / "identity.age", identity, None)
    (home / "config.toml").write_text(
        f"""
[encryption]
recipients = ["{recipient}"]
identity = "{home}/identity.age"

[vaults.local]
type = "directory"
path = "{home}/vault"

[hosts.social]
address = "{users.login}@127.0.0.1:{sshd.port}"
identity_file = "{sshd.client_key}"
known_hosts = "{sshd.known_hosts}"
become = "sudo"
root = "{root}"
"""
    )


def test_all_four_assets(server: Server, tmp_path: Path) -> None:
    results = server.back_up("social")
    assert {asset: (result["result"], result["error"]) for asset, result in results.items()} == dict.fromkeys(
        ("database", "secrets", "media", "redis"), ("done", None)
    )
    assert not any(result["in_part"] for result in results.values()), results

    # A host that nobody had looked at is known now.
    status = json.loads(server.mastovault("status", "--json").stdout)
    assert status["hosts"][0]["state"] == "online"
    assert {asset["level"] for asset in status["hosts"][0]["assets"]} <= {"CRIT", "HIGH", "MED", "LOW", "OK"}

    # The database, restored by Debian's own pg_restore into an empty one: the same rows, indexes and function.
    folder = server.folder(results["database"]["snapshot"])
    dump = server.open(next(folder.glob("database.pgdump*")), tmp_path / "dump")
    postgres = server.postgres
    postgres.sql("CREATE DATABASE again OWNER mastodon TEMPLATE template0")
    postgres.client("pg_restore", "-U", "postgres", "-d", "again", "--no-owner", "--exit-on-error", str(dump))
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    for table in ("accounts", "statuses", "schema_migrations"):
        assert (
            postgres.sql(f"SELECT count(*) FROM {table}", "again")
            == postgres.sql(f"SELECT count(*) FROM {table}", "mastodon_production")
            != "0\n"
        )
    count = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'"
    assert int(postgres.sql(count, "again")) == facts["indexes"]
    assert "CREATE ROLE mastodon" in server.open(next(folder.glob("globals.sql*")), tmp_path / "globals").read_text()

    # The secrets: the same bytes, mode and owner.
    folder = server.folder(results["secrets"]["snapshot"])
    with tarfile.open(server.open(next(folder.glob("environment.tar*")), tmp_path / "environment")) as tar:
        member = next(each for each in tar if each.name.endswith(".env.production"))
        assert (member.mode, member.uname) == (0o600, server.users.other)
        content = tar.extractfile(member)
        assert content
        assert content.read() == (server.root / ".env.production").read_bytes()

    # The media: every file but the cache, modes kept.
    packs = list((server.home / "vault/hosts/social/media/packs").iterdir())
    with tarfile.open(server.open(packs[0], tmp_path / "pack")) as tar:
        files = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
    system = server.root / "public/system"
    wanted = {str(path.relative_to(system)) for path in system.rglob("*.png") if "cache" not in path.parts}
    assert set(files) == wanted
    assert [member.mode for name, member in files.items() if name.endswith(f"{0:016x}.png")] == [0o600]

    # Redis: a file its own checker likes.
    folder = server.folder(results["redis"]["snapshot"])
    rdb = server.open(next(folder.glob("dump.rdb*")), tmp_path / "dump.rdb")
    checked = subprocess.run(["redis-check-rdb", str(rdb)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_vault_needs_no_private_key_and_shows_no_secret(server: Server) -> None:
    identity = server.home / "identity.age"
    away = identity.rename(server.home / "away.age")
    try:
        results = server.back_up("social/redis")
        assert results["redis"]["result"] == "done"
    finally:
        away.rename(identity)
    for path in (server.home / "vault").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret.encode() in data for secret in server.secrets), path


def test_secrets_are_copied_again_only_when_they_change(server: Server) -> None:
    first = server.back_up("social/secrets")["secrets"]["snapshot"]
    assert server.back_up("social/secrets")["secrets"]["snapshot"] == first
    env = server.root / ".env.production"
    before = env.read_text()
    env.write_text(before + "SMTP_SERVER=mail.example\n")
    try:
        status = json.loads(server.mastovault("status", "--refresh", "--json").stdout)
        assets = {asset["asset"]: asset for asset in status["hosts"][0]["assets"]}
        assert any("differ" in reason["text"] for reason in assets["secrets"]["reasons"]), assets["secrets"]
        assert server.back_up("social/secrets")["secrets"]["snapshot"] != first
    finally:
        env.write_text(before)


def test_a_password_for_sudo_comes_from_a_command(server: Server) -> None:
    server.users.allow("{login} ALL=(ALL) ALL")
    config = server.home / "config.toml"
    before = config.read_text()
    secret = server.home / "sudo-password"
    secret.write_text(server.users.password + "\n")
    try:
        failed = server.back_up("social/secrets")["secrets"]
        assert failed["result"] == "failed"
        assert failed["error"]
        assert failed["next_step"]
        config.write_text(before + f'become_password_command = "cat {secret}"\n')
        results = server.back_up("social")
        assert {result["result"] for result in results.values()} == {"done"}, results
    finally:
        config.write_text(before)
        server.users.allow("{login} ALL=(ALL) NOPASSWD: ALL")


def test_two_terminals_on_one_vault_see_the_same(server: Server, tmp_path: Path) -> None:
    server.back_up("social/redis")
    mine = json.loads(server.mastovault("list", "--json").stdout)
    assert mine["snapshots"]
    other = subprocess.run(
        [sys.executable, "-m", "tui", "list", "--json"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "MASTOVAULT_CONFIG": str(server.home / "config.toml"),
            "MASTOVAULT_STATE_DIR": str(tmp_path / "state"),
            "MASTOVAULT_CACHE_DIR": str(tmp_path / "cache"),
        },
        check=True,
    )
    assert json.loads(other.stdout) == mine
