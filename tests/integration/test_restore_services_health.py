"""Asking for health over a real sshd: over a tunnel, and where the server forwards nothing for its users."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.connection.open import open_connection
from backends.restore.health import WEB_PATH, Address, ask
from tests.servers.backup import local_host
from tests.servers.need import need
from tests.servers.openssh import OpenSSH


class Web:
    """A server that answers like Mastodon behind a proxy: only its own domain, and only as if over TLS."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.status, self.asked = listener, "200 OK", 0
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more, not even the thread that waits."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                request = client.recv(4096).decode()
                self.asked += 1
                right = "\nhost: social.example" in request.lower() and "\nx-forwarded-proto: https" in request.lower()
                status, body = (self.status, "OK") if right else ("403 Forbidden", "Blocked hosts")
                head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                client.sendall(f"{head}{body}".encode())


@pytest.fixture
def web() -> Iterator[Web]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Web(listener)
        yield made


@pytest.mark.apt
@pytest.mark.parametrize("options", ["", "AllowTcpForwarding no"])
def test_health_is_asked_with_and_without_forwarding(web: Web, tmp_path: Path, options: str) -> None:
    if options:
        need("curl")
    address = Address(WEB_PATH, port=web.listener.getsockname()[1])
    with (
        OpenSSH(tmp_path / "sshd", options=options) as server,
        open_connection("social", server.host_config()) as connection,
    ):
        assert ask(connection, address, "social.example").well
        assert ask(connection, address, "other.example").shown == "answers 403: Blocked hosts"
        web.status = "500 Internal Server Error"
        assert ask(connection, address, "social.example").status == 500
        web.stop()
        assert ask(connection, address, "social.example").status == 0


def test_a_unix_socket_is_asked_too(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as listener, local_host() as connection:
        listener.bind(str(path))
        listener.listen()
        web = Web(listener)
        assert ask(connection, Address(WEB_PATH, unix=str(path)), "social.example").well
        web.stop()
        assert not ask(connection, Address(WEB_PATH, unix=str(path)), "social.example").status
