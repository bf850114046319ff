"""Which pg_dump and psql of a host to use: never one older than the server."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backends.assets.database_access import command
from backends.connection.base import Connection, sh
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.untrusted import clean

MARK = "mastovault-program"
# Debian and PGDG keep every major version in a directory of its own: deb and rpm layouts.
WELL_KNOWN = "/usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin"

# pg_dump looks at its compression before it connects, so a socket that cannot exist tells whether zstd is built in.
_LOOK = r"""
look() {
  said=$("${1}pg_dump" --version 2>/dev/null) || return 0
  query=${1}psql; command -v "$query" >/dev/null || query=$(command -v psql) || query=
  all=${1}pg_dumpall; command -v "$all" >/dev/null || all=pg_dumpall
  case $said in
    *') '[0-9].*|*') 1'[0-5][.\ ]*) zstd=no ;;
    *) case $("${1}pg_dump" -Fc --compress=zstd:3 --no-password --host=/nonexistent/mastovault 2>&1) in
      *'connection to server'*) zstd=yes ;; *) zstd=no ;;
    esac ;;
  esac
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$mark" "${1}pg_dump" "$query" "$all" "$zstd" "$said"
}
mark=$1
if printf . | zstd -q -3 -T0 -c >/dev/null 2>&1; then printf '%s\tzstd\n' "$mark"; fi
if [ -n "$2" ]; then look "$2/"; exit 0; fi
look ''
for dir in WELL_KNOWN; do
  if [ -x "$dir/pg_dump" ]; then look "$dir/"; fi
done
"""


@dataclass(frozen=True, slots=True)
class Programs:
    """One set of client programs on a host."""

    pg_dump: str
    psql: str
    pg_dumpall: str
    major: int
    version: str
    builtin_zstd: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What a host has: sets of programs in order of preference, and whether its zstd works."""

    host: str
    sets: tuple[Programs, ...]
    zstd: bool

    @property
    def psql(self) -> str:
        """The psql to ask the server's version with. Raises `AssetFailed` when there is none."""
        for programs in self.sets:
            if programs.psql:
                return programs.psql
        raise AssetFailed(
            f"psql was not found on {self.host}.",
            f"Install the PostgreSQL client there (postgresql-client-{self.sets[0].major} on Debian).",
        )

    def for_server(self, version_num: int) -> Programs:
        """The set of the server's own major version, else the nearest newer one. Raises `AssetFailed`."""
        server = version_num // 10000
        fitting = [programs for programs in self.sets if programs.major >= server]
        if fitting:
            return min(fitting, key=lambda programs: programs.major)
        newest = max(self.sets, key=lambda programs: programs.major)
        raise AssetFailed(
            f"pg_dump {newest.version} on {self.host} is older than its server, PostgreSQL {server}.",
            f"Install the client of the server's version there (postgresql-client-{server} on Debian).",
        )


def find_programs(connection: Connection, place: DatabasePlace) -> Found:
    """Look for pg_dump in `place.bin_dir`, or on the PATH and where packages put it.

    Raises:
        AssetFailed: there is no pg_dump.
    """
    script = _LOOK.replace("WELL_KNOWN", WELL_KNOWN)
    wanted = command(place, sh(script, MARK, place.bin_dir or ""))
    found = parse_programs(connection.check(wanted, what="Looking for pg_dump").text, connection.host)
    if not found.sets:
        where = f" in {clean(place.bin_dir, 200)}" if place.bin_dir else ""
        major = place.server_version // 10000 if place.server_version else None
        package = f"postgresql-client-{major}" if major else "postgresql-client"
        raise AssetFailed(
            f"pg_dump was not found on {connection.host}{where}.",
            f"Install the PostgreSQL client of the server's version there ({package} on Debian).",
        )
    return found


def parse_programs(text: str, host: str) -> Found:
    """Read what the look-around printed; lines of anything else, such as a banner, are passed over."""
    sets: list[Programs] = []
    zstd = False
    for line in text.splitlines():
        fields = line.split("\t")
        if fields[0] != MARK:
            continue
        if fields[1:] == ["zstd"]:
            zstd = True
        elif len(fields) == 6 and (version := re.search(r"\(PostgreSQL\) ((\d{1,4})[\w.]{0,20})", fields[5])):
            sets.append(
                Programs(
                    pg_dump=fields[1],
                    psql=fields[2],
                    pg_dumpall=fields[3],
                    major=int(version[2]),
                    version=version[1],
                    builtin_zstd=fields[4] == "yes",
                )
            )
    return Found(host=host, sets=tuple(sets), zstd=zstd)
