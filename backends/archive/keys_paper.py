"""An identity on paper: in groups that can be read and typed, and as a QR code."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from backends.archive.keys import recipient_of
from backends.errors import KeyUnavailable
from backends.model import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "AGE-SECRET-KEY-1"
_DATA = 58
"""Characters after the mark: 32 bytes and a checksum in bech32 (BIP 173), which age uses for identities."""
_GROUP = 4
# Bech32 leaves these out because they look like others, so that whoever typed one meant the other.
_MISREAD = str.maketrans({"O": "0", "I": "L", "1": "L", "B": "8"})
_TAG = re.compile(r"<[^>]*>")
_IDENTITY = re.compile(rf"{MARK}[0-9A-Z]{{{_DATA}}}")


def groups(identity: Secret) -> list[str]:
    """An identity for paper: its mark, then groups of four characters."""
    text = identity.reveal()
    data = text[len(MARK) :]
    return [text[: len(MARK)], *(data[at : at + _GROUP] for at in range(0, len(data), _GROUP))]


def typed_identity(text: str) -> Secret:
    """An identity as somebody typed or scanned it, in whatever case and groups, or within a recovery page.

    A checksum in it finds every mistake of up to four characters; letters that never occur are read as what they look
    like.

    Raises:
        KeyUnavailable: there is none in it.
    """
    # In a page the groups are separate pieces of text.
    bare = re.sub(r"\s+", "", _TAG.sub("", text)).upper()
    at = bare.find(MARK)
    if at < 0 and len(bare) == _DATA:
        bare, at = MARK + bare, 0
    found = bare[at : at + len(MARK) + _DATA]
    if at < 0 or not _IDENTITY.fullmatch(found):
        raise KeyUnavailable(
            "what was given is no identity", f"It begins with {MARK} and has {len(MARK) + _DATA} characters."
        )
    for spelling in (found, MARK + found[len(MARK) :].translate(_MISREAD)):
        try:
            recipient_of(Secret(spelling))
        except KeyUnavailable:
            continue
        return Secret(spelling)
    raise KeyUnavailable(
        "a character of the identity is wrong: its checksum does not fit", "Read it again, four characters at a time."
    )


def qr_matrix(text: str, border: int = 4) -> list[list[bool]]:
    """The modules of a QR code, True is dark, with a quiet zone around (ISO/IEC 18004 asks for 4 modules)."""
    import segno

    code = segno.make(text, error="m", micro=False)
    rows: Sequence[Sequence[int]] = [list(row) for row in code.matrix_iter(border=border)]
    return [[bool(module) for module in row] for row in rows]


def fingerprint(public: str) -> str:
    """A short form of a public signing key, to compare by eye: the first 8 bytes of its SHA-256."""
    digest = hashlib.sha256(base64.b64decode(public)).hexdigest()[:16]
    return " ".join(digest[at : at + _GROUP] for at in range(0, 16, _GROUP))
