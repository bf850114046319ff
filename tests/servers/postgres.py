"""A real PostgreSQL (Debian's) on loopback and a unix socket, run as an unprivileged user, with Mastodon's tables."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from backends import lab
from backends.embedded.ports import free_port
from backends.mastodon.installation import DatabasePlace, Installation, InstallKind
from backends.model import Secret

_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "listen_addresses": "127.0.0.1",
    "autovacuum": "off",
    "timezone": "UTC",
    "lc_messages": "C",
}
_TEXT = """the of and to in a is that for it as was with be by on not he his but at are this have from or had an they
which one you were her all she there would their we him been has when who will more no if out so said what up its about
into than them can only other new some could time these two may then do first any my now such like our over man me even
most made after also did many before must through back years where much your way well down should because each just
server federation instance timeline boost toot fediverse moderation hashtag emoji alt text picture cat coffee train rain
bicycle garden release kernel python rust music radio book film weather morning evening weekend"""
_WORDS = _TEXT.split()


def postgres_bin() -> Path:
    """Where Debian keeps the newest server; the test is skipped by name where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.skip("Debian's PostgreSQL server is missing: run scripts/test-servers")
    return found[-1].parent


def unprivileged_user() -> str | None:
    """Who runs the server: PostgreSQL refuses root. None when the tests are not root themselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Postgres:
    """One cluster; `with Postgres(directory) as pg:` makes, starts, stops and removes it.

    Its superuser is `postgres` (by password over TCP, by peer over the socket), Mastodon's `mastodon`.
    """

    def __init__(self, directory: Path, settings: dict[str, str] | None = None) -> None:
        self.bin = postgres_bin()
        self.port = free_port()
        self.password = f"pw-{secrets.token_hex(12)}"
        self.user = unprivileged_user()
        self._settings = _SETTINGS | (settings or {})
        # Directories of pytest are root's alone; a socket's path must be short, too.
        outside = self.user is not None or len(str(directory)) > 60
        self.directory = Path(tempfile.mkdtemp(prefix="mastovault-pg-")) if outside else directory
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, making the cluster first if there is none, and wait until it takes connections."""
        if not self.data.exists():
            self._make()
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        socket_dir = f"-cunix_socket_directories={self.directory}"
        argv = [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port), socket_dir, *options]
        self._process = subprocess.Popen(argv, stderr=subprocess.PIPE, cwd="/", **self._identity())
        self._await_ready(self._process)
        return self

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it (`SIGINT`: fast, `SIGQUIT`: as after a crash); the cluster stays. Idempotent."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def remove(self) -> None:
        """Stop it and remove the cluster."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def sql(self, script: str, database: str = "postgres", user: str = "postgres") -> str:
        """Run SQL past everything that is tested; returns what it prints, unaligned."""
        return self.client("psql", "-XqAt", "-vON_ERROR_STOP=1", "-U", user, "-d", database, stdin=script)

    def client(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        """Run one of PostgreSQL's own programs against the server over TCP; returns its stdout."""
        argv = [str(self.bin / program), "-h", "127.0.0.1", "-p", str(self.port), *arguments]
        environment = {**os.environ, "PGPASSWORD": self.password, "LC_ALL": "C"}
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load_mastodon(self, database: str = "mastodon_production", *, statuses: int = 500, words: int = 30) -> None:
        """Make a database with Mastodon's tables, indexes, views and function, and rows in it."""
        known = self.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'mastodon'").strip()
        if known == "0":
            self.sql(f"CREATE ROLE mastodon LOGIN CREATEDB PASSWORD '{self.password}'")
        self.sql(f'CREATE DATABASE "{database}" OWNER mastodon TEMPLATE template0')
        schema = Path(lab.__file__).parent
        tables = (schema / "schema.sql").read_text().replace("@SALT@", secrets.token_hex(16))
        indexes = (schema / "indexes.sql").read_text()
        rows = _ROWS.format(statuses=statuses, words=words, list="{" + ",".join(_WORDS) + "}")
        self.sql("\n".join((tables, rows, indexes, "VACUUM ANALYZE;")), database, "mastodon")

    def place(self, database: str = "mastodon_production", **changes: Any) -> DatabasePlace:
        """As discovery would report it: over TCP, with the password, and this server's own programs."""
        values: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "name": database,
            "user": "mastodon",
            "password": Secret(self.password),
            "bin_dir": str(self.bin),
        }
        return DatabasePlace(**(values | changes))

    def installation(self, place: DatabasePlace | None = None) -> Installation:
        """A native installation whose database this is."""
        return Installation(
            host="social",
            kind=InstallKind.NATIVE,
            root="/home/mastodon/live",
            user="mastodon",
            version="4.7.4",
            database=place or self.place(),
        )

    def backends(self) -> Sequence[str]:
        """Application names of the sessions that are open, this one left out."""
        query = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return self.sql(f"{query} AND pid <> pg_backend_pid()").split()

    def _make(self) -> None:
        if self.user:
            shutil.chown(self.directory, self.user)
        self.directory.chmod(0o755)
        read, write = os.pipe()
        os.write(write, f"{self.password}\n".encode())
        os.close(write)
        argv = [str(self.bin / "initdb"), "-D", str(self.data), "-U", "postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
        options = ["--auth=scram-sha-256", f"--pwfile=/dev/fd/{read}", "--no-sync", "--no-instructions"]
        if self.user:
            os.fchown(read, pwd.getpwnam(self.user).pw_uid, -1)
        done = subprocess.run(
            [*argv, *options],
            capture_output=True,
            text=True,
            cwd="/",
            pass_fds=(read,),
            check=False,
            **self._identity(),
        )
        os.close(read)
        assert done.returncode == 0, done.stderr
        system_user = self.user or pwd.getpwuid(os.geteuid()).pw_name
        (self.data / "pg_ident.conf").write_text(f"super {system_user} postgres\n")
        (self.data / "pg_hba.conf").write_text(
            "local all postgres peer map=super\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
            "host replication all 127.0.0.1/32 scram-sha-256\n"
        )

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.decode(errors="replace"))
            if b"ready to accept connections" in line or b"ready to accept read-only connections" in line:
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return
        raise AssertionError("PostgreSQL did not start:\n" + "".join(said))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.remove()


