"""The recovery identity on its way out of this machine: shown once, written to a stick or a page, read back."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import click

from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import Secret

_CHECK_LETTERS = 6
_TRIES = 3
# Another screen of the terminal (xterm's 1049), which keeps nothing in its history.
_ENTER = "\x1b[?1049h\x1b[2J\x1b[H"
_LEAVE = "\x1b[2J\x1b[H\x1b[?1049l"
_FORGET = "\x1b[3J"
"""The Linux console has no other screen: its history is erased instead (console_codes(4))."""
# Black on white whatever the terminal's own colours are, or a scanner sees a negative.
_INK = "\x1b[30;107m\x1b[38;5;16;48;5;231m"
_DARK = "\x1b[40m\x1b[48;5;16m"
_LIGHT = "\x1b[107m\x1b[48;5;231m"
_OFF = "\x1b[0m"
_WORDS = 38
"""Columns of the words beside the code, and of what parts them."""
_TEXT_ROWS = 13
_PROMPT = 2


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A recovery identity that has left this machine, or is about to."""

    recipient: str
    identity: Secret | None = None
    """None for a recipient that somebody else made."""
    confirmed: bool = False
    """Whether somebody read it back from a copy."""


def make_recovery(recipient: str | None, *, elsewhere: bool, ascii_only: bool) -> HandedOver:
    """A recovery identity, shown once unless it is written to a file, or the recipient of one that is there already.

    Raises:
        KeyUnavailable: nobody is there to show it to, or it was not read back.
        ConfigurationError: the recipient is none.
    """
    from backends.archive import keys

    if recipient:
        return HandedOver(keys.normal_recipients([recipient])[0])
    identity, made = keys.new_identity()
    if elsewhere:
        return HandedOver(made, identity)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise KeyUnavailable(
            "a recovery copy is needed, and there is no terminal to show it on",
            "Add --recovery-page FILE.svg, --recovery-to FILE (on a USB stick) or --recovery-recipient AGE1...",
        )
    _show_until_read_back(identity, ascii_only=ascii_only)
    return HandedOver(made, identity, confirmed=True)


def _show_until_read_back(identity: Secret, *, ascii_only: bool) -> None:
    """Raises `KeyUnavailable` when it was not read back."""
    wanted = identity.reveal()[-_CHECK_LETTERS:]
    for _ in range(_TRIES):
        _show(identity, ascii_only=ascii_only)
        typed = click.prompt(
            f"Read the last {_CHECK_LETTERS} characters back from your copy", err=True, default="", show_default=False
        )
        if typed.replace(" ", "").upper() == wanted:
            return
        click.echo("That is not what was shown. Once more.", err=True)
    raise KeyUnavailable("the recovery copy was not confirmed; nothing was made", "Run it again.")


def _show(identity: Secret, *, ascii_only: bool) -> None:
    """Show it on a screen of its own until Enter is pressed, then take it away."""
    plain = os.environ.get("TERM", "dumb") in {"", "dumb"}
    if not plain:
        sys.stderr.write(_ENTER)
    try:
        for line in sheet(identity, _size(), ascii_only=ascii_only, plain=plain):
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
        click.prompt("Press Enter when you have a copy on paper", err=True, default="", show_default=False)
    finally:
        if not plain:
            sys.stderr.write(_LEAVE + (_FORGET if os.environ.get("TERM") == "linux" else ""))
            sys.stderr.flush()


