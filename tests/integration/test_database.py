"""Database backups of a real PostgreSQL: what is stored, from which moment, and that it opens with standard tools."""

from __future__ import annotations

import io
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity
from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext, Outcome
from backends.assets.database import HANDLER
from backends.assets.database_header import check_stored_header
from backends.assets.database_session import open_session
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.mastodon.installation import DatabasePlace
from backends.model import Asset
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.servers.backup import MemoryWriter, WatchedJob, local_host
from tests.servers.command_lines import command_lines
from tests.servers.need import need
from tests.servers.openssh import OpenSSH
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.apt
STATUSES = 3000


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("pg")) as server:
        server.load_mastodon(statuses=STATUSES)
        yield server


@pytest.fixture(scope="module", params=["local", "ssh"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with ExitStack() as stack:
        if request.param == "local":
            yield stack.enter_context(local_host())
        else:
            sshd = stack.enter_context(OpenSSH(tmp_path_factory.mktemp("sshd")))
            yield stack.enter_context(open_connection("social", sshd.host_config()))


def back_up(
    host: Connection, postgres: Postgres, place: DatabasePlace | None = None, job: WatchedJob | None = None
) -> tuple[Outcome, MemoryWriter, WatchedJob]:
    writer, job = MemoryWriter(), job or WatchedJob()
    context = BackupContext(connection=host, installation=postgres.installation(place), job=job)
    return HANDLER.back_up(context, writer), writer, job


def opened(stored: bytes) -> bytes:
    """The dump inside what was written, by the standard zstd."""
    return subprocess.run(["zstd", "-d", "-c"], input=stored, capture_output=True, check=True).stdout


def test_the_look_tells_version_and_size(host: Connection, postgres: Postgres) -> None:
    seen = HANDLER.probe(host, postgres.installation())
    assert seen.present
    assert seen.detail == f"PostgreSQL {version(postgres)}, mastodon_production"
    assert seen.bytes
    assert seen.bytes > 1_000_000
    assert not seen.warnings
    assert not seen.healthy_standby


def test_the_plan_shows_the_commands(host: Connection, postgres: Postgres) -> None:
    plan = HANDLER.plan_backup(host, postgres.installation())
    assert not plan.blocked
    assert [step.name for step in plan.steps] == ["look", "globals", "dump"]
    assert f"{postgres.bin}/pg_dump --host=127.0.0.1" in plan.steps[-1].command
    assert "-Fc" in plan.steps[-1].command
    assert postgres.password not in repr(plan)


def test_a_backup_holds_the_dump_the_roles_and_what_they_should_hold(host: Connection, postgres: Postgres) -> None:
    outcome, writer, job = back_up(host, postgres)
    facts = outcome.facts
    assert set(writer.objects) == {"database.pgdump.zst", "globals.sql"}
    dump = opened(writer.objects["database.pgdump.zst"])
    assert check_stored_header(io.BytesIO(dump), "the dump").version == facts["archive_version"]
    assert b"CREATE ROLE mastodon" in writer.objects["globals.sql"]
    assert facts["tables"]["public.statuses"]["rows"] == STATUSES
    assert all(table["exact"] for table in facts["tables"].values())
    assert facts["rows"] == sum(int(count) for count in counts(postgres, "mastodon_production").values())
    assert facts["migrations"] == {"head": "20260702144128", "count": 102}
    assert facts["newest_status"]["created_at"] == "2026-11-01T00:50:00Z"
    assert facts["encrypted_keypairs"] is True
    assert facts["encrypted_otp_secrets"] is True
    assert facts["timestamp_id"] is True
    assert facts["extensions"] == {"plpgsql": "1.0"}
    assert (facts["encoding"], facts["collate"], facts["ctype"]) == ("UTF8", "C.UTF-8", "C.UTF-8")
    assert (facts["mastodon_version"], facts["database"]) == ("4.7.4", "mastodon_production")
    assert facts["server_version"].startswith(facts["dump_version"])
    assert facts["dump_bytes"] == len(writer.objects["database.pgdump.zst"])
    assert (facts["materialized_views"], facts["views"]) == (1, 1)
    assert job.done == 0
    assert ("dumping", sum(table["bytes"] for table in facts["tables"].values())) in job.steps
    assert any('dumping contents of table "public.statuses"' in line for line in job.lines)
    assert any(line.startswith("$ ") and "pg_dump" in line and "| zstd -3 -T0" in line for line in job.lines)
    assert postgres.backends() == []


def test_facts_and_dump_are_of_one_moment(host: Connection, postgres: Postgres) -> None:
    def late(step: str, done: int) -> None:
        if step == "dumping" and done == 0:
            postgres.sql("INSERT INTO settings (var) VALUES (gen_random_uuid())", "mastodon_production")

    before = counts(postgres, "mastodon_production")["public.settings"]
    outcome, writer, _ = back_up(host, postgres, job=WatchedJob(late))
    assert counts(postgres, "mastodon_production")["public.settings"] == before + 1
    assert outcome.facts["tables"]["public.settings"]["rows"] == before
    dump = opened(writer.objects["database.pgdump.zst"])
    restore(postgres, dump, "one_moment")
    assert counts(postgres, "one_moment")["public.settings"] == before


def test_what_is_stored_opens_with_the_standard_tools_alone(
    host: Connection, postgres: Postgres, tmp_path: Path
) -> None:
    need("age", "zstd")
    identity, recipient = new_identity()
    key = tmp_path / "identity.age"
    key.write_text(identity.reveal() + "\n")
    vault = DirectoryVault("local", tmp_path / "vault")
    prepare(vault, [recipient])
    snapshot = begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="run-1", recipients=[recipient])
    outcome = HANDLER.back_up(
        BackupContext(connection=host, installation=postgres.installation(), job=WatchedJob()), snapshot
    )
    manifest = snapshot.commit(outcome.facts)
    (entry,) = [entry for entry in manifest.objects if entry.name.startswith("database.")]
    assert entry.name == "database.pgdump.zst.age"
    assert entry.codecs == ["zstd", "age"]
    assert not manifest.in_part
    stored = tmp_path / "vault" / "hosts" / manifest.id / entry.name
    pipeline = 'age -d -i "$1" "$2" | zstd -d | "$3/pg_restore" -f /dev/null'
    subprocess.run(["bash", "-o", "pipefail", "-c", pipeline, "sh", key, stored, postgres.bin], check=True)
    age = subprocess.run(["age", "-d", "-i", key, stored], capture_output=True, check=True).stdout
    restore(postgres, opened(age), "restored")
    assert counts(postgres, "restored") == {name: table["rows"] for name, table in manifest.facts["tables"].items()}
    assert objects(postgres, "restored") == {
        name: manifest.facts[name] for name in ("indexes", "unique_indexes", "constraints", "sequences")
    }
    roles = [entry for entry in manifest.objects if entry.name.startswith("globals.")]
    assert [role.name for role in roles] == ["globals.sql.zst.age"]
    assert roles[0].plain_sha256 == ""
    postgres.sql('DROP DATABASE "restored"')


def test_the_superuser_gives_the_roles_with_their_passwords(host: Connection, postgres: Postgres) -> None:
    normal, _, job = back_up(host, postgres)
    assert normal.facts["globals"] == "without passwords"
    assert any("without their passwords" in warning for warning in normal.facts["warnings"])
    assert not job.warnings
    outcome, writer, _ = back_up(host, postgres, postgres.place(user="postgres"))
    assert outcome.facts["globals"] == "with passwords"
    assert not outcome.facts["warnings"]
    assert b"PASSWORD 'SCRAM-SHA-256" in writer.objects["globals.sql"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become the owner of the socket")
def test_peer_authentication_as_another_user(host: Connection, postgres: Postgres) -> None:
    place = postgres.place(user="postgres", password=None, host=str(postgres.directory), as_user=postgres.user)
    outcome, writer, job = back_up(host, postgres, place)
    assert outcome.facts["globals"] == "with passwords"
    assert len(writer.objects) == 2
    assert any(f"--host={postgres.directory}" in line for line in job.lines)


def test_the_password_is_nowhere_to_be_seen(host: Connection, postgres: Postgres) -> None:
    seen: list[bytes] = []

    def look(release: Callable[[], None]) -> None:
        deadline = time.monotonic() + 60
        while not any(b"--snapshot=" in line for line in seen) and time.monotonic() < deadline:
            seen.extend(command_lines())
        release()

    with held_table(postgres) as release:
        watcher = threading.Thread(target=look, args=(release,))
        watcher.start()
        outcome, _, job = back_up(host, postgres, job=WatchedJob(lambda step, done: seen.extend(command_lines())))
        watcher.join()
    assert any(b"--snapshot=" in line for line in seen), "the dump was not among the processes that were looked at"
    assert not any(postgres.password.encode() in line for line in seen)
    assert postgres.password not in "\n".join(job.lines)
    assert postgres.password not in repr(outcome)


@contextmanager
def held_table(postgres: Postgres) -> Iterator[Callable[[], None]]:
    """A lock that pg_dump waits for until it is released: on a partitioned table, which nothing else asks about."""
    place = postgres.place()
    postgres.sql("CREATE TABLE held (id bigint) PARTITION BY RANGE (id)", place.name, place.user)
    try:
        with local_host() as here, open_session(here, place, str(postgres.bin / "psql")) as holder:
            holder._exchange("BEGIN; LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE; SELECT 1;", 10)

            def release() -> None:
                holder._exchange("COMMIT; SELECT 1;", 10)

            yield release
    finally:
        postgres.sql("DROP TABLE held", place.name, place.user)


def test_compression_moves_here_when_the_host_has_none(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "zstd", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with local_host() as host:
        outcome, writer, _ = back_up(host, postgres)
    assert set(writer.objects) == {"database.pgdump", "globals.sql"}
    assert writer.compressed["database.pgdump"]
    assert writer.objects["database.pgdump"].startswith(b"PGDMP")
    assert outcome.facts["compression"] == "compressed by zstd here"


def test_pg_dumps_own_zstd_is_used_where_it_is_built_in(postgres: Postgres, tmp_path: Path) -> None:
    """Debian 12 has no pg_dump 16: a script answers as one does, and lets the real one compress its own way."""
    for name in ("psql", "pg_dumpall"):
        (tmp_path / name).symlink_to(postgres.bin / name)
    dump = f"""
case "$*" in
  --version) echo 'pg_dump (PostgreSQL) 16.4'; exit ;;
  *nonexistent*) echo 'pg_dump: error: connection to server on socket failed' >&2; exit 1 ;;
  *--compress=zstd:3*) ;; *) exit 3 ;;
esac
for word; do shift; case $word in --compress=zstd:3) word=-Z3 ;; esac; set -- "$@" "$word"; done
exec {postgres.bin}/pg_dump "$@"
"""
    program(tmp_path / "pg_dump", dump)
    with local_host() as host:
        outcome, writer, _ = back_up(host, postgres, postgres.place(bin_dir=str(tmp_path)))
    assert set(writer.objects) == {"database.pgdump", "globals.sql"}
    assert not writer.compressed["database.pgdump"]
    assert outcome.facts["compression"] == "compressed by pg_dump itself (zstd)"
    assert outcome.facts["dump_version"] == "16.4"


def test_the_session_sees_what_the_catalogue_says(host: Connection, postgres: Postgres) -> None:
    with open_session(host, postgres.place(), str(postgres.bin / "psql")) as session:
        session.begin()
        assert session.version_num // 10000 == int(version(postgres).split(".")[0])
        assert session.snapshot.count("-") == 2
        assert session.ask("SELECT to_jsonb(E'two\\nlines, \\\\! and end'::text)") == "two\nlines, \\! and end"
        assert session.ask("SELECT NULL::jsonb") is None
        assert session.ask("SELECT to_jsonb(current_setting('transaction_isolation'))") == "repeatable read"
    assert postgres.backends() == []


# --- helpers


def version(postgres: Postgres) -> str:
    return postgres.sql("SHOW server_version").split()[0]


def counts(postgres: Postgres, database: str) -> dict[str, int]:
    """Rows of each table, counted past everything that is tested."""
    names = postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", database).split()
    query = " UNION ALL ".join(f"SELECT 'public.{name} ' || count(*) FROM public.{name}" for name in names)
    rows = (line.split() for line in postgres.sql(query, database).splitlines())
    return {name: int(count) for name, count in rows}


def objects(postgres: Postgres, database: str) -> dict[str, Any]:
    queries = {
        "indexes": "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'",
        "unique_indexes": "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND indexdef ~ '^CREATE UNIQUE'",
        "constraints": "SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
        "sequences": "SELECT count(*) FROM pg_sequences WHERE schemaname = 'public'",
    }
    return {name: int(postgres.sql(query, database)) for name, query in queries.items()}


def restore(postgres: Postgres, dump: bytes, database: str) -> None:
    postgres.sql(f'DROP DATABASE IF EXISTS "{database}"')
    postgres.sql(f'CREATE DATABASE "{database}" OWNER mastodon TEMPLATE template0')
    path = postgres.directory / "restore.pgdump"
    path.write_bytes(dump)
    options = ["-n", "public", "--no-owner", "--exit-on-error", "-U", "mastodon", "-d", database]
    postgres.client("pg_restore", *options, str(path))
    path.unlink()


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
