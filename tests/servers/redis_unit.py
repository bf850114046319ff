"""A Redis that a unit runs, with a small systemctl in its own directory: for restores, where systemd is not there."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from backends.mastodon.installation import RedisPlace
from backends.model import Secret
from tests.servers.redis import redis_program

PASSWORD = "p4ss-w0rd-of-redis"

_SYSTEMCTL = r"""#!/bin/sh
# systemctl for one unit, a Redis; its state is in @ROOT@
root=@ROOT@ unit=@UNIT@
alive() { read -r l 2>/dev/null </proc/"$1"/stat || return 1; case ${l##*) } in [ZX]*) return 1 ;; esac; }
pid() { p=$(cat "$root/pid" 2>/dev/null) && alive "$p" && echo "$p"; }
state() { if pid >/dev/null; then echo active; elif [ -e "$root/failed" ]; then echo failed; else echo inactive; fi; }
verb=$1
case $verb in
list-units | list-unit-files) echo "$unit loaded $(state)" ;;
show)
  echo "Id=$unit"; echo LoadState=loaded; echo "ActiveState=$(state)"; echo "MainPID=$(pid || echo 0)"
  echo UnitFileState=enabled; echo "User=@USER@"; echo "Group=@GROUP@"
  echo "ExecStart={ path=@PROGRAM@ ; argv[]=@PROGRAM@ @CONF@ --daemonize no ; ignore_errors=no ; status=0/0 }" ;;
is-active) state; [ "$(state)" = active ] || exit 3 ;;
reset-failed) rm -f "$root/failed" ;;
start)
  pid >/dev/null && exit 0
  rm -f "$root/failed"; : >"$root/log"
  (umask 007; exec setsid @AS@ @PROGRAM@ @CONF@ --daemonize no) </dev/null >>"$root/log" 2>&1 &
  p=$!; echo $p >"$root/pid"
  until grep -q 'Ready to accept connections' "$root/log"; do
    if ! alive $p; then : >"$root/failed"; echo "Job for $unit failed because of its exit code." >&2; exit 1; fi
    sleep 0.01
  done ;;
stop)
  p=$(pid) || exit 0
  kill -TERM "$p"; n=0
  while alive "$p"; do
    n=$((n + 1)); [ $n -gt 1000 ] && exit 1
    sleep 0.01
  done ;;
*) echo "Unknown command verb $verb." >&2; exit 1 ;;
esac
"""


class RedisUnit:
    """One redis-server as a unit would run it, as the user `redis` where there is one and we are root."""

    UNIT = "redis-server.service"

    def __init__(self, root: Path, *, settings: tuple[str, ...] = (), program: str | None = None) -> None:
        self.root = root
        self.program = program or redis_program()
        self.data = root / "data"
        self.config = root / "etc" / "redis.conf"
        self.bin = root / "bin"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.user, self.group = _user()
        root.chmod(0o755)
        for directory in (self.data, self.config.parent, self.bin):
            directory.mkdir()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f'dir "{self.data}"',
            f'requirepass "{PASSWORD}"',
            "save 3600 1",
            "loglevel notice",
            *settings,
        ]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o640)
        if os.geteuid() == 0:
            for path in (self.data, self.config.parent, self.config):
                shutil.chown(path, self.user, self.group)
        self.data.chmod(0o750)
        as_user = ""
        if os.geteuid() == 0 and self.user != "root":
            as_user = f"setpriv --reuid={self.user} --regid={self.group} --clear-groups --"
        script = _SYSTEMCTL
        for name, value in {
            "ROOT": str(root),
            "UNIT": self.UNIT,
            "USER": self.user,
            "GROUP": self.group,
            "PROGRAM": self.program,
            "CONF": str(self.config),
            "AS": as_user,
        }.items():
            script = script.replace(f"@{name}@", value)
        systemctl = self.bin / "systemctl"
        systemctl.write_text(script)
        systemctl.chmod(0o755)

    @property
    def dump(self) -> Path:
        """Where it saves."""
        return self.data / "dump.rdb"

    def systemctl(self, *words: str) -> int:
        """Ask the stand-in, as an administrator would."""
        done = subprocess.run([self.bin / "systemctl", *words], check=False, stdout=subprocess.DEVNULL)
        return done.returncode

    def start(self) -> Self:
        """Start it and wait until it takes connections."""
        assert self.systemctl("start", self.UNIT) == 0, (self.root / "log").read_text()
        return self

    def stop(self) -> None:
        """Stop it; it saves its data first. Idempotent."""
        self.systemctl("stop", self.UNIT)

    def restart(self) -> None:
        """Stop it and start it."""
        self.stop()
        self.start()

    def client(self) -> redis.Redis:
        """A client straight to it, past everything that is tested."""
        return redis.Redis(port=self.port, password=PASSWORD, protocol=2, decode_responses=True)

    def place(self, role: str = "base", database: int = 0) -> RedisPlace:
        """As discovery would report it."""
        return RedisPlace(role=role, host="127.0.0.1", port=self.port, database=database, password=Secret(PASSWORD))

    def names(self) -> set[str]:
        """What lies in its data directory, and in that of its configuration."""
        return {path.name for directory in (self.data, self.config.parent) for path in directory.iterdir()}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def _user() -> tuple[str, str]:
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.getuid())
        return entry.pw_name, str(entry.pw_gid)
    for name in ("redis", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        import grp

        return name, grp.getgrgid(entry.pw_gid).gr_name
    return "root", "root"