def sheet(identity: Secret, size: tuple[int, int], *, ascii_only: bool, plain: bool) -> list[str]:
    """What is shown: the QR code where it fits into `size` (columns, rows), the identity beside or below it."""
    from backends.archive.keys_paper import groups

    mark, *data = groups(identity)
    text = [
        "The recovery identity. Write it",
        "down, print or scan it now: it is",
        "shown once and not kept here.",
        "",
        mark,
        *(" ".join(data[at : at + 5]) for at in range(0, len(data), 5)),
        "",
        "One line, without the spaces. After",
        "the first 1 there is no I, O or B,",
        "and no other 1.",
    ]
    code, beside = ([], False) if plain else fitted(identity.reveal(), size, ascii_only=ascii_only)
    if not code:
        return [_no_room(*size, ascii_only=ascii_only, plain=plain), "", *text]
    if not beside:
        return [*code, "", *text]
    above = [""] * ((len(code) - len(text)) // 2)
    return [f"{line}  {words}".rstrip() for line, words in zip_longest(code, [*above, *text], fillvalue="")]


def fitted(text: str, size: tuple[int, int], *, ascii_only: bool) -> tuple[list[str], bool]:
    """A QR code as lines, dark on light whatever the terminal's colours, and whether words have room beside it.

    Without lines when it does not fit. The quiet zone is 4 modules, or 2 where that makes it fit.
    """
    from backends.archive.keys_paper import qr_matrix

    columns, rows = size
    for border in (4, 2):
        matrix = qr_matrix(text, border)
        lines = _wide(matrix) if ascii_only else _halved(matrix)
        width = len(matrix) * (2 if ascii_only else 1)
        if width + _WORDS <= columns and len(lines) + _PROMPT <= rows:
            return lines, True
        if width <= columns and len(lines) + _TEXT_ROWS + _PROMPT <= rows:
            return lines, False
    return [], False


def _halved(matrix: Sequence[Sequence[bool]]) -> list[str]:
    """Two rows of modules in one of characters."""
    blank = [False] * len(matrix[0])
    pairs = [(matrix[at], matrix[at + 1] if at + 1 < len(matrix) else blank) for at in range(0, len(matrix), 2)]
    signs = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    return [f"{_INK}{''.join(signs[both] for both in zip(*pair, strict=True))}{_OFF}" for pair in pairs]


def _wide(matrix: Sequence[Sequence[bool]]) -> list[str]:
    """Two spaces a module, coloured: needs no character beyond ASCII."""
    return ["".join(f"{_DARK if dark else _LIGHT}  " for dark in row) + _OFF for row in matrix]


def _no_room(columns: int, rows: int, *, ascii_only: bool, plain: bool) -> str:
    if plain:
        return "This terminal shows no colours, so there is no QR code; --recovery-page FILE.svg makes a page with one."
    width, height = (74, 37) if ascii_only else (37, 19)
    return (
        f"The QR code needs {width + _WORDS} columns and {height + _PROMPT} rows, or {width} and "
        f"{height + _TEXT_ROWS + _PROMPT}; this terminal has {columns} and {rows}. Press Ctrl-C and make it larger, "
        "or use --recovery-page FILE.svg."
    )


def _size() -> tuple[int, int]:
    """Columns and rows of the terminal on standard error."""
    try:
        found = os.get_terminal_size(2)
    except OSError:
        return 80, 24
    return found.columns or 80, found.lines or 24


def needs_ascii(asked: bool) -> bool:
    """Whether only ASCII may be written: asked for, or all that the terminal's encoding has."""
    encoding = (getattr(sys.stderr, "encoding", "") or "").lower().replace("-", "")
    return asked or encoding not in {"utf8", "utf16", "utf32"}


def read_recovery(source: str | None, wanted: str | None) -> Secret:
    """The recovery identity as somebody types or scans it, or from a file (`-`: standard input); its recipient fits.

    Args:
        source: the file; None asks on the terminal.
        wanted: the configured recovery recipient.

    Raises:
        ConfigurationError: there is no recovery recipient.
        KeyUnavailable: nothing was given, it is no identity, or the identity of something else.
    """
    from backends.archive.keys import recipient_of

    if not wanted:
        raise ConfigurationError("there is no recovery recipient", "`mastovault key rotate --recovery` makes one.")
    wanted = wanted.strip().lower()
    identity = _read(source, wanted)
    found = recipient_of(identity)
    if found != wanted:
        raise KeyUnavailable(
            f"this is another identity: it belongs to {found}, and the recovery recipient is {wanted}",
            "Look for the right sheet; if it is lost, `mastovault key rotate --recovery` makes a new one.",
        )
    return identity


def _read(source: str | None, wanted: str) -> Secret:
    from backends.archive.keys_paper import typed_identity

    if source is None:
        return _typed()
    if source == "-":
        return typed_identity(sys.stdin.read(1 << 20))
    return _from_file(Path(source).expanduser(), wanted)


def _typed() -> Secret:
    """What is typed, unseen; a slip may be corrected twice. Raises `KeyUnavailable`."""
    from backends.archive.keys_paper import typed_identity

    if not sys.stdin.isatty():
        raise KeyUnavailable(
            "the recovery identity must be typed, and there is no terminal",
            "Add --from FILE, or --from - for standard input.",
        )
    for left in range(_TRIES - 1, -1, -1):
        try:
            return typed_identity(getpass.getpass("The recovery identity, from its copy (not shown): "))
        except KeyUnavailable as error:
            if not left:
                raise
            click.echo(f"{error.sentence}. {error.next_step}", err=True)
    raise AssertionError("unreachable")


def _from_file(path: Path, wanted: str) -> Secret:
    """An identity file, with passphrase or not, or a recovery page; of several identities the one that is wanted."""
    from backends.archive.keys import load_identities
    from backends.archive.keys_paper import typed_identity
    from tui.cli.ask import ask

    try:
        with path.open("rb") as file:
            data = file.read(1 << 20)
    except OSError as error:
        raise KeyUnavailable(
            f"{path} cannot be read: {error.strerror}", "Name the file of the recovery copy."
        ) from None
    if data.lstrip().startswith((b"<?xml", b"<svg")):
        return typed_identity(data.decode("utf-8", "replace"))
    if data.startswith(b"age-encryption.org") or b"\nAGE-SECRET-KEY-" in b"\n" + data:
        found = load_identities(path, ask, private=False)
        return Secret(str(next((each for each in found if str(each.to_public()) == wanted), found[0])))
    return typed_identity(data.decode("utf-8", "replace"))
