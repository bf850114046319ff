"""age keys: who can read the backups, and the identity file that reads them (the format of `age-keygen`)."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage

from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import Secret
from backends.untrusted import clean

PASSPHRASE_COMMAND = "MASTOVAULT_PASSPHRASE_COMMAND"  # noqa: S105 - the name of a variable
_MARK = "AGE-SECRET-KEY-"
_ENCRYPTED = b"age-encryption.org/v1"
_ARMORED = b"-----BEGIN AGE ENCRYPTED FILE-----"
_MAX_FILE = 64 * 1024
_COMMAND_SECONDS = 60


def parse_recipients(texts: Iterable[str]) -> list[Any]:
    """Recipients as pyrage takes them, each once. Raises `ConfigurationError` for one that is no X25519 recipient."""
    return [pyrage.x25519.Recipient.from_str(text) for text in normal_recipients(texts)]


def normal_recipients(texts: Iterable[str]) -> list[str]:
    """Recipients as their one spelling, each once. Raises `ConfigurationError`."""
    return list(dict.fromkeys(_normal(text) for text in texts))


def _normal(text: str) -> str:
    if _MARK in text.upper():
        raise ConfigurationError(
            "a secret identity stands where a recipient (age1...) belongs",
            "Replace it with its public key, and make a new identity if others could read it.",
        )
    try:
        return str(pyrage.x25519.Recipient.from_str(text.strip().lower()))
    except pyrage.RecipientError:
        raise ConfigurationError(
            f"{clean(text, 80)!r} is no age recipient", "A recipient begins with age1; `mastovault key new` makes one."
        ) from None


def new_identity() -> tuple[Secret, str]:
    """A new identity and its recipient."""
    made = pyrage.x25519.Identity.generate()
    return Secret(str(made)), str(made.to_public())


def recipient_of(identity: Secret) -> str:
    """The recipient of an identity. Raises `KeyUnavailable` when it is none."""
    return str(parse_identity(identity.reveal()).to_public())


def write_identity(path: Path, identity: Secret, passphrase: Secret | None) -> None:
    """Write a new identity file (0600), as `age-keygen` does; with a passphrase as `age -p` would encrypt it.

    Raises:
        KeyUnavailable: it exists already, or cannot be written. An existing file is never touched.
    """
    taken = KeyUnavailable(f"{path} exists and is not overwritten", "Name another place for the identity.")
    if os.path.lexists(path):
        raise taken
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"# created: {made}\n# public key: {recipient_of(identity)}\n{identity.reveal()}\n".encode()
    data = pyrage.passphrase.encrypt(text, passphrase.reveal()) if passphrase else text
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True)
        _write(temporary, data)
        try:
            _place(temporary, path)
        except FileExistsError:
            raise taken from None
    except OSError as error:
        raise KeyUnavailable(
            f"the identity could not be written to {path}: {error.strerror}", "Name a place that can be written."
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _place(temporary: Path, path: Path) -> None:
    """Give the file its name without replacing one; also on a stick whose file system knows no links."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        if path.exists() or path.is_symlink():
            raise FileExistsError from None
        temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(directory)
    finally:
        os.close(directory)


def load_identities(path: Path, ask: Callable[[str], Secret | None], *, private: bool = True) -> list[Any]:
    """The identities of a file, as pyrage takes them.

    A file with a passphrase is opened with what the command in MASTOVAULT_PASSPHRASE_COMMAND prints, or else with what
    `ask` answers. Without `private` others may be able to read it, as on a stick, whose file system knows no modes.

    Raises:
        KeyUnavailable: it is absent, readable by others, holds no identity, or the passphrase is missing or wrong.
    """
    data = _read(path, private=private)
    if data.startswith(_ARMORED):
        raise KeyUnavailable(
            f"{path} is ASCII-armored, which is not read here",
            f"Turn it into a plain one: age -d {path} | age -p > FILE",
        )
    if data.startswith(_ENCRYPTED):
        data = _open(data, path, ask)
    found = _identities_in(data)
    if not found:
        raise KeyUnavailable(f"{path} holds no identity", "It should hold a line that begins with AGE-SECRET-KEY-.")
    return found


def printed_identities(command: str) -> list[Any]:
    """The identities that the program in `identity_command` prints, one a line. It runs without a shell.

    Raises:
        KeyUnavailable: it could not be run, failed, took longer than a minute or printed no identity. What it printed
            is never shown.
    """
    found = _identities_in(_printed_by(command, "identity_command"))
    if not found:
        raise KeyUnavailable(
            "the command in identity_command printed no identity",
            "It should print a line that begins with AGE-SECRET-KEY-.",
        )
    return found


def _identities_in(data: bytes) -> list[Any]:
    """One identity a line. Raises `KeyUnavailable` for a line that is neither one nor a comment."""
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    return [parse_identity(line) for line in lines if line and not line.startswith("#")]


def _read(path: Path, *, private: bool) -> bytes:
    try:
        with path.open("rb") as file:
            known = os.fstat(file.fileno())
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        said = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise KeyUnavailable(f"the identity {path} {said}", "Copy it back, or use the recovery identity.") from None
    if not stat.S_ISREG(known.st_mode) or len(data) > _MAX_FILE:
        raise KeyUnavailable(f"{path} is no identity file", "Check `identity` in the configuration.")
    if private and known.st_mode & 0o077:
        raise KeyUnavailable(f"the identity {path} can be read by others", f"Run: chmod 600 {shlex.quote(str(path))}")
    if private and known.st_uid not in {os.geteuid(), 0}:
        raise KeyUnavailable(f"the identity {path} belongs to another user", "Use a file of your own.")
    return data


def _open(data: bytes, path: Path, ask: Callable[[str], Secret | None]) -> bytes:
    passphrase = _from_command() or ask(f"Passphrase of {path.name}")
    if not passphrase:
        raise KeyUnavailable(
            f"{path} has a passphrase, and nobody was there to type it",
            f"Without a terminal set {PASSPHRASE_COMMAND} to a command that prints it.",
        )
    try:
        return bytes(pyrage.passphrase.decrypt(data, passphrase.reveal()))
    except (pyrage.DecryptError, OSError):
        raise KeyUnavailable(f"the passphrase does not open {path}", "Try again.") from None


def _from_command() -> Secret | None:
    """The first line of what the command in the environment prints."""
    line = os.environ.get(PASSPHRASE_COMMAND, "")
    if not line.strip():
        return None
    printed = _printed_by(line, PASSPHRASE_COMMAND)
    return Secret(printed.decode("utf-8", "replace").splitlines()[0])


def _printed_by(line: str, setting: str) -> bytes:
    """What a command prints; it runs without a shell. Raises `KeyUnavailable`, and never says what it printed."""
    try:
        argv = [str(Path(part).expanduser()) if part.startswith("~") else part for part in shlex.split(line)]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, ValueError, IndexError, RuntimeError, subprocess.TimeoutExpired) as error:
        raise KeyUnavailable(
            f"the command in {setting} did not run: {type(error).__name__}", "Try it by hand."
        ) from None
    if done.returncode != 0 or not done.stdout:
        raise KeyUnavailable(f"the command in {setting} ended with status {done.returncode}", "Try it by hand.")
    return done.stdout


def parse_identity(text: str) -> Any:
    """An identity as pyrage takes it. Raises `KeyUnavailable`, which never repeats it."""
    try:
        return pyrage.x25519.Identity.from_str(text.strip())
    except pyrage.IdentityError:
        raise KeyUnavailable(
            "an identity file holds a line that is no X25519 identity", "It should begin with AGE-SECRET-KEY-1."
        ) from None
