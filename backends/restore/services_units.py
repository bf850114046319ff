"""Mastodon's units as systemd tells of them: which run, what each is for, where it answers, how long it may take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backends.connection.base import Command, Connection, sh
from backends.errors import AssetFailed, BecomeRefused, CommandFailed
from backends.mastodon.host_files import FileState, read_files
from backends.mastodon.systemd import Unit as Shown
from backends.mastodon.systemd import parse_environment_file, parse_units
from backends.restore.base import Target
from backends.restore.health import STREAMING_PATH, WEB_PATH, Address
from backends.untrusted import clean

Role = Literal["web", "streaming", "sidekiq", "other"]
PROPERTIES = (
    "Id,Type,LoadState,ActiveState,SubState,UnitFileState,User,WorkingDirectory,Environment,EnvironmentFiles,ExecStart"
    ",TimeoutStopUSec,NRestarts,PartOf,WantedBy"
)
NAME = re.compile(r"[A-Za-z0-9:_.@\\-]{1,200}\.service")
UP = frozenset({"active", "activating", "reloading", "deactivating"})
"""States of a unit that runs, or that systemd keeps trying to start."""
_SIGNS: tuple[tuple[str, Role], ...] = (
    ("sidekiq", "sidekiq"),
    ("exporter", "other"),
    ("streaming", "streaming"),
    ("puma", "web"),
    ("web", "web"),
)
_LONGEST = 600.0
_SECONDS = 30.0
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|min|h|d)?")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_AROUND = r"""
mark=$1 user=$2 root=$3
for file in /etc/crontab /etc/cron.d/* /etc/cron.*/* "/var/spool/cron/crontabs/$user" "/var/spool/cron/$user"; do
  [ -f "$file" ] && grep -qE "tootctl|$root/bin" "$file" 2>/dev/null && printf '%s cron %s\n' "$mark" "$file"
done
command -v systemctl >/dev/null || exit 0
systemctl list-units --type=timer --plain --no-legend 'mastodon*' 2>/dev/null | while read -r name rest; do
  printf '%s timer %s\n' "$mark" "$name"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One unit. Goes through JSON."""

    id: str
    role: Role
    state: str
    enabled: bool
    stop_seconds: float
    addresses: tuple[Address, ...] = ()
    steady: bool = True
    """Whether it runs since it was started; False for one that is down or is started again and again."""
    heard: bool = True
    """False for one that runs steadily and answers nowhere we know of: its addresses may be others."""

    @property
    def up(self) -> bool:
        """Whether it runs, or systemd tries to let it."""
        return self.state in UP


def role_of(name: str, exec_start: str) -> Role:
    """What a unit is for, from what it runs, else from its name."""
    for text in (exec_start, name):
        for sign, role in _SIGNS:
            if sign in text and (sign != "web" or text is name):
                return role
    return "other"


def find_services(target: Target) -> list[Service]:
    """The units of the target's Mastodon, running or not, and those that only pull them in (mastodon-streaming).

    Raises:
        ConnectionFailed: the connection is gone.
    """
    names = [name for name in target.installation.units if NAME.fullmatch(name)]
    if not names:
        return []
    text = _show(target.connection, names)
    shims = pulling_in(parse_states(text))
    if shims - {*names}:
        names += sorted(shims - {*names})
        text = _show(target.connection, names)
    units = {unit.id: unit for unit in parse_units(text)}
    files = _environment_files(target, [unit for unit in units.values() if unit.id in names])
    known = parse_states(text)
    return [
        _service(units[name], values, files, pulled=any(_enabled(known[shim]) for shim in _wanting(values) & {*known}))
        for name, values in known.items()
        if name in names and name in units
    ]


def pulling_in(known: Mapping[str, Mapping[str, str]]) -> set[str]:
    """The services that others are a part of: stopping or starting one does so with those."""
    return {name for values in known.values() for name in values.get("PartOf", "").split() if NAME.fullmatch(name)}


def _wanting(values: Mapping[str, str]) -> set[str]:
    return {*values.get("WantedBy", "").split()}


def _enabled(values: Mapping[str, str]) -> bool:
    return values.get("UnitFileState", "enabled") not in {"disabled", "masked"}


def _show(connection: Connection, names: Sequence[str]) -> str:
    command = Command(
        ("systemctl", "--no-pager", "show", "-p", PROPERTIES, "--", *names), env={"LC_ALL": "C"}
    )  # fmt: skip
    return connection.run(command, timeout=_SECONDS).text


def states(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """The state of each unit: `active`, `inactive`, `failed`...; one that is unknown is not in it."""
    if not names:
        return {}
    command = Command(
        ("systemctl", "--no-pager", "show", "-p", "Id,LoadState,ActiveState,SubState", "--", *names),
        env={"LC_ALL": "C"},
    )
    text = connection.run(command, timeout=_SECONDS).text
    return {name: values.get("ActiveState", "") for name, values in parse_states(text).items()}


def parse_states(text: str) -> dict[str, dict[str, str]]:
    """The properties of each loaded unit, the first value of each; never raises."""
    found: dict[str, dict[str, str]] = {}
    for block in re.split(r"\n\s*\n", text)[:500]:
        values: dict[str, str] = {}
        for line in block.splitlines():
            name, separator, value = line.partition("=")
            if separator:
                values.setdefault(name.strip(), value.strip())
        unit = values.get("Id", "")
        if NAME.fullmatch(unit) and values.get("LoadState", "loaded") == "loaded":
            found[unit] = values
    return found


def seconds_of(text: str, default: float = 90.0) -> float:
    """A time span of systemd (`1min 30s`, `15s`, `infinity`) in seconds, bounded; `default` for anything else."""
    words = text.split()
    if words == ["infinity"]:
        return _LONGEST
    total = 0.0
    for word in words:
        match = _TIME.fullmatch(word)
        if match is None:
            return default
        total += float(match[1]) * _UNITS[match[2] or "s"]
    return min(total, _LONGEST) if words and total > 0 else default


def _environment_files(target: Target, units: Sequence[Shown]) -> dict[str, dict[str, str]]:
    """What each unit's EnvironmentFiles say of where it listens."""
    paths = [path for unit in units for path in unit.environment_files]
    if not paths:
        return {}
    read = read_files(target.connection, paths, [None, target.installation.user or None, target.root])
    found: dict[str, dict[str, str]] = {}
    for unit in units:
        values: dict[str, str] = {}
        for path in unit.environment_files:
            file = read.files.get(path)
            if file is not None and file.state is FileState.READ:
                parsed = parse_environment_file(file.content, name=path).values
                values |= {name: parsed[name].reveal() for name in ("PORT", "BIND", "SOCKET") if name in parsed}
        found[unit.id] = values
    return found


