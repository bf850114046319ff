"""A database restored beside the live one, swapped in, undone and forgotten, on a real PostgreSQL."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.config.load import load
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.embedded.postgres import PostgresServer
from backends.embedded.processes import Processes
from backends.lab.lab import Lab
from backends.mastodon.discovery import discover
from backends.mastodon.installation import DatabasePlace
from backends.model import Secret
from backends.restore.database_admin import admin_place, find_admin
from backends.restore.database_check import compare
from backends.restore.database_load import load_dump
from backends.restore.database_settings import attributes_of
from backends.restore.plan import Phase
from backends.restore.source import Source
from tests.servers.backup import WatchedJob, local_host
from tests.servers.command_lines import command_lines
from tests.servers.database_restore import ID, Driver, Snapshots, counts, databases, lose
from tests.servers.openssh import OpenSSH
from tests.servers.postgres import Postgres

STATUSES = 1200
LIVE = "mastodon_production"
RESTORED = f"{LIVE}_restore_{ID}"
BEFORE = f"{LIVE}_before_{ID}"
debian = pytest.mark.apt


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("pg")) as server:
        server.load_mastodon(statuses=STATUSES)
        yield server


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with ExitStack() as stack:
        if request.param == "local":
            yield stack.enter_context(local_host())
        else:
            sshd = stack.enter_context(OpenSSH(tmp_path_factory.mktemp("sshd")))
            yield stack.enter_context(open_connection("social", sshd.host_config()))


@pytest.fixture(scope="module")
def here() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Snapshots:
    return Snapshots(tmp_path_factory.mktemp("vault") / "vault")


@pytest.fixture(scope="module")
def whole(postgres: Postgres, here: Connection, snapshots: Snapshots) -> Source:
    return snapshots.take(here, postgres.installation())


@pytest.fixture
def live(postgres: Postgres) -> Iterator[dict[str, int]]:
    """The live database with some rows lost; as it was afterwards. Gives the counts that a restore brings back."""
    postgres.sql(f"CREATE DATABASE kept TEMPLATE {LIVE} OWNER mastodon")
    before = counts(postgres, LIVE)
    lose(postgres, LIVE)
    yield before
    for name in databases(postgres) - {"kept"}:
        postgres.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    postgres.sql(f"ALTER DATABASE kept RENAME TO {LIVE}")


def streamed(facts: dict[str, Any]) -> None:
    facts["staging"] = None


def staged_in(directory: Path) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        facts["staging"] = str(directory / "stage")

    return change


# --- there and back


@debian
@pytest.mark.parametrize(("host", "way"), [("local", "streamed"), ("ssh", "staged")], indirect=["host"])
def test_restored_in_place_undone_and_forgotten(
    host: Connection, postgres: Postgres, whole: Source, live: dict[str, int], way: str, tmp_path: Path
) -> None:
    change = streamed if way == "streamed" else staged_in(tmp_path)
    driver = Driver(host, postgres.installation(), whole, change=change)
    lost = counts(postgres, LIVE)
    *before, swap = driver.actions()
    for action in before:
        action.do(driver.work())
    assert counts(postgres, LIVE) == lost
    assert not list(tmp_path.iterdir())
    assert databases(postgres) == {"kept", LIVE, RESTORED}
    statistics = "SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'public'"
    assert postgres.sql(statistics, RESTORED).strip() == "t"

    began = time.monotonic()
    swap.do(driver.work())
    assert time.monotonic() - began < 10
    driver.began = [*before, swap]
    assert counts(postgres, LIVE) == live
    assert databases(postgres) == {"kept", LIVE, BEFORE}
    assert not driver.job.warnings
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert postgres.sql(owners, LIVE).split() == ["mastodon"]

    times = 2 if way == "streamed" else 1
    for _ in range(times):
        driver.back("undo")
        assert counts(postgres, LIVE) == lost
        assert databases(postgres) == {"kept", LIVE, RESTORED}
    for _ in range(times):
        driver.forget()
        assert databases(postgres) == {"kept", LIVE}


@debian
def test_forgetting_keeps_what_is_live_and_no_password_is_seen(
    here: Connection, postgres: Postgres, whole: Source, live: dict[str, int]
) -> None:
    seen: list[bytes] = []

    driver = Driver(
        here,
        postgres.installation(),
        whole,
        job=WatchedJob(lambda step, done: seen.extend(command_lines())),
        change=streamed,
    )
    driver.run()
    assert any(b"pg_restore" in line for line in seen)
    assert not any(postgres.password.encode() in line for line in seen)
    assert postgres.password not in "\n".join(driver.job.lines) + repr(driver.notes.stored)
    driver.forget()
    assert databases(postgres) == {"kept", LIVE}
    assert counts(postgres, LIVE) == live


@debian
def test_steps_that_were_done_are_not_done_twice(
    here: Connection, postgres: Postgres, whole: Source, live: dict[str, int]
) -> None:
    driver = Driver(here, postgres.installation(), whole, change=streamed)
    driver.run(until=Phase.PROVE)
    oid = f"SELECT oid FROM pg_database WHERE datname = '{RESTORED}'"
    first = postgres.sql(oid)
    driver.run(until=Phase.PROVE)
    assert postgres.sql(oid) == first
    driver.run()
    (swap,) = [action for action in driver.actions() if action.info.phase is Phase.SWAP]
    swap.do(driver.work())
    assert counts(postgres, LIVE) == live
    assert databases(postgres) == {"kept", LIVE, BEFORE}


@debian
def test_a_narrow_terminal_hides_no_room(
    here: Connection, postgres: Postgres, whole: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    look = Driver(here, postgres.installation(), whole).look()
    assert all(space.free for space in look.spaces)


@debian
def test_the_plan_shows_every_command_and_no_secret(here: Connection, postgres: Postgres, whole: Source) -> None:
    driver = Driver(here, postgres.installation(), whole)
    look = driver.look()
    steps = [action.info for action in driver.actions(look)]
    assert [step.id for step in steps] == [
        f"database.{verb}" for verb in ("load", "check", "analyze", "settings", "swap")
    ]
    lines = "\n".join(line for step in steps for line in step.commands)
    assert "-n public --no-owner --exit-on-error --role=mastodon" in lines
    assert f'ALTER DATABASE "{RESTORED}" RENAME TO "{LIVE}"' in lines
    assert postgres.password not in lines + repr(look)
    assert all(step.seconds for step in steps)
    assert [space.what for space in look.spaces] == ["the new database", "the dump while it is loaded"]
    assert all(space.free and space.free > space.need > 0 for space in look.spaces)
    (everything,) = look.lost
    assert everything.startswith("whatever was written to the database after 20")
    assert {finding.level for finding in look.findings} == {"ok"}


@debian
def test_what_is_lost_is_said(here: Connection, postgres: Postgres, whole: Source, live: dict[str, int]) -> None:
    postgres.sql(
        "INSERT INTO statuses (id, text, created_at, updated_at, account_id, local, uri) SELECT 113000000000000000 + g,"
        " '', '2026-12-01', now(), 1, g = 1, 'u' || g FROM generate_series(1, 3) g; INSERT INTO users (email,"
        " created_at, updated_at, account_id) VALUES ('new@social.example', now() + interval '1 hour', now(), 20)",
        LIVE,
        "mastodon",
    )
    look = Driver(here, postgres.installation(), whole).look()
    assert look.lost[1].startswith("3 posts newer than the snapshot's last one of 2026-11-01 00:20 UTC, 1 of them")
    assert "1 of them people who signed up here" in look.lost[2]


@debian
def test_a_live_database_without_its_tables_is_restored(
    here: Connection, postgres: Postgres, whole: Source, live: dict[str, int]
) -> None:
    postgres.sql("DROP TABLE statuses CASCADE", LIVE, "mastodon")
    driver = Driver(here, postgres.installation(), whole, change=streamed)
    look = driver.run()
    assert any("lacks Mastodon's tables statuses" in finding.text for finding in look.findings)
    assert counts(postgres, LIVE) == live


# --- nothing but the contents differs


@debian
def test_rights_and_settings_stay(here: Connection, postgres: Postgres, whole: Source, live: dict[str, int]) -> None:
    postgres.sql(
        f"""DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN;
        REVOKE CONNECT, TEMPORARY ON DATABASE {LIVE} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {LIVE} TO reader WITH GRANT OPTION;
        ALTER DATABASE {LIVE} CONNECTION LIMIT 90; COMMENT ON DATABASE {LIVE} IS E'it''s \\\\ ours';
        ALTER DATABASE {LIVE} SET search_path = "$user", 'odd "one"', public;
        ALTER DATABASE {LIVE} SET statement_timeout = '40s';
        ALTER DATABASE {LIVE} SET application_name = 'it''s';
        ALTER ROLE mastodon IN DATABASE {LIVE} SET work_mem = '8MB';"""
    )
    admin = find_admin(here, postgres.place())
    wanted = attributes_of(here, admin, LIVE)
    assert wanted.rights is not None
    assert len(wanted.settings) == 4
    driver = Driver(here, postgres.installation(), whole, change=streamed)
    driver.run()
    assert attributes_of(here, admin, LIVE) == wanted
    assert not driver.job.warnings
    driver.back("rollback")
    postgres.sql(f"DROP OWNED BY reader; REVOKE ALL ON DATABASE {LIVE} FROM reader; DROP ROLE reader")


@debian
def test_what_may_not_be_copied_is_warned_of(
    here: Connection, postgres: Postgres, whole: Source, live: dict[str, int]
) -> None:
    postgres.sql(
        f"ALTER DATABASE {LIVE} SET log_min_duration_statement = 5; ALTER DATABASE {LIVE} SET work_mem = '5MB'"
    )
    driver = Driver(here, postgres.installation(), whole, change=streamed)
    driver.run()
    assert [text.split(" of the database")[0] for text in driver.job.warnings] == [
        "the setting log_min_duration_statement"
    ]


@debian
@pytest.mark.parametrize("name", ["we\"ird = n'ame\\ ü", "x" * 63, "postgres://a"])
def test_odd_and_long_names(here: Connection, postgres: Postgres, whole: Source, name: str) -> None:
    quoted = name.replace('"', '""')
    postgres.sql(f'CREATE DATABASE "{quoted}" OWNER mastodon TEMPLATE {LIVE}')
    try:
        driver = Driver(here, postgres.installation(postgres.place(database=name)), whole)
        driver.run()
        assert len(databases(postgres)) == 3
        driver.back("undo")
        driver.forget()
        assert databases(postgres) == {LIVE, name}
    finally:
        for each in databases(postgres) - {LIVE}:
            quoted = each.replace('"', '""')
            postgres.sql(f'DROP DATABASE "{quoted}"')


# --- who may


def as_superuser(postgres: Postgres, **changes: Any) -> DatabasePlace:
    """Over the socket, where the superuser comes in by the system user's name."""
    if os.geteuid() != 0 or postgres.user != "postgres":
        pytest.skip("needs root and a system user postgres")
    return postgres.place(host=str(postgres.directory), **changes)


