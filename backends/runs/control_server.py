"""The run's end of its control socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.errors import MastovaultError
from backends.runs.control import MAX_MESSAGE
from backends.runs.folder import has_own_directory, remove_socket

_TIMEOUT = 5.0


class ControlServer:
    """Listens on a socket that only its owner may open, and hands each message to `handle`."""

    def __init__(self, path: Path, handle: Callable[[Mapping[str, Any]], None]) -> None:
        self._path, self._handle = path, handle
        self._stopped = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Begin to listen. Raises `OSError`."""
        if has_own_directory(self._path):
            self._path.parent.mkdir(mode=0o700)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        finally:
            os.umask(before)
        self._socket.listen(8)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and remove the socket."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        remove_socket(self._path)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                line, _ = self._socket.accept()
            except OSError:
                # Closed, or no descriptor is free just now.
                self._stopped.wait(0.1)
                continue
            # One after the other, each bounded in time and size: the messages are few and small.
            with line, contextlib.suppress(OSError):
                line.settimeout(_TIMEOUT)
                if _peer(line) in {0, os.getuid()}:
                    line.sendall(self._answer(line))

    def _answer(self, line: socket.socket) -> bytes:
        try:
            with line.makefile("rb") as messages:
                message = json.loads(messages.readline(MAX_MESSAGE))
            if not isinstance(message, dict):
                raise ValueError("no document")
            self._handle(message)
        except MastovaultError as error:
            return json.dumps({"ok": False, "error": error.sentence}).encode() + b"\n"
        except (ValueError, KeyError, TypeError, RecursionError):
            return b'{"ok":false,"error":"the message was not understood"}\n'
        return b'{"ok":true}\n'


def _peer(line: socket.socket) -> int:
    """The user at the other end (SO_PEERCRED, unix(7))."""
    _, user, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)
