"""The end of what a command says on stderr, bounded and safe to show."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from backends.untrusted import clean

LINES = 20
LINE_LIMIT = 500
_RAW_LINE_LIMIT = 4 * LINE_LIMIT
_BEFORE_LIMIT = 16 * 1024


class StderrTail:
    """Keeps the last 20 lines of a stream of bytes, and apart from them what came before a marker.

    What sudo, su or a login shell say before the command itself begins is no word of the command's: it is kept in
    `before()` for the message when the command never begins.
    """

    def __init__(
        self, marker: bytes | None = None, *, keep: int = 0, follow: Callable[[bytes], None] | None = None
    ) -> None:
        """Begin.

        Args:
            marker: what the word of the command begins after.
            keep: how many bytes are kept whole as well (for `run`).
            follow: is called with each piece.
        """
        self._follow = follow
        self._lock = threading.Lock()
        self._marker = marker
        self._before = b""
        self._lines: deque[bytes] = deque(maxlen=LINES)
        self._partial = b""
        self._keep = keep
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what just arrived."""
        with self._lock:
            if self._marker is not None:
                data = self._pass_marker(data, self._marker)
            if self._follow is not None and data:
                self._follow(data)
            if len(self._kept) < self._keep:
                self._kept += data[: self._keep - len(self._kept)]
            *complete, self._partial = (self._partial + data).split(b"\n")
            self._lines.extend(complete[-LINES:])
            if len(self._partial) > _RAW_LINE_LIMIT:
                self._partial = self._partial[:_RAW_LINE_LIMIT]

    def _pass_marker(self, data: bytes, marker: bytes) -> bytes:
        self._before += data
        found = self._before.find(marker)
        if found < 0:
            self._before = self._before[-_BEFORE_LIMIT:]
            return b""
        rest = self._before[found + len(marker) :]
        self._before, self._marker = self._before[:found], None
        return rest

    def before(self) -> str:
        """What came before the marker, cleaned, with its line breaks."""
        with self._lock:
            return clean(self._before, lines=True).strip()

    def kept(self) -> bytes:
        """The first `keep` bytes after the marker, raw."""
        with self._lock:
            return bytes(self._kept)

    def text(self) -> str:
        """The last lines, cleaned, one below the other."""
        with self._lock:
            lines = [*self._lines, self._partial] if self._partial else list(self._lines)
        return "\n".join(clean(line.rstrip(b"\r"), LINE_LIMIT) for line in lines[-LINES:])
