"""What pg_restore says while it works, without any row of a table in it; and how far it has come."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress

from backends.assets.database_follow import LineSplitter
from backends.assets.database_session import Session, open_session
from backends.connection.base import Connection
from backends.errors import AssetFailed, MastovaultError
from backends.mastodon.installation import DatabasePlace
from backends.progress import Job
from backends.restore.database_names import literal
from backends.untrusted import clean

_MAX_LOGGED = 2000
_KEPT = 20
_DATA = re.compile(r'processing data for table "(.+)"$')
_BUILT = re.compile(r'pg_restore: creating (?:(?:UNIQUE )?INDEX|(?:FK |CHECK )?CONSTRAINT|MATERIALIZED VIEW DATA) "')
# The rest of a COPY line or of a duplicate key stands in these, and with it tokens and private posts.
_ROWS = re.compile(r"^\s*(?:DETAIL|CONTEXT|QUERY|STATEMENT|HINT|LINE \d+)\b")
_KEY = re.compile(r"DETAIL:  Key \(([^()=]{1,200})\)=")
_QUIET = re.compile(
    r"pg_restore: (?:processing item|launching item|finished item|creating|executing|entering|connecting)"
)
_SERIOUS = re.compile(r"\b(?:error|fatal|panic|warning)\b", re.IGNORECASE)
_POLL_SECONDS = 1.0
_PATIENCE = 5.0


class RestoreWatch:
    """Listens to the stderr of pg_restore (and of what stands before it in a pipeline)."""

    def __init__(self, job: Job, marker: str = "", on_built: Callable[[], None] = lambda: None) -> None:
        """`marker` begins the line in which a pipeline's stages tell their statuses; `on_built` counts indexes."""
        self._job = job
        self._marker = marker
        self._on_built = on_built
        self._splitter = LineSplitter(self._line)
        self._logged = 0
        self.statuses: dict[str, int] = {}
        self.said: list[str] = []

    def feed(self, data: bytes) -> None:
        """The next piece of stderr; called from a thread of the connection."""
        self._splitter.feed(data)

    def finish(self) -> None:
        """Stderr has ended."""
        self._splitter.finish()

    def _line(self, line: str) -> None:
        if self._marker and line.startswith(self._marker):
            words = line[len(self._marker) :].split()
            for name, status in zip(words[::2], words[1::2], strict=False):
                if status.isascii() and status.isdigit():
                    self.statuses[name] = int(status)
            return
        if _BUILT.search(line):
            self._on_built()
        shown = without_rows(line)
        if not shown:
            return
        if _SERIOUS.search(line) and not _DATA.search(line):
            self.said = [*self.said, clean(shown, 500)][-_KEPT:]
        elif _QUIET.match(line) or not shown.startswith(("pg_restore:", "zstd:", "DETAIL:")):
            return
        self._logged += 1
        if self._logged <= _MAX_LOGGED:
            self._job.log(shown)


def without_rows(line: str) -> str:
    """A line of stderr that may be kept: what can hold a row of a table is cut down to the names in it, or empty."""
    if key := _KEY.search(line):
        return f"DETAIL:  Key ({key[1]}) is there more than once."
    return "" if _ROWS.match(line) else line.rstrip()


class SizeWatch:
    """Follows the size of a database that is being filled, in a thread and a session of its own."""

    def __init__(self, connection: Connection, place: DatabasePlace, psql: str, database: str, job: Job) -> None:
        self._connection, self._place, self._psql, self._database = connection, place, psql, database
        self._job = job
        self._stop = threading.Event()
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._watch, name="database size", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive() and self._session is not None:
            self._session.terminate()
            self._thread.join()

    def _watch(self) -> None:
        # Progress is a courtesy: what goes wrong here goes wrong in the load itself too, and is told there.
        with suppress(MastovaultError, TypeError, ValueError):
            query = f"SELECT to_jsonb(pg_database_size({literal(self._database)}))"
            first = seen = None
            with open_session(self._connection, self._place, self._psql) as session:
                self._session = session
                while not self._stop.is_set():
                    size = int(session.ask(query, timeout=30))
                    first = size if first is None else first
                    seen = first if seen is None else seen
                    if size > seen:
                        self._job.advance(size - seen)
                        seen = size
                    self._stop.wait(_POLL_SECONDS)


class Unsound(AssetFailed):
    """The dump itself is no good: it would not load anywhere."""


_FAULTS: tuple[tuple[str, str, str], ...] = (
    (
        r'could not create unique index "(?P<what>[^"]{1,200})"',
        "The snapshot holds rows that the unique index {what} forbids: that index was damaged on the server when the"
        " snapshot was made.",
        "Restore an older snapshot; or mend the server it came from (tootctl maintenance fix-duplicates, then REINDEX)"
        " and back it up again.",
    ),
    (
        r'violates foreign key constraint "(?P<what>[^"]{1,200})"',
        "The snapshot holds rows that the foreign key {what} forbids: the server it came from was damaged.",
        "Restore an older snapshot, or mend that server and back it up again.",
    ),
    (
        r"could not resize shared memory segment",
        "PostgreSQL on {host} has too little shared memory to build an index.",
        "Give it more (shm_size of the container, or lower maintenance_work_mem) and restore again.",
    ),
    (
        r"No space left on device",
        "PostgreSQL on {host} ran out of room while the dump was loaded.",
        "Free some space there and restore again.",
    ),
    (
        r"unsupported version \((?P<what>[\d.]{1,20})\) in file header",
        "pg_restore on {host} is too old for the dump's format {what}.",
        "Install the PostgreSQL client of the version that made the dump there.",
    ),
    (
        r"unrecognized configuration parameter",
        "pg_restore on {host} is newer than its server and does not work with it.",
        "Install the client of the server's own version there.",
    ),
    (
        r'role "(?P<what>[^"]{1,100})" does not exist',
        "The snapshot grants rights to the role {what}, which PostgreSQL on {host} does not have.",
        'Make it there (CREATE ROLE "{what}" NOLOGIN) and restore again.',
    ),
    (
        r'could not open extension control file|extension "[^"]{1,100}" (?:is not available|does not exist)',
        "The snapshot needs an extension that PostgreSQL on {host} does not have: {last}",
        "Install it there and restore again.",
    ),
    (
        r"could not read from input file|unexpected end of file|did not find magic string|corrupt|invalid entry|"
        r"could not find block ID|data in (?:the )?archive|input file appears|could not uncompress",
        "The snapshot's dump is damaged: {last}",
        "Restore another snapshot; `mastovault verify` finds out which ones are whole.",
    ),
    (
        r"terminating connection due to administrator command|server closed the connection unexpectedly",
        "PostgreSQL on {host} ended the load: it was stopped, restarted or ran out of memory.",
        "Look at PostgreSQL's own log there, then restore again.",
    ),
)


def load_failure(said: list[str], host: str) -> AssetFailed | None:
    """What pg_restore's complaint means; None when it is none of the known ones."""
    text = "\n".join(said)
    last = re.sub(r"^pg_restore: (?:error: )?", "", said[0]).strip() if said else "it said nothing"
    for pattern, sentence, next_step in _FAULTS:
        if match := re.search(pattern, text):
            what = clean(match.groupdict().get("what") or "", 200)
            words = {"host": host, "what": what, "last": clean(last, 300)}
            kind = Unsound if sentence.startswith(("The snapshot holds rows", "The snapshot's dump")) else AssetFailed
            return kind(sentence.format(**words), next_step.format(**words))
    return None