@debian
def test_mastodons_own_role_is_enough(here: Connection, postgres: Postgres) -> None:
    place = admin_place(here, postgres.place())
    assert (place.user, place.name, place.as_user) == ("mastodon", "postgres", None)


@debian
def test_the_superuser_is_asked_when_the_role_may_not(
    here: Connection, postgres: Postgres, whole: Source, live: dict[str, int]
) -> None:
    place = as_superuser(postgres)
    postgres.sql(f"ALTER ROLE mastodon NOCREATEDB; ALTER DATABASE {LIVE} OWNER TO postgres")
    try:
        assert admin_place(here, place).user == "postgres"
        driver = Driver(here, postgres.installation(place), whole, change=streamed)
        driver.run()
        assert counts(postgres, LIVE) == live
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{}'"
        assert postgres.sql(owner.format(LIVE)).strip() == "postgres"
        tables = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert postgres.sql(tables, LIVE).split() == ["mastodon"]
        look = Driver(here, postgres.installation(postgres.place()), whole).look()
        (blocked,) = [finding for finding in look.findings if finding.level == "block"]
        assert "mastodon may not create databases" in blocked.text
        assert "CREATEDB" in blocked.way_out
        driver.back("rollback")
    finally:
        postgres.sql(f"ALTER ROLE mastodon CREATEDB; ALTER DATABASE {LIVE} OWNER TO mastodon")


