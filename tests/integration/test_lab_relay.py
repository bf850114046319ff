"""The relay is a delay line: a byte is late by the delay, a stream is as fast as without it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from backends.lab.relay import Relay

DELAY = 0.1
SIZE = 64 << 20


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(1 << 20):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def ended(client: socket.socket) -> bool:
    """Whether the other side has ended the connection, one way or the other."""
    client.settimeout(10)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_byte_is_late_by_the_delay_each_way(echo: int) -> None:
    with Relay(echo, DELAY) as relay, socket.create_connection(("127.0.0.1", relay.port)) as client:
        for _ in range(2):
            begin = time.monotonic()
            client.sendall(b"x")
            assert client.recv(10) == b"x"
            assert 2 * DELAY <= time.monotonic() - begin < 2 * DELAY + 0.5


def test_a_stream_keeps_its_rate_and_every_byte(echo: int) -> None:
    piece = bytes(range(256)) * 256
    with Relay(echo, DELAY) as relay, socket.create_connection(("127.0.0.1", relay.port)) as client:

        def send() -> None:
            for _ in range(SIZE // len(piece)):
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)

        begin = time.monotonic()
        threading.Thread(target=send, daemon=True).start()
        got = bytearray()
        while data := client.recv(1 << 20):
            got += data
        took = time.monotonic() - begin
    assert len(got) == SIZE
    # Not of the bytes themselves: pytest would take minutes to show in what they differ.
    assert (bytes(got) == piece * (SIZE // len(piece))) is True
    # A relay that slept for each chunk would need more than 50 s.
    assert took < 10


def test_one_who_reads_slowly_gets_the_end_as_well(echo: int) -> None:
    with Relay(echo, 0) as relay, socket.socket() as client:
        assert relay._server is not None
        # So that the kernel takes the relay's last bytes in many pieces; what is accepted inherits it.
        relay._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", relay.port))
        client.sendall(bytes(200_000))
        client.shutdown(socket.SHUT_WR)
        got = 0
        while data := client.recv(1 << 12):
            got += len(data)
            time.sleep(0.001)
    assert got == 200_000


def test_little_room_means_flow_control_not_loss(echo: int) -> None:
    with (
        Relay(echo, 0.01, buffer=1 << 16) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as client,
    ):
        data = bytes(1 << 20)
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        got = 0
        while got < len(data):
            got += len(client.recv(1 << 20))
    assert got == len(data)


def test_a_cut_breaks_connections_and_takes_new_ones(echo: int) -> None:
    with Relay(echo, 0) as relay:
        with socket.create_connection(("127.0.0.1", relay.port)) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            relay.cut()
            assert ended(client)
        with socket.create_connection(("127.0.0.1", relay.port)) as again:
            again.sendall(b"y")
            assert again.recv(1) == b"y"


def test_a_target_that_refuses_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Relay(port, 0) as relay, socket.create_connection(("127.0.0.1", relay.port)) as client:
        assert ended(client)
