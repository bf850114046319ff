"""The one directory that holds a lab: claimed by a lock, refused when it is somebody else's."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

from backends.errors import ConfigurationError

MARKER = ".mastovault-lab"


class Claim:
    """A lab's hold on its directory; ends with the process, or with `release`."""

    def __init__(self, directory: Path, mark: str) -> None:
        """Take the directory and empty it of an earlier lab; `mark` is noted for those who want to belong to it.

        Raises:
            ConfigurationError: it is in use by a live lab, holds something else, or cannot be written.
        """
        self.directory = directory.absolute()
        self.mark = mark
        self.lock = -1
        try:
            self._take()
        except OSError as error:
            raise ConfigurationError(
                f"the lab directory {self.directory} cannot be used: {error.strerror}", "Choose another with --dir."
            ) from None

    def _take(self) -> None:
        made = not self.directory.exists()
        self.directory.mkdir(parents=True, exist_ok=True)
        marker = self.directory / MARKER
        if not made and not marker.exists() and any(self.directory.iterdir()):
            raise ConfigurationError(
                f"{self.directory} is not empty and holds no lab", "Choose an empty or a new directory with --dir."
            )
        # Root's PostgreSQL runs as another account, which must be able to walk through.
        self.directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.lock = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock)
            raise ConfigurationError(
                f"a lab is already running in {self.directory}{_holder(marker)}",
                "Stop it first, or choose another directory with --dir.",
            ) from None
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, json.dumps({"pid": os.getpid(), "mark": self.mark}).encode(), 0)
        self.clear()

    def clear(self) -> None:
        """Remove all that the lab wrote; the marker stays."""
        for entry in self.directory.iterdir():
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def release(self) -> None:
        """Let others use the directory. Idempotent."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def mark_of(directory: Path) -> str:
    """The mark of the lab in a directory: a process that carries it in its environment ends with the lab."""
    return str(json.loads((directory / MARKER).read_text())["mark"])


def _holder(marker: Path) -> str:
    try:
        return f" (process {int(json.loads(marker.read_text())['pid'])})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
