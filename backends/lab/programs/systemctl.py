"""`systemctl` of a lab host: answers about its units from a file, and starts and stops them there.

Called as `systemctl.py STATE_DIRECTORY ARGUMENTS...`; options it does not know are ignored, as is their effect.
"""

from __future__ import annotations

import fnmatch
import json
import sys
from pathlib import Path

_WITH_VALUE = {"-p", "--property", "-n", "-t", "--type", "--state", "-H", "-M"}


def main(state: Path, arguments: list[str]) -> int:
    """Carry out one command line and return its exit status."""
    options, words = parse(arguments)
    units: dict[str, dict[str, str]] = json.loads((state / "units.json").read_text())
    verb, names = (words[0], words[1:]) if words else ("list-units", [])
    match verb:
        case "list-units":
            return list_units(chosen(units, names), everything="--all" in options or "-a" in options)
        case "list-unit-files":
            return list_files(chosen(units, names))
        case "show":
            return show(units, names, options)
        case "is-active" | "is-enabled":
            return ask(units, names, verb)
        case "cat":
            return cat(chosen(units, names))
        case "start" | "stop" | "restart" | "reload" | "try-restart":
            return change(state, units, names, verb)
        case "daemon-reload" | "enable" | "disable" | "--version":
            return 0
    sys.stderr.write(f"Unknown command verb {verb}.\n")
    return 1


def parse(arguments: list[str]) -> tuple[dict[str, list[str]], list[str]]:
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
    return options, words


def full(name: str) -> str:
    """A unit's name with the ending that may be left out."""
    return name if "." in name or "*" in name else f"{name}.service"


def chosen(units: dict[str, dict[str, str]], names: list[str]) -> dict[str, dict[str, str]]:
    """The units that any of the patterns matches; all without a pattern."""
    if not names:
        return units
    return {
        name: unit for name, unit in units.items() if any(fnmatch.fnmatchcase(name, full(pattern)) for pattern in names)
    }


def list_units(units: dict[str, dict[str, str]], *, everything: bool) -> int:
    """One line for each loaded unit."""
    for name, unit in sorted(units.items()):
        if everything or unit["ActiveState"] == "active":
            columns = (name, unit["LoadState"], unit["ActiveState"], unit["SubState"], unit["Description"])
            sys.stdout.write(" ".join(columns) + "\n")
    return 0


def list_files(units: dict[str, dict[str, str]]) -> int:
    """One line for each unit file, a template once."""
    for name, unit in sorted(units.items()):
        stem, _, rest = name.partition("@")
        file = f"{stem}@.service" if rest else name
        sys.stdout.write(f"{file} {unit['UnitFileState']} enabled\n")
    return 0


def show(units: dict[str, dict[str, str]], names: list[str], options: dict[str, list[str]]) -> int:
    """`Property=value` blocks, with an empty line between units; a unit that is not there is `not-found`."""
    asked = [part for name in ("-p", "--property") for value in options.get(name, []) for part in value.split(",")]
    blocks: list[dict[str, str]] = []
    for name in names or ["*"]:
        found = chosen(units, [name])
        missing = {"Id": full(name), "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
        blocks.extend(found.values() or ([] if "*" in name else [missing]))
    texts = []
    for block in blocks:
        wanted = [name for name in block if name in asked] if asked else list(block)
        texts.append(
            "".join(f"{block[name]}\n" if "--value" in options else f"{name}={block[name]}\n" for name in wanted)
        )
    sys.stdout.write("\n".join(texts))
    return 0


def ask(units: dict[str, dict[str, str]], names: list[str], verb: str) -> int:
    """The state of each unit; status 0 when at least one is active (or enabled)."""
    key, good = ("ActiveState", "active") if verb == "is-active" else ("UnitFileState", "enabled")
    states = [units[full(name)][key] if full(name) in units else "inactive" for name in names]
    sys.stdout.write("".join(f"{state}\n" for state in states))
    return 0 if good in states else 3


def cat(units: dict[str, dict[str, str]]) -> int:
    """The unit files."""
    for unit in units.values():
        command = unit["ExecStart"].partition("argv[]=")[2].partition(" ; ")[0]
        sys.stdout.write(f"# {unit['FragmentPath']}\n[Service]\nUser={unit['User']}\n")
        sys.stdout.write(f"WorkingDirectory={unit['WorkingDirectory']}\nExecStart={command}\n\n")
    return 0


def change(state: Path, units: dict[str, dict[str, str]], names: list[str], verb: str) -> int:
    """Start or stop units, in the file."""
    found = chosen(units, names)
    for name in names:
        if "*" not in name and full(name) not in units:
            sys.stderr.write(f"Failed to {verb} {full(name)}: Unit {full(name)} not found.\n")
            return 5
    for unit in found.values():
        on = verb != "stop"
        running = "exited" if unit["Type"] == "oneshot" else "running"
        unit |= {"ActiveState": "active" if on else "inactive", "SubState": running if on else "dead"}
    draft = state / "units.json.new"
    draft.write_text(json.dumps(units, indent=1))
    draft.replace(state / "units.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
