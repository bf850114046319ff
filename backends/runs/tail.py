"""Reading a file that grows: whole lines, each of them once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 20
_MAX_LINE = 16 << 20


class Tail:
    """Remembers how far a file was read. A last line that is not whole yet waits; one without end is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._skipping = False

    def read(self) -> Iterator[list[bytes]]:
        """The lines that came since the last time, without their ends, in lists of some thousand; none is an error."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while data := file.read(_CHUNK):
                    self._offset += len(data)
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    if lines and self._skipping:
                        del lines[0]
                        self._skipping = False
                    if len(self._rest) > _MAX_LINE:
                        self._rest, self._skipping = b"", True
                    yield lines
        except OSError:
            return
