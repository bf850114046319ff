"""The unit that runs a Redis server: found, stopped for certain, started."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from backends.connection.base import Command, Connection, sh
from backends.errors import AssetFailed, CommandFailed
from backends.restore.base import Target
from backends.restore.redis_place import Server
from backends.untrusted import clean

_PATTERNS = ("redis*", "valkey*", "keydb*")
_PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,MainPID,ExecStart,User,Group"
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,200}\.service")
_REDIS = re.compile(r"redis|valkey|keydb")
_LEAST_SECONDS = 60.0
_SLOWEST_DISK = 5 * 1024 * 1024
_PAUSE = 0.05
_ALIVE = frozenset({"active", "activating", "reloading", "deactivating"})

_ASK = r"""
command -v systemctl >/dev/null || exit 8
pid=$1; shift
if [ -n "$pid" ]; then
  echo "comm $(cat /proc/"$pid"/comm 2>/dev/null)"
  while read -r line; do echo "cgroup $line"; done </proc/"$pid"/cgroup 2>/dev/null
fi
systemctl list-units --all --plain --no-legend --type=service "$@" 2>/dev/null | while read -r name rest
do echo "unit $name"; done
systemctl list-unit-files --plain --no-legend --type=service "$@" 2>/dev/null | while read -r name rest
do echo "unit $name"; done
"""
_COMMAND = """
read -r line 2>/dev/null </proc/"$1"/stat || exit 0
case ${line##*) } in [ZX]*) exit 0 ;; esac
cat /proc/"$1"/comm
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One service as systemctl shows it."""

    name: str
    state: str
    """`active`, `activating` (also one that fails and is tried again), `inactive`, `failed`."""
    enabled: bool
    main_pid: int
    user: str
    group: str
    arguments: tuple[str, ...]
    """Of the program, without the program."""
    program: str


@dataclass(frozen=True, slots=True)
class Units:
    """The units that may run Redis, and what is known of the process asked about."""

    units: tuple[Unit, ...]
    has_systemd: bool = True
    process: str = ""
    """The name of the process's program; empty when there is none."""
    of_process: Unit | None = None


def find_units(connection: Connection, pid: int | None, as_user: str | None) -> Units:
    """The units called after Redis, and the one that runs the process `pid`.

    The control group tells it, or the main process that systemd knows; where neither does (a stand-in for systemd),
    the only active one whose own main process is no Redis.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    asked = connection.run(
        Command(sh(_ASK, str(pid or ""), *_PATTERNS), as_user=as_user, env={"LC_ALL": "C"}), timeout=30
    )
    if asked.status == 8:
        return Units((), has_systemd=False)
    lines = [line.split(" ", 1) for line in asked.text.splitlines() if " " in line]
    process = next((clean(value.strip(), 60) for kind, value in lines if kind == "comm"), "")
    groups = [value.rpartition("/")[2].strip() for kind, value in lines if kind == "cgroup"]
    names = [value.strip() for kind, value in lines if kind == "unit"]
    units = _show(connection, [*groups, *names], as_user)
    return Units(units, process=process, of_process=_of_process(connection, units, pid, process, groups, as_user))


def _show(connection: Connection, names: list[str], as_user: str | None) -> tuple[Unit, ...]:
    wanted = [name for name in dict.fromkeys(names) if _UNIT.fullmatch(name) and "@." not in name]
    if not wanted:
        return ()
    command = Command(("systemctl", "show", "-p", _PROPERTIES, "--", *wanted), as_user=as_user, env={"LC_ALL": "C"})
    return parse_units(connection.run(command, timeout=30).text)


def parse_units(text: str) -> tuple[Unit, ...]:
    """Services from the output of `systemctl show`; those that are not loaded are left out; never raises."""
    found: dict[str, Unit] = {}
    for block in re.split(r"\n\s*\n", text)[:200]:
        values = dict(reversed([line.partition("=")[::2] for line in block.splitlines()]))
        name = values.get("Id", "").strip()
        if not _UNIT.fullmatch(name) or values.get("LoadState", "loaded") != "loaded":
            continue
        # { path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis/redis.conf ; ... }
        argv = values.get("ExecStart", "").partition("argv[]=")[2].partition(" ; ")[0].split()
        pid = values.get("MainPID", "")
        found[name] = Unit(
            name=name,
            state=clean(values.get("ActiveState", ""), 20),
            enabled=values.get("UnitFileState", "enabled") not in {"disabled", "masked"},
            main_pid=int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 12 else 0,
            user=clean(values.get("User", ""), 60),
            group=clean(values.get("Group", ""), 60),
            program=clean(argv[0], 300) if argv else "",
            arguments=tuple(argv[1:]),
        )
    return tuple(found.values())


def _of_process(
    connection: Connection,
    units: tuple[Unit, ...],
    pid: int | None,
    process: str,
    groups: list[str],
    as_user: str | None,
) -> Unit | None:
    if not pid or not _REDIS.search(process):
        return None
    exact = [unit for unit in units if unit.main_pid == pid]
    if exact:
        return exact[0]
    named = [unit for unit in units if _REDIS.search(unit.name)]
    grouped = [unit for unit in named if unit.name in groups and unit.state in _ALIVE]
    if grouped:
        return grouped[0]
    active = [unit for unit in named if unit.state in _ALIVE]
    if len(active) != 1:
        return None
    return None if _is_redis(connection, active[0].main_pid, as_user) else active[0]


def _is_redis(connection: Connection, pid: int, as_user: str | None) -> bool:
    """Whether a process lives (one that is over and not collected does not) and is a Redis."""
    told = connection.run(Command(sh(_COMMAND, str(pid)), as_user=as_user), timeout=20).text
    return bool(_REDIS.search(told))


class Service:
    """The unit of one server: asked, stopped, started. Raises `AssetFailed` when it does not do what it is told."""

    def __init__(self, target: Target, server: Server) -> None:
        self._connection, self._root, self._server = target.connection, target.root, server
        self.patience = _LEAST_SECONDS + max(server.bytes, server.old_bytes) / _SLOWEST_DISK

    def state(self) -> str:
        """`active`, `activating`, `inactive`, `failed`, ..."""
        command = Command(("systemctl", "is-active", "--", self._server.unit), as_user=self._root)
        words = self._connection.run(command, timeout=30).text.split()
        return words[0] if words else "unknown"

    @property
    def up(self) -> bool:
        """Whether it runs, or is about to."""
        return self.state() in {"active", "activating", "reloading"}

    def start(self, log: Callable[[str], None]) -> None:
        """Start it, unless it runs; it may still be loading its data afterwards."""
        log(f"systemctl start {self._server.unit}")
        # One that failed some times in a row would be refused.
        again = Command(("systemctl", "reset-failed", "--", self._server.unit), as_user=self._root)
        self._connection.run(again, timeout=30)
        self._ask("start")

    def stop(self, pid: int | None, log: Callable[[str], None]) -> None:
        """Stop it and make sure that it is gone: one that runs on would overwrite its file when it ends."""
        log(f"systemctl stop {self._server.unit}")
        self._ask("stop")
        deadline = time.monotonic() + self.patience
        while self.state() in _ALIVE or (pid is not None and _is_redis(self._connection, pid, self._root)):
            if time.monotonic() > deadline:
                raise AssetFailed(
                    f"{self._server.name} does not stop: {self._server.unit} was told to, and still runs.",
                    f"Look at `systemctl status {self._server.unit}`, stop it by hand and start again.",
                )
            time.sleep(_PAUSE)

    def _ask(self, verb: str) -> None:
        unit = self._server.unit
        command = Command(("systemctl", verb, "--", unit), as_user=self._root, env={"LC_ALL": "C"})
        try:
            done = self._connection.run(command, timeout=self.patience)
        except CommandFailed as error:
            raise AssetFailed(
                error.sentence, f"Look at `systemctl status {unit}` and `journalctl -u {unit}`."
            ) from None
        if done.status != 0:
            said = clean(done.stderr, 400, lines=True).strip().splitlines()
            raise AssetFailed(
                f"systemctl could not {verb} {unit}: {said[0] if said else f'status {done.status}'}",
                f"Look at `journalctl -u {unit}` and the log of Redis.",
            )
