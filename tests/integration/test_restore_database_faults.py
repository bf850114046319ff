"""Database restores on bad days: the live database is as it was, nothing half-made is left, the message helps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.errors import AssetFailed, Cancelled, ConnectionFailed, Damaged, MastovaultError
from backends.restore import database_swap
from backends.restore.plan import Phase
from backends.restore.source import Source
from backends.vault.directory import DirectoryVault
from tests.servers.backup import WatchedJob, local_host
from tests.servers.database_restore import ID, Driver, Snapshots, counts, databases
from tests.servers.need import need_root
from tests.servers.openssh import OpenSSH
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.apt
LIVE = "mastodon_production"
RESTORED = f"{LIVE}_restore_{ID}"
WAYS = pytest.mark.parametrize("way", ["staged", "streamed"])


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("pg"), {"max_prepared_transactions": "3"}) as server:
        server.load_mastodon(statuses=4000)
        yield server


@pytest.fixture(scope="module")
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Snapshots:
    return Snapshots(tmp_path_factory.mktemp("vault") / "vault")


@pytest.fixture(scope="module")
def whole(postgres: Postgres, host: Connection, snapshots: Snapshots) -> Source:
    return snapshots.take(host, postgres.installation())


@pytest.fixture
def unhurt(postgres: Postgres, tmp_path: Path) -> Iterator[None]:
    """Whatever happened: the live database answers and has its rows, nothing else is there and nothing runs on."""
    before = counts(postgres, LIVE)
    yield
    deadline = time.monotonic() + 15
    while (left := [*postgres.backends(), *programs(postgres)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    assert databases(postgres) == {LIVE}
    assert counts(postgres, LIVE) == before
    assert postgres.sql("SELECT count(*) FROM pg_database WHERE NOT datallowconn").strip() == "1"
    assert not (tmp_path / "stage").exists()


def programs(postgres: Postgres, name: str = "") -> list[int]:
    """Processes of clients of this server."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = process.read_bytes().split(b"\0")
            if f"--port={postgres.port}".encode() in words and words[0].endswith(name.encode()):
                found.append(int(process.parent.name))
    return found


def changed(way: str, tmp_path: Path) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        facts["staging"] = str(tmp_path / "stage") if way == "staged" else None

    return change


def refusal(driver: Driver, kind: type[MastovaultError] = AssetFailed) -> MastovaultError:
    """How a restore fails, in one sentence with a way out."""
    with pytest.raises(kind) as caught:
        driver.run()
    assert "\n" not in caught.value.sentence
    assert caught.value.next_step
    return caught.value


