"""Every identity that the configuration names: the file, the command's, those of before a rotation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.archive.keys import load_identities, parse_identity, printed_identities
from backends.config.schema import Encryption
from backends.errors import KeyUnavailable
from backends.model import Secret

Ask = Callable[[str], Secret | None]


@dataclass(frozen=True, slots=True)
class Known:
    """One identity at hand. `source` says where it is from, for people."""

    identity: Any
    source: str
    path: Path | None = None
    """The file it is from."""
    old: bool = False
    """Of before a rotation."""

    @property
    def recipient(self) -> str:
        """Its public key."""
        return str(self.identity.to_public())


def known_identities(
    encryption: Encryption, ask: Ask | None = None, log: Callable[[str], None] = lambda _line: None
) -> list[Known]:
    """All that can be opened, the current ones first. One that cannot be is no fault while another can.

    Args:
        encryption: `[encryption]` of the configuration.
        ask: asks for a passphrase; one that opened a file is tried on the next before anybody is asked again.
        log: told why one was left out.

    Raises:
        KeyUnavailable: none is configured, or none opens; then it is the fault of the first.
    """
    found: list[Known] = []
    faults: list[KeyUnavailable] = []
    asking = _Remembering(ask or (lambda _prompt: None))
    for load in _places(encryption, asking):
        try:
            found += load()
        except KeyUnavailable as error:
            faults.append(error)
    if not found:
        raise faults[0] if faults else none_configured()
    for fault in faults:
        log(f"note: {fault.sentence}; going on with the other identities")
    return found


def none_configured() -> KeyUnavailable:
    """What to say when the configuration names no identity at all."""
    return KeyUnavailable(
        "no identity is configured, so no backup can be read",
        "Set `identity` below [encryption] to the file of one of the recipients.",
    )


def _places(encryption: Encryption, asking: _Remembering) -> Iterator[Callable[[], list[Known]]]:
    own, command = encryption.identity, encryption.identity_command
    if own is not None:
        yield lambda: _of_file(own, asking, old=False)
    if command is not None:
        yield lambda: [Known(each, "identity_command") for each in printed_identities(command)]
    for path in encryption.old_identities:
        yield lambda path=path: _of_file(path, asking, old=True)  # type: ignore[misc]


def _of_file(path: Path, asking: _Remembering, *, old: bool) -> list[Known]:
    place = path.expanduser()
    return [Known(each, str(path), place, old) for each in asking.load(place)]


class _Remembering:
    """Loads files, and tries a passphrase that was typed for one on the next."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._typed: list[Secret] = []

    def load(self, path: Path) -> list[Any]:
        """The identities of a file. Raises `KeyUnavailable`."""
        for passphrase in self._typed:
            try:
                return load_identities(path, lambda _prompt, known=passphrase: known)  # type: ignore[misc]
            except KeyUnavailable:
                continue
        answers: list[Secret] = []

        def asked(prompt: str) -> Secret | None:
            answer = self._ask(prompt)
            answers.extend([answer] if answer else [])
            return answer

        found = load_identities(path, asked)
        self._typed += answers
        return found


def parsed(identity: Secret) -> Any:
    """An identity as pyrage takes it. Raises `KeyUnavailable`."""
    return parse_identity(identity.reveal())