# Keys are what Rails' encryptor would leave in shape only; nothing here is opened.
_ROWS = """
INSERT INTO schema_migrations SELECT (20160220174730 + g::bigint * 100000000)::text FROM generate_series(0, 100) g;
INSERT INTO schema_migrations VALUES ('20260702144128');
INSERT INTO ar_internal_metadata VALUES ('environment', 'production', now(), now());
INSERT INTO accounts (id, username, domain, created_at, updated_at, note, uri, public_key)
  SELECT g, 'user' || g, CASE WHEN g % 10 > 0 THEN 'remote' || g % 17 || '.example' END, now(), now(),
    md5(g::text), 'https://remote.example/users/' || g, md5(g::text) || md5((g + 1)::text)
  FROM generate_series(1, greatest(20, {statuses} / 10)) g;
INSERT INTO users (email, created_at, updated_at, account_id, confirmation_token)
  SELECT username || '@social.example', now(), now(), id, md5(id::text) FROM accounts WHERE domain IS NULL;
UPDATE users SET otp_secret = '{{"p":"c2VjcmV0","h":{{"iv":"aXY=","at":"YXQ="}}}}' WHERE id = 1;
INSERT INTO keypairs (account_id, uri, type, public_key, private_key, created_at, updated_at)
  SELECT id, uri || '#main-key', 0, public_key, '{{"p":"' || md5(uri) || '","h":{{"iv":"aXY=","at":"YXQ="}}}}',
    now(), now()
  FROM accounts WHERE domain IS NULL;
INSERT INTO statuses (id, uri, text, created_at, updated_at, account_id, visibility, local, language)
  SELECT (112000000000000000 + g::bigint * 65536), 'https://remote.example/statuses/' || md5(g::text),
    (SELECT string_agg(('{list}'::text[])[1 + (hashint8(g::bigint * 1009 + k) & 127)], ' ')
      FROM generate_series(1, {words}) k),
    timestamp '2026-11-01' + g * interval '1 second', now(), 1 + g % greatest(20, {statuses} / 10), 0, g % 10 = 0, 'en'
  FROM generate_series(1, {statuses}) g;
INSERT INTO media_attachments (id, status_id, file_file_name, created_at, updated_at, account_id, shortcode)
  SELECT id + 1, id, md5(id::text) || '.png', now(), now(), account_id, md5((id + 1)::text)
  FROM statuses WHERE id % 7 = 0;
INSERT INTO domain_blocks (domain, created_at, updated_at) VALUES ('bad.example', now(), now());
SELECT count(nextval('statuses_id_seq')) FROM generate_series(1, 500);
"""
