"""Database backups that cannot be: one clear sentence each, nothing committed, nothing left running."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from backends.archive.manifest import ObjectEntry
from backends.archive.snapshot import Source
from backends.assets import database_programs
from backends.assets.base import BackupContext, Outcome
from backends.assets.database import HANDLER
from backends.assets.database_facts import RowCounts, survey
from backends.assets.database_globals import dump_globals
from backends.assets.database_programs import find_programs
from backends.assets.database_session import open_session
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.errors import AssetFailed, Cancelled, ConnectionFailed, MastovaultError, VaultFull
from backends.mastodon.installation import DatabasePlace
from backends.model import Secret
from backends.progress import QuietJob
from tests.servers.backup import MemoryWriter, WatchedJob, local_host
from tests.servers.openssh import OpenSSH
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.apt


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("pg")) as server:
        # Large enough to fill every pipe between pg_dump and us many times over
        server.load_mastodon(statuses=40_000)
        yield server


@pytest.fixture(scope="module")
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


@pytest.fixture
def fake(postgres: Postgres, tmp_path: Path) -> Callable[..., str]:
    """A directory of PostgreSQL's programs in which scripts stand for some, to inject a fault."""

    def make(**scripts: str) -> str:
        for name in ("psql", "pg_dump", "pg_dumpall"):
            path = tmp_path / name
            if name not in scripts:
                path.symlink_to(postgres.bin / name)
            elif scripts[name]:
                path.write_text(f"#!/bin/sh\nreal={postgres.bin}/{name}\n{scripts[name]}\n")
                path.chmod(0o755)
        return str(tmp_path)

    return make


def back_up(host: Connection, postgres: Postgres, place: DatabasePlace | None = None, job: Any = None) -> Outcome:
    context = BackupContext(connection=host, installation=postgres.installation(place), job=job or WatchedJob())
    return HANDLER.back_up(context, HeldWriter(job) if isinstance(job, Interfering) else MemoryWriter())


def refusal(host: Connection, postgres: Postgres, place: DatabasePlace | None = None, job: Any = None) -> AssetFailed:
    """How a backup fails; the password is in no part of it, and no session is left."""
    with pytest.raises(AssetFailed) as caught:
        back_up(host, postgres, place, job)
    error = caught.value
    assert error.next_step
    assert "\n" not in error.sentence
    assert postgres.password not in repr(error) + error.sentence + error.next_step
    return error


