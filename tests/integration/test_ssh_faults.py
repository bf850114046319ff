"""What can go wrong on the way to a host and while it works, against a real sshd; and how fast it is at a distance."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paramiko
import pytest

from backends.config.schema import HostConfig
from backends.connection import machine, packets, ssh
from backends.connection.base import Command, Connection, sh
from backends.connection.open import open_connection
from backends.connection.reach import Timeouts
from backends.errors import CommandFailed, ConnectionFailed, LoginRefused
from backends.lab.relay import Relay
from backends.model import Secret
from tests.contract.test_connection import first_line, gone, until
from tests.servers.openssh import OpenSSH
from tests.servers.users import Users

MIB = 1024 * 1024
SHORT = Timeouts(connect=0.5, banner=0.5, handshake=1, auth=2, channel=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path_factory.mktemp("sshd"), options="RekeyLimit 16M") as running:
        yield running


def through(relay_port: int, server: OpenSSH) -> HostConfig:
    """The configuration that reaches the server by way of another port."""
    known_hosts = server.directory / f"known_hosts_{relay_port}"
    known_hosts.write_text(server.known_hosts_line(f"[127.0.0.1]:{relay_port}"))
    user = server.host_config().address.rpartition(":")[0]
    return server.host_config(address=f"{user}:{relay_port}", known_hosts=known_hosts)


def opened(server: OpenSSH, **settings: Any) -> Connection:
    return open_connection("social", server.host_config(**settings))


def test_a_closed_port() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionFailed, match="Connection refused") as caught:
            open_connection("social", HostConfig(address=f"127.0.0.1:{unused.getsockname()[1]}"))
    assert caught.value.retryable
    assert caught.value.next_step


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(ConnectionFailed, match="cannot be found"):
        open_connection("social", HostConfig(address="no-such-host.invalid"))


def test_a_port_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with pytest.raises(ConnectionFailed, match="does not speak SSH"):
            open_connection("social", HostConfig(address=f"127.0.0.1:{silent.getsockname()[1]}"), timeouts=SHORT)
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "banner", [b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[31m", b"SSH-1.5-old\r\n", b"", b"\xff" * 999]
)
def test_a_port_that_says_something_else(banner: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            accepted, _ = other.accept()
            with accepted:
                accepted.sendall(banner)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ConnectionFailed) as caught:
            open_connection("social", HostConfig(address=f"127.0.0.1:{other.getsockname()[1]}"), timeouts=SHORT)
    assert "\x1b" not in caught.value.sentence


def test_a_banner_and_then_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        kept: list[socket.socket] = []

        def answer() -> None:
            accepted, _ = other.accept()
            kept.append(accepted)
            accepted.sendall(b"SSH-2.0-slow\r\n")

        threading.Thread(target=answer, daemon=True).start()
        begin = time.monotonic()
        with pytest.raises(ConnectionFailed):
            open_connection("social", HostConfig(address=f"127.0.0.1:{other.getsockname()[1]}"), timeouts=SHORT)
        assert time.monotonic() - begin < 8
        kept[0].close()


def test_a_lost_connection_is_never_the_end_of_a_stream(server: OpenSSH) -> None:
    with Relay(server.port, 0.0) as relay, open_connection("social", through(relay.port, server)) as connection:
        process = connection.start(Command(sh("echo $$; echo; exec cat /dev/zero")))
        pid = int(first_line(process))
        process.read(MIB)
        idle = connection.start(Command(("cat",)))
        relay.cut()
        with pytest.raises(ConnectionFailed):
            process.read()
        with pytest.raises(ConnectionFailed):
            process.wait(5)
        with pytest.raises(ConnectionFailed):
            idle.read(1)
        with pytest.raises(ConnectionFailed):
            connection.run(Command(("true",)))
        with pytest.raises(ConnectionFailed):
            connection.open_tcp("127.0.0.1", server.port)
        process.terminate()
        idle.terminate()
        assert until(lambda: gone(pid)), "a command without a connection must end"


_HOLDER = """
import sys
from pathlib import Path
from backends.config.schema import HostConfig
from backends.connection.base import Command, sh
from backends.connection.open import open_connection
host = HostConfig(address=sys.argv[1], identity_file=Path(sys.argv[2]), known_hosts=Path(sys.argv[3]))
process = open_connection("social", host).start(Command(sh("echo $$; exec cat /dev/zero")))
while data := process.read(100000):
    if data.strip(b"\\0"):
        print(data.split()[0].decode(), flush=True)