@debian
def test_a_bare_machine_gets_role_and_database(
    here: Connection, whole: Source, tmp_path: Path, live: dict[str, int]
) -> None:
    with Postgres(tmp_path / "bare") as bare:
        place = replace(as_superuser(bare), password=Secret("pass wörd'\\"))
        driver = Driver(here, bare.installation(place), whole, bare=True)
        look = driver.run()
        assert [action.info.id for action in driver.began] == [
            "database.create",
            "database.load",
            "database.check",
            "database.analyze",
            "database.swap",
        ]
        assert any("there is no database" in finding.text for finding in look.findings)
        assert counts(bare, LIVE) == live
        bare.password, kept = "pass wörd'\\", bare.password
        assert bare.sql("SELECT current_user", LIVE, "mastodon").strip() == "mastodon"
        bare.password = kept
        driver.back("undo")
        assert databases(bare) == {RESTORED}
        driver.run()
        assert databases(bare) == {LIVE}
        driver.back("rollback")
        assert databases(bare) == set()
        assert bare.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'mastodon'").strip() == "0"


# --- elsewhere


def test_a_dump_goes_into_the_embedded_server(
    here: Connection, postgres: Postgres, whole: Source, live: dict[str, int], tmp_path: Path
) -> None:
    processes = Processes("restore-test")
    try:
        server = PostgresServer(tmp_path / "embedded", processes)
        server.start()
        place = DatabasePlace(
            host="127.0.0.1",
            port=server.port,
            name="postgres",
            user="postgres",
            password=Secret(server.password),
            bin_dir=str(server.bin),
        )
        for number, staging in enumerate((None, str(tmp_path / "stage"))):
            database = f"drill{number}"
            job = WatchedJob()
            load_dump(here, place, database=database, owner="postgres", source=whole, job=job, staging=staging)
            assert compare(here, replace(place, name=database), whole.manifest) == ()
            assert sum("staging" in step for step, _ in job.steps) == number
        assert not (tmp_path / "stage").exists()
    finally:
        processes.close()


def test_a_host_of_the_lab_over_ssh(lab: Lab, tmp_path: Path) -> None:
    config = load(lab.config_file)
    host = lab.hosts["social"]
    name = host.database.name
    with open_connection("social", config.hosts["social"]) as connection:
        installation = discover(connection, "social", config.hosts["social"])
        source = Snapshots(tmp_path / "vault").take(connection, installation)
        rows = "SELECT count(*) FROM statuses"
        wanted = lab.postgres.run_sql(rows, name)
        lab.postgres.run_sql("DELETE FROM status_stats; DELETE FROM media_attachments; DELETE FROM statuses", name)
        driver = Driver(connection, installation, source)
        try:
            driver.run()
            assert lab.postgres.run_sql(rows, name) == wanted
            driver.back("undo")
            assert lab.postgres.run_sql(rows, name).strip() == "0"
            driver.run()
        finally:
            driver.forget()
        assert lab.postgres.run_sql(rows, name) == wanted
        left = lab.postgres.run_sql(f"SELECT datname FROM pg_database WHERE datname LIKE '{name}%'").split()
        assert left == [name]
