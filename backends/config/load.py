"""Reading `config.toml`: every fault is one sentence that names the line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from backends.config.schema import Config
from backends.errors import ConfigurationError
from backends.untrusted import clean

MAX_BYTES = 1 << 20
_HEADER = re.compile(r"^\s*\[\[?\s*(?P<name>[^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"^\s*(?P<key>(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_PART = re.compile(r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'")


def load(path: Path) -> Config:
    """Read and check the configuration; a file that does not exist is an empty configuration.

    Raises:
        ConfigurationError: not readable, not TOML, an unknown key or a wrong value; the sentence names file and line.
    """
    text = read_text(path)
    if text is None:
        return Config()
    try:
        return Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path} is not valid TOML: {clean(str(error), 200)}", "Correct that line; nothing was changed."
        ) from None
    except ValidationError as error:
        raise _explain(path, text, error) from None


def read_text(path: Path) -> str | None:
    """The text of the configuration file, None when there is none.

    Raises `ConfigurationError` when it cannot be read, is larger than 1 MiB or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", "Check its owner and mode.") from None
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than 1 MiB; this is no configuration file", "Name another file.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path} line {line} is not UTF-8", "Save the file as UTF-8.") from None


def line_of(text: str, place: Sequence[str]) -> int:
    """The line (from 1) of a key in a TOML text, or of the nearest table around it; 1 when nothing is found."""
    best, depth = 1, 0
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            table = _parts(header["name"])
            found = table
        else:
            key = _KEY.match(line)
            if not key:
                continue
            found = table + _parts(key["key"])
        common = len(found) if found == list(place[: len(found)]) else 0
        if common > depth:
            best, depth = number, common
    return best


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def _explain(path: Path, text: str, error: ValidationError) -> ConfigurationError:
    first = error.errors(include_url=False, include_input=False)[0]
    # The discriminator of a vault's type appears in the location; it is no key of the file.
    place = [str(part) for part in first["loc"] if part not in {"directory", "s3", "sftp"} or part == first["loc"][-1]]
    line = line_of(text, place)
    name = clean(".".join(place), 100)
    kind = first["type"]
    if kind == "extra_forbidden":
        sentence = f"{path} line {line}: the key {name} is unknown"
        step = "Check its spelling; docs/configuration.md lists every key."
    elif kind == "missing":
        sentence = f"{path} line {line}: {name} is missing"
        step = "Add it; docs/configuration.md lists every key."
    else:
        message = clean(first["msg"].removeprefix("Value error, "), 200)
        sentence = f"{path} line {line}: {name}: {message}" if name else f"{path}: {message}"
        step = "Correct that value; `mastovault config check` reads the file again."
    return ConfigurationError(sentence, step)