def nothing_left(postgres: Postgres) -> None:
    """Every session is closed and every program gone; the server notices a dead client within a moment."""
    deadline = time.monotonic() + 10
    while (left := [*postgres.backends(), *programs(postgres)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def programs(postgres: Postgres) -> list[int]:
    """Processes of clients of this server."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"--port={postgres.port}".encode() in words and b"sh" not in words[0]:
            found.append(int(process.parent.name))
    return found


def dumping(postgres: Postgres) -> list[int]:
    """The process of pg_dump itself."""
    return [pid for pid in programs(postgres) if name_of(pid) == "pg_dump"]


def name_of(pid: int) -> str:
    """What the kernel calls a process; "" when it has ended, also while one looks: that is ESRCH, not ENOENT."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Interfering(WatchedJob):
    """Does something in the middle of the dump, while pg_dump stands still with most of its work before it."""

    def __init__(self, postgres: Postgres, interfere: Callable[[int], None]) -> None:
        super().__init__()
        self._postgres = postgres
        self._interfere = interfere
        self.interfered = threading.Event()

    def log(self, line: str) -> None:
        super().log(line)
        if 'dumping contents of table "public.accounts"' in line and not self.interfered.is_set():
            (pid,) = dumping(self._postgres)
            os.kill(pid, signal.SIGSTOP)
            # Said first: what it does may end the backup before this thread goes on.
            self.interfered.set()
            self._interfere(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class HeldWriter(MemoryWriter):
    """Takes nothing of the dump before the job interfered, so that the dump cannot be over by then."""

    def __init__(self, job: Interfering) -> None:
        super().__init__()
        self._job = job

    def write(
        self, name: str, source: Source, *, compress: bool, already: tuple[Literal["zstd"], ...] = ()
    ) -> ObjectEntry:
        if name != "globals.sql":
            self._job.interfered.wait(60)
        return super().write(name, source, compress=compress, already=already)


# --- before it begins


def test_postgres_is_down(host: Connection, postgres: Postgres) -> None:
    place = postgres.place(port=1)
    error = refusal(host, postgres, place)
    assert error.sentence == "PostgreSQL on social does not answer (mastodon_production at 127.0.0.1:1)."
    seen = HANDLER.probe(host, postgres.installation(place))
    assert seen.warnings == (error.sentence,)
    assert HANDLER.plan_backup(host, postgres.installation(place)).blocked.startswith(error.sentence)
    socket = refusal(host, postgres, postgres.place(host="/nonexistent"))
    assert "does not answer (mastodon_production at /nonexistent/" in socket.sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"password": Secret("wrong")}, "PostgreSQL on social refused the password of mastodon."),
        ({"password": None}, "PostgreSQL on social wants a password of mastodon, and none is set."),
        ({"name": "nothing\x1b[2J"}, "PostgreSQL on social has no database nothing�[2J."),
        ({"name": "postgres"}, "holds no table of Mastodon: neither accounts nor schema_migrations."),
        ({"port": 6432}, "is reached through PgBouncer"),
        ({"bin_dir": "/nonexistent"}, "pg_dump was not found on social in /nonexistent."),
    ],
)
def test_places_that_do_not_work(host: Connection, postgres: Postgres, changes: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(host, postgres, postgres.place(**changes)).sentence
    nothing_left(postgres)


def test_pg_dump_is_nowhere(
    host: Connection, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sh", "env", "sleep", "kill"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(database_programs, "WELL_KNOWN", "/nonexistent")
    error = refusal(host, postgres, postgres.place(bin_dir=None, server_version=150018))
    assert error.sentence == "pg_dump was not found on social."
    assert "postgresql-client-15" in error.next_step


def test_the_servers_own_pg_dump_is_found_where_packages_put_it(host: Connection, postgres: Postgres) -> None:
    found = find_programs(host, postgres.place(bin_dir=None))
    assert any(programs.pg_dump == f"{postgres.bin}/pg_dump" for programs in found.sets)


def test_pg_dump_is_older_than_the_server(host: Connection, postgres: Postgres, fake: Callable[..., str]) -> None:
    old = fake(pg_dump="echo 'pg_dump (PostgreSQL) 13.4 (Debian 13.4-1)'")
    error = refusal(host, postgres, postgres.place(bin_dir=old))
    assert re.fullmatch(r"pg_dump 13\.4 on social is older than its server, PostgreSQL \d+\.", error.sentence)
    seen = HANDLER.probe(host, postgres.installation(postgres.place(bin_dir=old)))
    assert seen.warnings == (error.sentence,)
    assert seen.bytes


def test_a_pooler_that_drops_our_options_is_noticed(
    host: Connection, postgres: Postgres, fake: Callable[..., str]
) -> None:
    pooled = fake(psql='unset PGOPTIONS; exec "$real" "$@"')
    assert "reached through PgBouncer" in refusal(host, postgres, postgres.place(bin_dir=pooled)).sentence
    nothing_left(postgres)


def test_a_pooler_that_refuses_our_options_is_noticed(
    host: Connection, postgres: Postgres, fake: Callable[..., str]
) -> None:
    said = "psql: error: connection failed: FATAL:  unsupported startup parameter: options"
    pooled = fake(psql=f"echo '{said}' >&2; exit 2")
    assert "reached through PgBouncer" in refusal(host, postgres, postgres.place(bin_dir=pooled)).sentence


# --- while it runs


def test_pg_dump_dies_in_the_middle(host: Connection, postgres: Postgres) -> None:
    job = Interfering(postgres, lambda pid: os.kill(pid, signal.SIGKILL))
    error = refusal(host, postgres, job=job)
    assert job.interfered.is_set(), error.sentence
    assert error.sentence == "pg_dump on social was ended before it had finished (signal SIGKILL)."
    nothing_left(postgres)


def test_pg_dump_dies_in_the_middle_without_a_shell_around_it(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zstd").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "zstd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = Interfering(postgres, lambda pid: os.kill(pid, signal.SIGTERM))
    with local_host() as host:
        error = refusal(host, postgres, job=job)
    assert job.interfered.is_set(), error.sentence
    assert error.sentence == "pg_dump on social was ended before it had finished (terminated by somebody)."
    nothing_left(postgres)


def test_the_servers_side_dies_in_the_middle(host: Connection, postgres: Postgres) -> None:
    ended: list[str] = []
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mastovault'"
    job = Interfering(postgres, lambda pid: ended.extend(postgres.sql(query).split()))
    error = refusal(host, postgres, job=job)
    assert "t" in ended
    assert error.sentence == "PostgreSQL on social ended the connection in the middle of the work."
    nothing_left(postgres)


def test_zstd_dies_in_the_middle(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Answers the look before the backup, then takes only a part
    script = '#!/bin/sh\nif [ "$(head -c 1)" = . ]; then exit 0; fi\n'
    script += "{ printf P; head -c 3000000; } | /usr/bin/zstd -q -3 -c\nexit 7\n"
    (tmp_path / "zstd").write_text(script)
    (tmp_path / "zstd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with local_host() as host:
        error = refusal(host, postgres)
    assert error.sentence == "zstd on social failed with status 7, so the dump is not whole."
    nothing_left(postgres)


def test_a_dump_that_ends_early_but_well_is_no_dump(
    host: Connection, postgres: Postgres, fake: Callable[..., str]
) -> None:
    """The disaster of `docker exec -t … > file`: exit status 0, and 200 bytes."""
    short = fake(
        pg_dump='case "$*" in *--snapshot*) "$real" "$@" 2>/dev/null | head -c 200; exit 0;; esac; exec "$real" "$@"'
    )
    error = refusal(host, postgres, postgres.place(bin_dir=short))
    assert re.fullmatch(r"The dump from social has \d+ bytes, too few for the tables it should hold\.", error.sentence)


def test_an_empty_dump_is_no_dump(host: Connection, postgres: Postgres, fake: Callable[..., str]) -> None:
    empty = fake(pg_dump='case "$*" in *--snapshot*) exit 0;; esac; exec "$real" "$@"')
    assert refusal(host, postgres, postgres.place(bin_dir=empty)).sentence == "What social sent is empty."


def test_a_program_that_greets_before_the_dump(host: Connection, postgres: Postgres, fake: Callable[..., str]) -> None:
    loud = fake(pg_dump='case "$*" in *--snapshot*) echo "Welcome to social!";; esac; exec "$real" "$@"')
    error = refusal(host, postgres, postgres.place(bin_dir=loud))
    assert error.sentence.startswith("What social sent is no PostgreSQL dump: it begins with “Welcome to social!")
    nothing_left(postgres)


def test_a_greeting_of_the_login_shell_does_no_harm(postgres: Postgres, tmp_path: Path) -> None:
    program = "/bin/sh -c 'echo Welcome to social!; eval \"$SSH_ORIGINAL_COMMAND\"'"
    with (
        OpenSSH(tmp_path / "sshd", options=f"ForceCommand {program}") as sshd,
        open_connection("social", sshd.host_config()) as host,
    ):
        assert back_up(host, postgres).facts["tables"]["public.statuses"]["rows"] == 40_000


def test_the_connection_is_cut_in_the_middle(postgres: Postgres, tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "sshd") as sshd, open_connection("social", sshd.host_config()) as host:
        job = Interfering(postgres, lambda pid: sshd.cut())
        with pytest.raises(ConnectionFailed) as caught:
            back_up(host, postgres, job=job)
    assert job.interfered.is_set()
    assert caught.value.retryable
    nothing_left(postgres)


class Cancelling(Interfering):
    """The operator cancels in the middle; from another thread, as a run does."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__(postgres, lambda pid: self._press())

    def _press(self) -> None:
        threading.Thread(target=self.cancel).start()
        while not self._cancelled:
            time.sleep(0.001)


def test_cancel_ends_everything_on_the_host(postgres: Postgres, tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "sshd") as sshd, open_connection("social", sshd.host_config()) as host:
        job = Cancelling(postgres)
        with pytest.raises(Cancelled):
            back_up(host, postgres, job=job)
        assert job.interfered
        nothing_left(postgres)


def test_cancel_while_everything_waits_for_a_lock(host: Connection, postgres: Postgres) -> None:
    with open_session(host, postgres.place(), str(postgres.bin / "psql")) as holder:
        holder._exchange("BEGIN; LOCK TABLE statuses IN ACCESS EXCLUSIVE MODE; SELECT 1;", 10)
        job = WatchedJob()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        results: list[BaseException] = []
        thread = threading.Thread(target=lambda: results.append(outcome_of(lambda: back_up(host, postgres, job=job))))
        thread.start()
        deadline = time.monotonic() + 20
        while postgres.sql(waiting).strip() == "0" and time.monotonic() < deadline:
            time.sleep(0.02)
        job.cancel()
        thread.join(20)
        assert isinstance(results[0], Cancelled)
    nothing_left(postgres)


def test_a_vault_that_fills_up_ends_the_dump(host: Connection, postgres: Postgres) -> None:
    class Full(MemoryWriter):
        def write(self, name: str, source: Source, **options: Any) -> ObjectEntry:
            source.read(1000)
            raise VaultFull("the vault local is full", "Make room.")

    context = BackupContext(connection=host, installation=postgres.installation(), job=WatchedJob())
    with pytest.raises(VaultFull):
        HANDLER.back_up(context, Full())
    nothing_left(postgres)


def outcome_of(work: Callable[[], Any]) -> BaseException:
    try:
        work()
    except MastovaultError as error:
        return error
    return AssertionError("it went well")


# --- roles and counts


def test_roles_that_cannot_be_had_are_said_and_fail_nothing(
    host: Connection, postgres: Postgres, fake: Callable[..., str]
) -> None:
    without = fake(pg_dumpall="echo 'pg_dumpall: error: no \x1b[1mroles today' >&2; exit 1")
    job = WatchedJob()
    outcome = back_up(host, postgres, postgres.place(bin_dir=without), job)
    assert outcome.facts["globals"] == "missing"
    assert outcome.facts["warnings"] == ["roles are not in this backup: no �[1mroles today"]
    assert not job.warnings


def test_roles_cut_short_are_not_taken_for_whole(
    host: Connection, postgres: Postgres, fake: Callable[..., str]
) -> None:
    cut_short = fake(pg_dumpall='"$real" "$@" | head -c 300')
    place = postgres.place(user="postgres", bin_dir=cut_short)
    programs = find_programs(host, place).for_server(150000)
    assert dump_globals(host, place, programs, QuietJob(), passwords=True).kind == "missing"


def test_tables_too_large_to_wait_for_are_estimated(host: Connection, postgres: Postgres) -> None:
    with open_session(host, postgres.place(), str(postgres.bin / "psql")) as session:
        session.begin()
        known = survey(session)
        large = known.tables[-1]
        assert large.name == "public.statuses"
        session.terminate()
        counts = RowCounts(session, known.tables, at_once=large.bytes)
        counts.start()
        facts, why = counts.finish(grace=0)
    assert facts["public.statuses"]["exact"] is False
    assert facts["public.statuses"]["rows"] == pytest.approx(40_000, rel=0.05)
    assert why.startswith("rows of ")
