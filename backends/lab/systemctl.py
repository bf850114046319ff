"""What `systemctl` says on a lab host: one command line, answered by the host's service manager."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from backends.lab.systemd import Systemd, Unit

_WITH_VALUE = {"-p", "--property", "-n", "--lines", "-t", "--type", "--state", "-H", "-M", "-o", "--output"}
_QUIET_VERBS = {"daemon-reload", "daemon-reexec", "--version", "reload", "kill"}


@dataclass(slots=True)
class Said:
    """Output and exit status of a command."""

    out: str = ""
    err: str = ""
    status: int = 0


@dataclass(slots=True)
class Words:
    """A command line taken apart."""

    verb: str
    names: list[str]
    options: dict[str, list[str]] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """Whether any of the options is there."""
        return any(name in self.options for name in names)


def systemctl(manager: Systemd, arguments: list[str]) -> Said:
    """Carry out one command line; options that are not known are ignored."""
    words = parse(arguments)
    asked: dict[str, Callable[[Systemd, Words], Said]] = {
        "list-units": _list_units,
        "list-unit-files": _list_files,
        "show": _show,
        "status": _status,
        "cat": _cat,
        "is-active": _is,
        "is-failed": _is,
        "is-enabled": _is,
    }
    if words.verb in asked:
        return asked[words.verb](manager, words)
    if words.verb in _QUIET_VERBS:
        return Said()
    if words.verb == "is-system-running":
        return Said("running\n")
    changes = {"start", "stop", "restart", "try-restart", "reload-or-restart", "enable", "disable", "reset-failed"}
    if words.verb in changes:
        return _change(manager, words)
    return Said(err=f"Unknown command verb {words.verb}.\n", status=1)


def parse(arguments: list[str]) -> Words:
    """Options with their values, and the words that are none."""
    options: dict[str, list[str]] = {}
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            words.extend(rest)
        elif word in _WITH_VALUE:
            options.setdefault(word, []).append(next(rest, ""))
        elif word.startswith("-p") and not word.startswith("--"):
            options.setdefault("-p", []).append(word[2:])
        elif word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            options.setdefault(name, []).append(value)
        else:
            words.append(word)
    return Words(words[0] if words else "list-units", words[1:], options)


def full(name: str) -> str:
    """A unit's name with the ending that may be left out."""
    return name if "." in name or name.endswith("*") else f"{name}.service"


def chosen(manager: Systemd, names: Iterable[str]) -> list[Unit]:
    """The units that any of the patterns matches, in their order; all without a pattern."""
    patterns = [full(name) for name in names] or ["*"]
    return [unit for name, unit in manager.units.items() if any(fnmatch.fnmatchcase(name, each) for each in patterns)]


def _list_units(manager: Systemd, words: Words) -> Said:
    lines = []
    for unit in _services(manager, words):
        shown = unit.shown()
        state = shown["ActiveState"]
        wanted = [each for value in words.options.get("--state", []) for each in value.split(",")]
        if (state in wanted) if wanted else (words.has("--all", "-a") or state not in {"inactive"}):
            lines.append(f"{unit.name} {shown['LoadState']} {state} {shown['SubState']} {shown['Description']}\n")
    return Said("".join(lines))


def _services(manager: Systemd, words: Words) -> list[Unit]:
    """The units asked for, by name; all that a lab host has are services."""
    kinds = {each for name in ("--type", "-t") for value in words.options.get(name, []) for each in value.split(",")}
    if kinds and "service" not in kinds:
        return []
    return sorted(chosen(manager, words.names), key=lambda each: each.name)


def _list_files(manager: Systemd, words: Words) -> Said:
    lines = []
    for unit in _services(manager, words):
        stem, _, rest = unit.name.partition("@")
        lines.append(f"{f'{stem}@.service' if rest else unit.name} {unit.properties['UnitFileState']} enabled\n")
    return Said("".join(lines))


