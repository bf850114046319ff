"""How commands on the lab's hosts reach the lab itself: one JSON question and one JSON answer over a unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.embedded.processes import Processes

SOCKET = "control.sock"
_SOCKET_LIMIT = 100
_LARGEST = 1 << 20
Answerer = Callable[[dict[str, Any]], dict[str, Any]]


class Control:
    """Listens from when it is made to `close`; each question is answered in a thread of its own."""

    def __init__(self, directory: Path, processes: Processes, answer: Answerer) -> None:
        self.path = directory / SOCKET
        if len(str(self.path)) > _SOCKET_LIMIT:
            short = Path(tempfile.mkdtemp(prefix="mastovault-lab-"))
            processes.delete_at_end(short)
            self.path = short / SOCKET
            (directory / SOCKET).symlink_to(self.path)
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        os.chmod(self.path, 0o600)  # noqa: PTH101 - a socket
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, name="lab-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more questions. Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), name="lab-answer", daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            asked = b""
            while data := client.recv(65536):
                asked += data
                if len(asked) > _LARGEST:
                    return
            try:
                answer = self._answer(json.loads(asked))
            except Exception as error:  # noqa: BLE001 - the command on the host must hear of it
                answer = {"error": f"{type(error).__name__}: {error}"}
            client.sendall(json.dumps(answer).encode())


def ask(path: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Ask a running lab. Raises `OSError` when none answers, `ValueError` when it hung up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path.resolve()))
        client.sendall(json.dumps(question).encode())
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(65536):
            answer += data
    found: dict[str, Any] = json.loads(answer)
    return found


def answers(path: Path) -> bool:
    """Whether a lab listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path.resolve()))
        except OSError:
            return False
    return True