"""


def test_our_own_violent_end_ends_the_command(server: OpenSSH) -> None:
    host = server.host_config()
    argv = [sys.executable, "-c", _HOLDER, host.address, str(host.identity_file), str(host.known_hosts)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        pid = int(holder.stdout.readline())
        assert not gone(pid)
        holder.kill()
    assert until(lambda: gone(pid))


def test_keys_are_renewed_in_the_middle(server: OpenSSH) -> None:
    # sshd wants new keys every 16 MiB; data goes both ways all the while.
    with open_connection("social", server.host_config()) as connection:
        data = os.urandom(MIB)
        with connection.start(Command(("cat",))) as process:

            def feed() -> None:
                for _ in range(64):
                    process.write(data)
                process.close_stdin()

            feeder = threading.Thread(target=feed)
            feeder.start()
            received = process.read()
            feeder.join(20)
            assert process.wait(5) == 0
        assert received == data * 64


def test_we_renew_keys_ourselves(server: OpenSSH, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets.FastPacketizer, "REKEY_BYTES", 3 * MIB)
    with open_connection("social", server.host_config()) as connection:
        # Some of them end in the middle of a key exchange.
        for size in range(20 * MIB, 30 * MIB, MIB):
            done = connection.run(Command(("head", "-c", str(size), "/dev/zero")), limit=50 * MIB)
            assert len(done.stdout) == size


def test_noise_of_a_shell_is_no_output(tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text(
        '#!/bin/sh\nprintf "\\033[31mWelcome!\\n[/x] no end of line"\necho on stderr >&2\nexec /bin/sh "$@"\n'
    )
    noisy.chmod(0o755)
    # What sshd runs before each command stands for a chatty .bashrc.
    options = f'ForceCommand {noisy} -c "$SSH_ORIGINAL_COMMAND"'
    with OpenSSH(tmp_path / "sshd", options=options) as chatty, opened(chatty) as connection:
        done = connection.run(Command(("cat",)), stdin=b"data")
        assert (done.status, done.stdout, done.stderr) == (0, b"data", b"")
        assert connection.run(Command(("id",), secret_env={"P": Secret("x")})).status == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo This account is currently not available.; exit 1", "not available"),
        ("exit 1", ""),
        ("cat >/dev/null", ""),
    ],
)
def test_a_login_that_runs_no_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    monkeypatch.setattr(machine, "START_TIMEOUT", 1.0)
    with (
        OpenSSH(tmp_path / "sshd", options=f"ForceCommand {command}") as odd,
        opened(odd) as connection,
        pytest.raises(LoginRefused, match="does not run commands") as caught,
    ):
        connection.run(Command(("true",)))
    assert said in caught.value.sentence
    assert "shell" in caught.value.next_step


@pytest.mark.root
def test_nologin(server: OpenSSH) -> None:
    with Users() as users:
        subprocess.run(["usermod", "-s", "/usr/sbin/nologin", users.login], check=True)
        with opened(server, user=users.login) as connection, pytest.raises(LoginRefused, match="not available"):
            connection.run(Command(("true",)))


def test_few_sessions_are_waited_for(tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "sshd", options="MaxSessions 2") as small, opened(small) as connection:
        pool = ThreadPoolExecutor(8)
        results = list(pool.map(lambda n: connection.run(Command(("echo", str(n)))).stdout, range(8)))
        pool.shutdown()
        assert results == [f"{number}\n".encode() for number in range(8)]


def test_the_end_of_a_command_needs_no_free_session(tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "sshd", options="MaxSessions 1") as small, opened(small) as connection:
        process = connection.start(Command(sh("echo $$; exec sleep 1000")))
        pid = int(first_line(process))
        process.terminate()
        assert until(lambda: gone(pid), 1)
        assert connection.run(Command(("true",))).status == 0


def test_no_session_becomes_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_REFUSED_FOR", 0.5)
    with (
        OpenSSH(tmp_path / "sshd", options="MaxSessions 1") as small,
        opened(small) as connection,
        connection.start(Command(("cat",))),
        pytest.raises(ConnectionFailed, match="no further channel") as caught,
    ):
        connection.run(Command(("true",)))
    assert "MaxSessions" in caught.value.next_step


def test_forwarding_that_is_forbidden(tmp_path: Path) -> None:
    options = "AllowTcpForwarding no\nAllowStreamLocalForwarding no"
    with OpenSSH(tmp_path / "sshd", options=options) as closed, opened(closed) as connection:
        with pytest.raises(ConnectionFailed) as tcp:
            connection.open_tcp("127.0.0.1", closed.port)
        with pytest.raises(ConnectionFailed) as unix:
            connection.open_unix("/x")
    assert "AllowTcpForwarding" in tcp.value.next_step
    assert "AllowStreamLocalForwarding" in unix.value.next_step


def test_a_host_that_hangs(server: OpenSSH) -> None:
    with open_connection("social", server.host_config()) as connection:
        begin = time.monotonic()
        with pytest.raises(CommandFailed, match="took longer"):
            connection.run(Command(sh("echo partly; sleep 100")), timeout=0.3)
        assert time.monotonic() - begin < 5


def test_the_first_cipher_is_gcm(server: OpenSSH) -> None:
    with open_connection("social", server.host_config()) as connection:
        assert isinstance(connection, ssh.SshConnection)
        assert connection._transport.local_cipher == "aes128-gcm@openssh.com"


@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes256-gcm@openssh.com"])
def test_servers_with_other_ciphers(tmp_path: Path, cipher: str) -> None:
    with (
        OpenSSH(tmp_path / "sshd", options=f"Ciphers {cipher}\nMACs hmac-sha2-512-etm@openssh.com") as other,
        opened(other) as connection,
    ):
        assert len(connection.run(Command(("head", "-c", "5000000", "/dev/zero"))).stdout) == 5_000_000


def test_a_server_with_nothing_safe(tmp_path: Path) -> None:
    with (
        OpenSSH(tmp_path / "sshd", options="Ciphers chacha20-poly1305@openssh.com") as other,
        pytest.raises(ConnectionFailed, match="no method that is safe"),
    ):
        opened(other)


def test_the_window_shows_at_a_distance(tmp_path: Path) -> None:
    # 100 ms each way; what paramiko and OpenSSH have by default moves at most 2 MiB in 200 ms.
    with OpenSSH(tmp_path / "sshd") as far, Relay(far.port, 0.1) as relay:
        host = through(relay.port, far)
        with open_connection("social", host) as connection:
            ours = _rate(connection.start(Command(("cat", "/dev/zero"))).read, 128 * MIB)
        plain = paramiko.Transport(("127.0.0.1", relay.port))
        plain.connect(username=host.address.partition("@")[0], pkey=paramiko.PKey.from_path(far.client_key))
        channel = plain.open_session()
        channel.exec_command("cat /dev/zero")
        default = _rate(channel.recv, 8 * MIB)
        plain.close()
    assert ours > 5 * default, f"{ours / MIB:.0f} MiB/s against {default / MIB:.0f}"


def _rate(read: Callable[[int], bytes], size: int) -> float:
    begin = time.monotonic()
    left = size
    while left > 0:
        left -= len(read(MIB))
    return size / (time.monotonic() - begin)