def _show(manager: Systemd, words: Words) -> Said:
    """`Property=value` blocks, with an empty line between units; a unit that is not there is `not-found`."""
    given = [value for name in ("-p", "--property") for value in words.options.get(name, [])]
    wanted = [part for value in given for part in value.split(",")]
    blocks: list[dict[str, str]] = []
    for name in words.names or ["*"]:
        missing = {"Id": full(name), "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
        missing |= {"MainPID": "0", "UnitFileState": "", "Result": "success"}
        found = [unit.shown() for unit in chosen(manager, [name])]
        blocks.extend(found or ([] if "*" in name else [missing]))
    texts = []
    for block in blocks:
        names = [name for name in block if name in wanted] if wanted else list(block)
        only = words.has("--value")
        texts.append("".join(f"{block[name]}\n" if only else f"{name}={block[name]}\n" for name in names))
    return Said("\n".join(texts))


def _status(manager: Systemd, words: Words) -> Said:
    units = chosen(manager, words.names)
    said = Said(status=0 if all(unit.shown()["ActiveState"] == "active" for unit in units) else 3)
    for unit in units:
        shown = unit.shown()
        said.out += f"{unit.name} - {shown['Description']}\n     Loaded: loaded ({shown['FragmentPath']})\n"
        said.out += f"     Active: {shown['ActiveState']} ({shown['SubState']})\n   Main PID: {shown['MainPID']}\n"
    return said


def _cat(manager: Systemd, words: Words) -> Said:
    said = Said()
    for unit in chosen(manager, words.names):
        values = unit.properties
        command = values["ExecStart"].partition("argv[]=")[2].partition(" ; ")[0]
        said.out += f"# {values['FragmentPath']}\n[Service]\nType={values['Type']}\nUser={values['User']}\n"
        said.out += "".join(f'Environment="{each}"\n' for each in values["Environment"].split())
        said.out += f"WorkingDirectory={values['WorkingDirectory']}\nExecStart={command}\n\n"
    return said


def _is(manager: Systemd, words: Words) -> Said:
    """The state of each unit; status 0 when at least one is active (failed, enabled)."""
    key = "UnitFileState" if words.verb == "is-enabled" else "ActiveState"
    good = {"is-active": {"active", "reloading"}, "is-failed": {"failed"}, "is-enabled": {"enabled"}}[words.verb]
    states = []
    for name in words.names:
        found = chosen(manager, [name])
        states += [unit.shown()[key] for unit in found] or ([] if "*" in name else ["inactive"])
    out = "" if words.has("-q", "--quiet") else "".join(f"{state}\n" for state in states)
    return Said(out, status=0 if good & set(states) else 3 if words.verb == "is-active" else 1)


def _change(manager: Systemd, words: Words) -> Said:
    if not words.names and words.verb != "reset-failed":
        return Said(err="Too few arguments.\n", status=1)
    for name in words.names:
        if "*" not in name and full(name) not in manager.units:
            return Said(err=f"Failed to {words.verb} {full(name)}: Unit {full(name)} not found.\n", status=5)
    units = chosen(manager, words.names)
    if words.has("--no-block"):
        threading.Thread(target=_do, args=(manager, words, units), daemon=True).start()
        return Said()
    said = _do(manager, words, units)
    return Said(err="".join(f"{line}\n" for line in said), status=1 if said else 0)


def _do(manager: Systemd, words: Words, units: list[Unit]) -> list[str]:
    names = [unit.name for unit in units]
    match words.verb:
        case "reset-failed":
            for unit in units:
                unit.reset()
            return []
        case "enable" | "disable":
            for unit in units:
                unit.properties["UnitFileState"] = f"{words.verb}d"
            if not words.has("--now"):
                return []
            return manager.start(names) if words.verb == "enable" else manager.stop(names)
        case "start":
            # A pattern means only what is loaded, and that is what is enabled (systemctl(1), parameter syntax).
            exact = {full(name) for name in words.names}
            return manager.start([unit.name for unit in units if unit.name in exact or unit.enabled])
        case "stop":
            return manager.stop(names)
        case "try-restart":
            names = [unit.name for unit in units if unit.shown()["ActiveState"] == "active"]
    return manager.stop(names) or manager.start(names)