def _service(
    unit: Shown, values: Mapping[str, str], files: Mapping[str, Mapping[str, str]], *, pulled: bool = False
) -> Service:
    role = role_of(unit.id, unit.exec_start)
    shown = unit.environment
    given: dict[str, str] = {name: shown[name].reveal() for name in ("PORT", "BIND", "SOCKET") if name in shown}
    # A shim that only pulls other units in (mastodon-streaming.service since 4.2) answers nothing itself.
    shim = values.get("Type") == "oneshot"
    return Service(
        id=unit.id,
        role=role,
        state=clean(values.get("ActiveState", ""), 20),
        enabled=pulled or _enabled(values),
        stop_seconds=seconds_of(values.get("TimeoutStopUSec", "")),
        steady=values.get("ActiveState") == "active" and values.get("NRestarts", "0") == "0",
        addresses=() if shim else tuple(address(role, {**given, **files.get(unit.id, {})})),
    )


def address(role: Role, values: Mapping[str, str]) -> list[Address]:
    """Where a unit answers (config/puma.rb, streaming/index.js); nothing for one that does not."""
    if role not in {"web", "streaming"}:
        return []
    path, port = (WEB_PATH, 3000) if role == "web" else (STREAMING_PATH, 4000)
    unix = values.get("SOCKET", "").removeprefix("unix://")
    if unix.startswith("/"):
        return [Address(path, unix=unix)]
    text = values.get("PORT", "")
    number = int(text) if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) else port
    bind = values.get("BIND", "")
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(bind, bind.strip("[]"))  # noqa: S104
    return [Address(path, host=host, port=number)] if re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", host) else []


def around(target: Target) -> list[str]:
    """Cron tables and timers that run something of Mastodon's. Raises `ConnectionFailed`."""
    mark = "mastovault-around"
    script = sh(_AROUND, mark, target.installation.user, target.installation.root)
    try:
        done = target.connection.run(Command(script, as_user=target.root, env={"LC_ALL": "C"}), timeout=_SECONDS)
    except (BecomeRefused, CommandFailed):
        return []
    found = [line.split(" ", 2) for line in done.text.splitlines() if line.startswith(f"{mark} ")]
    return [clean(line[2], 200) for line in found if len(line) == 3]


def may_control(target: Target, services: Sequence[Service]) -> AssetFailed | None:
    """Whether units can be stopped and started from here; what is wrong otherwise.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    who = target.connection.login_user
    try:
        if target.root is not None:
            target.connection.run(Command(("true",), as_user=target.root), timeout=_SECONDS)
            return None
    except BecomeRefused as error:
        return AssetFailed(error.sentence, error.next_step)
    if who == "root" or not services:
        return None
    # It forgets nothing but failures that are over, and asks for the same right as a stop.
    command = Command(
        ("systemctl", "--no-ask-password", "reset-failed", "--", services[0].id), env={"LC_ALL": "C"}
    )  # fmt: skip
    done = target.connection.run(command, timeout=_SECONDS)
    said = clean(done.stderr, 300)
    if re.search(r"(?i)authenticat|access denied|permission denied|not authorized|not permitted", said):
        return AssetFailed(
            f"{who} may not stop and start services on {target.connection.host}",
            'Set `become = "sudo"` for this host, or log in as root.',
        )
    return None


def to_json(services: Sequence[Service]) -> list[dict[str, Any]]:
    """For the facts."""
    return [
        {
            "id": service.id,
            "role": service.role,
            "state": service.state,
            "enabled": service.enabled,
            "stop_seconds": service.stop_seconds,
            "steady": service.steady,
            "heard": service.heard,
            "addresses": [
                {"path": each.path, "host": each.host, "port": each.port, "unix": each.unix}
                for each in service.addresses
            ],
        }
        for service in services
    ]


def from_json(listed: Sequence[Mapping[str, Any]]) -> list[Service]:
    """From the facts."""
    return [
        Service(
            id=str(each["id"]),
            role=each["role"],
            state=str(each["state"]),
            enabled=bool(each["enabled"]),
            stop_seconds=float(each["stop_seconds"]),
            steady=bool(each["steady"]),
            heard=bool(each["heard"]),
            addresses=tuple(
                Address(str(one["path"]), host=str(one["host"]), port=int(one["port"]), unix=str(one["unix"]))
                for one in each["addresses"]
            ),
        )
        for each in listed
    ]