class Meddling(WatchedJob):
    """Does something, once, when a line comes by or a step begins; pg_restore stands still meanwhile."""

    def __init__(self, postgres: Postgres, at: str, act: Callable[[Meddling], None]) -> None:
        super().__init__()
        self._postgres, self._where, self._act = postgres, at, act
        self.meddled = False

    def log(self, line: str) -> None:
        super().log(line)
        self._look(line)

    def step(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        super().step(name, total, unit)
        self._look(name)

    def press(self) -> None:
        """Cancel, from another thread as a run does it."""
        threading.Thread(target=self.cancel).start()
        while not self._cancelled:
            time.sleep(0.001)

    def _look(self, text: str) -> None:
        if self.meddled or self._where not in text:
            return
        found = programs(self._postgres, "pg_restore")
        # Some end by themselves while one looks: a worker of pg_restore, a shell around it.
        stopped = [pid for pid in found if signalled(pid, signal.SIGSTOP)]
        self.meddled = True
        self._act(self)
        for pid in stopped:
            signalled(pid, signal.SIGCONT)


def signalled(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False when there is no such process any more."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


LOADING = 'processing data for table "public.statuses"'


# --- the snapshot is no good


@WAYS
def test_a_duplicate_in_a_unique_index(
    host: Connection, postgres: Postgres, snapshots: Snapshots, unhurt: None, tmp_path: Path, way: str
) -> None:
    source = damaged_snapshot(host, postgres, snapshots)
    driver = Driver(host, postgres.installation(), source, change=changed(way, tmp_path))
    error = refusal(driver)
    assert "unique index index_statuses_on_uri" in error.sentence
    assert "older snapshot" in error.next_step
    log = "\n".join(driver.job.lines)
    assert "Key (uri) is there more than once" in log
    assert "https://twice.example" not in log


def damaged_snapshot(host: Connection, postgres: Postgres, snapshots: Snapshots) -> Source:
    """Of a database whose unique index did not keep two equal rows out, as after a change of the C library."""
    postgres.sql(f"CREATE DATABASE damaged TEMPLATE {LIVE} OWNER mastodon")
    try:
        ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'index_statuses_on_uri'::regclass"
        row = "(id, text, created_at, updated_at, account_id, uri) VALUES ({}, '', now(), now(), 1, 'https://twice.example')"
        postgres.sql(ready.format("false"), "damaged")
        postgres.sql("; ".join(f"INSERT INTO statuses {row.format(number)}" for number in (1, 2)), "damaged")
        postgres.sql(ready.format("true"), "damaged")
        return snapshots.take(host, postgres.installation(postgres.place(database="damaged")))
    finally:
        postgres.sql("DROP DATABASE damaged")


@pytest.mark.parametrize(("harm", "way"), [("truncated", "streamed"), ("flipped", "staged")])
def test_a_damaged_object_is_read_from_the_other_vault(
    host: Connection,
    postgres: Postgres,
    snapshots: Snapshots,
    whole: Source,
    unhurt: None,
    tmp_path: Path,
    way: str,
    harm: str,
) -> None:
    shutil.copytree(snapshots.directory, tmp_path / "bad")
    bad = DirectoryVault("bad", tmp_path / "bad")
    stored = tmp_path / "bad" / snapshots.stored(whole).relative_to(snapshots.directory)
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data[: len(data) * 2 // 3] if harm == "truncated" else data)
    source = Source(manifest=whole.manifest, vaults=[bad, *whole.vaults], identities=whole.identities)
    driver = Driver(host, postgres.installation(), source, change=changed(way, tmp_path))
    error = refusal(driver, Damaged)
    assert databases(postgres) == {LIVE}
    assert isinstance(error, Damaged)
    assert source.give_up_copy(error)
    driver.run(until=Phase.PROVE)
    driver.back("rollback")


def test_rows_that_are_missing_are_noticed(host: Connection, postgres: Postgres, whole: Source, unhurt: None) -> None:
    tables = {**whole.manifest.facts["tables"]}
    tables["public.statuses"] = {**tables["public.statuses"], "rows": 4001}
    driver = Driver(host, postgres.installation(), facts(whole, tables=tables, unique_indexes=3))
    error = refusal(driver)
    assert "statuses has 4000 rows instead of 4001 (and 1 more)" in error.sentence


def blocks(driver: Driver) -> list[Any]:
    return [finding for finding in driver.look().findings if finding.level == "block"]


def facts(source: Source, **changes: Any) -> Source:
    manifest = source.manifest.model_copy(update={"facts": {**source.manifest.facts, **changes}})
    return Source(manifest=manifest, vaults=source.vaults, identities=source.identities)


# --- no room


@contextmanager
def small(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own."""
    need_root("it mounts a small file system")
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=False).returncode:
        pytest.skip("the kernel lets nobody mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)
        path.rmdir()


def test_no_room_for_the_staged_dump(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path
) -> None:
    with small(tmp_path / "small", "256k") as mount:
        driver = Driver(host, postgres.installation(), whole)
        driver.change = lambda known: known.update(staging=str(mount / "stage"))
        driver.run(until=Phase.PROVE)
        assert any("has no room for the dump. It is streamed instead" in line for line in driver.job.lines)
        assert not list(mount.iterdir())
        driver.back("rollback")


@WAYS
def test_no_room_for_the_database(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path, way: str
) -> None:
    with small(postgres.directory / "small", "10m") as mount:
        shutil.chown(mount, postgres.user or os.geteuid())
        mount.chmod(0o700)
        postgres.sql(f"CREATE TABLESPACE small LOCATION '{mount}'")
        postgres.sql("GRANT CREATE ON TABLESPACE small TO mastodon")
        try:
            postgres.sql("CREATE DATABASE tiny OWNER mastodon TEMPLATE template0 TABLESPACE small")
            # A new database is full of holes until a checkpoint writes it
            postgres.sql("CHECKPOINT")
            driver = Driver(host, postgres.installation(postgres.place(database="tiny")), whole)
            driver.change = changed(way, tmp_path)
            look = driver.look()
            (blocked,) = [finding for finding in look.findings if finding.level == "block"]
            assert f"{mount} has" in blocked.text
            assert "Free" in blocked.way_out
            load = driver.actions(look)[0]
            with pytest.raises(AssetFailed, match="ran out of room") as caught:
                load.do(driver.work())
            assert "Free some space" in caught.value.next_step
            load.undo(driver.work())
            assert databases(postgres) == {LIVE, "tiny"}
        finally:
            postgres.sql("DROP DATABASE IF EXISTS tiny")
            postgres.sql("DROP TABLESPACE small")


# --- cut, cancelled, killed


@WAYS
def test_the_connection_is_cut_while_loading(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path, way: str
) -> None:
    with OpenSSH(tmp_path / "sshd") as sshd:
        job = Meddling(postgres, LOADING, lambda job: sshd.cut())
        with open_connection("social", sshd.host_config()) as connection:
            driver = Driver(connection, postgres.installation(), whole, job=job, change=changed(way, tmp_path))
            with pytest.raises(ConnectionFailed):
                driver.run(walk_back=False)
            assert job.meddled
    # As over a new connection
    driver.connection = host
    driver.run(until=Phase.PROVE)
    driver.back("rollback")


def test_the_connection_is_cut_while_staging_and_rolled_back(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path
) -> None:
    with OpenSSH(tmp_path / "sshd") as sshd:
        job = Meddling(postgres, "staging the dump", lambda job: sshd.cut())
        with open_connection("social", sshd.host_config()) as connection:
            driver = Driver(connection, postgres.installation(), whole, job=job, change=changed("staged", tmp_path))
            with pytest.raises(ConnectionFailed):
                driver.run(walk_back=False)
    driver.connection = host
    driver.back("rollback")


@pytest.mark.parametrize(
    ("at", "way"),
    [
        ("staging the dump", "staged"),
        (LOADING, "staged"),
        (LOADING, "streamed"),
        ("counting rows", "streamed"),
        ("analysing", "streamed"),
        ("ending sessions and renaming", "streamed"),
    ],
)
def test_cancel(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path, at: str, way: str
) -> None:
    job = Meddling(postgres, at, Meddling.press)
    driver = Driver(host, postgres.installation(), whole, job=job, change=changed(way, tmp_path))
    with pytest.raises(Cancelled):
        driver.run()
    assert job.meddled


def test_pg_restore_is_killed(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path
) -> None:
    def kill(job: Meddling) -> None:
        for pid in programs(postgres, "pg_restore"):
            os.kill(pid, signal.SIGKILL)

    driver = Driver(host, postgres.installation(), whole, job=Meddling(postgres, LOADING, kill))
    driver.change = changed("staged", tmp_path)
    assert "pg_restore" in refusal(driver).sentence


def test_the_servers_side_is_ended(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path
) -> None:
    job = Meddling(postgres, LOADING, lambda job: end_sessions(postgres, RESTORED))
    driver = Driver(host, postgres.installation(), whole, job=job, change=changed("streamed", tmp_path))
    assert "ended the load" in refusal(driver).sentence


def end_sessions(postgres: Postgres, database: str) -> None:
    postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")


# --- somebody holds the database


@contextmanager
def holding(postgres: Postgres, user: str, script: str) -> Iterator[None]:
    """A client that is in the live database, until the end or until it is thrown out."""
    psql = f"{postgres.bin}/psql -XqAt -h 127.0.0.1 -p {postgres.port} -U {user} -d {LIVE}"
    environment = {**os.environ, "PGPASSWORD": postgres.password, "PGAPPNAME": "holder"}
    argv = ["sh", "-c", script.replace("PSQL", psql)]
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while "holder" not in postgres.backends() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # A server that sleeps does not notice that its client is gone
        end_sessions(postgres, LIVE)


def test_clients_that_come_back_at_once(host: Connection, postgres: Postgres, whole: Source, unhurt: None) -> None:
    driver = Driver(host, postgres.installation(), whole)
    driver.run(until=Phase.PROVE)
    again = "while :; do PSQL -c 'SELECT pg_sleep(100)'; done"
    with holding(postgres, "mastodon", f"({again}) & ({again}) & ({again}) & wait"):
        driver.run()
        assert driver.took["database.swap"] < 10
        for _ in range(2):
            driver.back("rollback")


def test_a_client_that_cannot_be_ended_is_named(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_swap, "PATIENCE", 0.5)
    driver = Driver(host, postgres.installation(), whole)
    with holding(postgres, "postgres", "PSQL -c 'SELECT pg_sleep(100)'"):
        look = driver.look()
        assert any("postgres (holder)" in finding.text for finding in look.findings)
        error = refusal(driver)
        assert "could not be ended: postgres (holder, process" in error.sentence
        assert "pg_terminate_backend" in error.next_step


def test_a_prepared_transaction_is_found_at_the_look(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None
) -> None:
    postgres.sql("BEGIN; SELECT 1; PREPARE TRANSACTION 'forgotten'", LIVE)
    try:
        (blocked,) = blocks(Driver(host, postgres.installation(), whole))
        assert "1 prepared transactions" in blocked.text
        driver = Driver(host, postgres.installation(), whole)
        *before, swap = driver.actions()
        for action in before:
            action.do(driver.work())
        with pytest.raises(AssetFailed, match="prepared transaction"):
            swap.do(driver.work())
        driver.began = [*before, swap]
        driver.back("rollback")
    finally:
        postgres.sql("ROLLBACK PREPARED 'forgotten'", LIVE)


def test_the_connection_is_cut_while_swapping(
    host: Connection,
    postgres: Postgres,
    whole: Source,
    unhurt: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_swap, "PATIENCE", 2.0)
    closed = f"SELECT count(*) FROM pg_database WHERE datname = '{LIVE}' AND NOT datallowconn"
    driver = Driver(host, postgres.installation(), whole)
    *before, swap = driver.actions()
    for action in before:
        action.do(driver.work())
    driver.began = [*before, swap]
    with (
        OpenSSH(tmp_path / "sshd") as sshd,
        open_connection("social", sshd.host_config()) as driver.connection,
        holding(postgres, "postgres", "PSQL -c 'SELECT pg_sleep(100)'"),
    ):
        cutter = threading.Thread(target=cut_when, args=(sshd, postgres, closed))
        cutter.start()
        with pytest.raises(ConnectionFailed):
            swap.do(driver.work())
        cutter.join()
        # The server itself opens the database again
        wait_for(postgres, closed, "0")
    driver.connection = host
    swap.do(driver.work())
    assert RESTORED not in databases(postgres)
    driver.back("rollback")


def cut_when(sshd: OpenSSH, postgres: Postgres, query: str) -> None:
    wait_for(postgres, query, "1")
    sshd.cut()


def wait_for(postgres: Postgres, query: str, answer: str) -> None:
    deadline = time.monotonic() + 60
    while postgres.sql(query).strip() != answer:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- two restores


def test_two_restores_do_not_meet(host: Connection, postgres: Postgres, whole: Source, unhurt: None) -> None:
    first, second = (Driver(host, postgres.installation(), whole, id=name) for name in (ID, "20261123t000000"))
    first.run(until=Phase.PROVE)
    look = second.run()
    assert any(f"{RESTORED} is left of the restore {ID}" in finding.text for finding in look.findings)
    first.run()
    with pytest.raises(AssetFailed, match="was replaced again since this restore") as caught:
        second.back("undo")
    assert caught.value.next_step == "Undo the later restore first."
    first.back("rollback")
    second.back("rollback")
