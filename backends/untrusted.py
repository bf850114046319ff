"""The one gate for text that comes from a host or a vault."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Cc: controls, ESC among them. Cf: invisible formatting. Cs: lone surrogates. Co, Cn: no agreed picture.
_UNSHOWABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
DEFAULT_LIMIT = 2000


def clean(text: str | bytes, limit: int = DEFAULT_LIMIT, *, lines: bool = False) -> str:
    """Make text from outside safe to show in a terminal.

    Control characters (ESC, C0, C1), invisible and bidirectional marks and lone surrogates become `�`, tabs become
    spaces, and what is longer than `limit` characters is cut with `…`. Line breaks become a space, or are kept with
    `lines`. The result still holds markup characters: show it only where markup is off.

    Args:
        text: what came from outside; bytes are read as UTF-8, wrong ones become `�`.
        limit: characters at most.
        lines: keep line feeds.
    """
    if isinstance(text, bytes):
        text = text[: limit * 4 + 4].decode("utf-8", "replace")
    cut = len(text) > limit
    shown = "".join(_safe(character, lines) for character in text[:limit])
    return shown[:-1] + "…" if cut and shown else shown


def _safe(character: str, lines: bool) -> str:
    if " " <= character <= "~":
        return character
    if character == "\n":
        return "\n" if lines else " "
    if character in "\t\r":
        return " "
    if character in _BIDI or unicodedata.category(character) in _UNSHOWABLE:
        return "�"
    return character
