"""Ways to a host: aliases, ProxyJump, ProxyCommand; each with its own keys and its own sentence when it is closed."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.config.schema import HostConfig
from backends.connection.base import Command
from backends.connection.open import open_connection
from backends.errors import ConfigurationError, ConnectionFailed, HostKeyUnknown, LoginRefused
from tests.servers.openssh import OpenSSH

_CARRY = """
import os, socket, sys, threading
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def out():
    while d := s.recv(65536): os.write(1, d)
    os._exit(0)
threading.Thread(target=out, daemon=True).start()
while d := os.read(0, 65536): s.sendall(d)
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[OpenSSH]]:
    """A target and two hosts on the way, all with one client key."""
    made = [OpenSSH(tmp_path_factory.mktemp(f"sshd{number}"), options="") for number in range(3)]
    for server in made[1:]:
        server.authorize(made[0].client_key)
    with made[0], made[1], made[2]:
        yield made


@pytest.fixture(autouse=True)
def home(servers: list[OpenSSH], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    write_known_hosts(tmp_path, *servers)
    return tmp_path


def write_known_hosts(home: Path, *servers: OpenSSH) -> None:
    (home / ".ssh" / "known_hosts").write_text("".join(server.known_hosts_line() for server in servers))


def configure(home: Path, servers: list[OpenSSH], target: str) -> None:
    text = f"IdentityFile {servers[0].client_key}\nUser {getpass.getuser()}\n"
    for name, server in zip(("target", "one", "two"), servers, strict=True):
        text += f"Host {name}\n HostName 127.0.0.1\n Port {server.port}\n"
        if name == "target":
            text += f" {target}\n"
    (home / ".ssh" / "config").write_text(text)


def works(address: str = "target") -> bool:
    with open_connection("social", HostConfig(address=address)) as connection:
        return connection.run(Command(("cat",)), stdin=b"x" * 300_000).stdout == b"x" * 300_000


@pytest.mark.parametrize("jump", ["one", "one,two", f"{getpass.getuser()}@one"])
def test_proxy_jump(servers: list[OpenSSH], home: Path, jump: str) -> None:
    configure(home, servers, f"ProxyJump {jump}")
    before = [server.log.read_text().count("Accepted publickey") for server in servers]
    assert works()
    after = [server.log.read_text().count("Accepted publickey") for server in servers]
    through = [new - old for old, new in zip(before, after, strict=True)]
    assert through == ([1, 1, 1] if "two" in jump else [1, 1, 0])


def test_a_jump_with_a_jump_of_its_own(servers: list[OpenSSH], home: Path) -> None:
    configure(home, servers, "ProxyJump one")
    with (home / ".ssh" / "config").open("a") as stream:
        stream.write("Host one\n ProxyJump two\n")
    assert works()


def test_a_jump_in_circles(servers: list[OpenSSH], home: Path) -> None:
    configure(home, servers, "ProxyJump target")
    with pytest.raises(ConfigurationError, match="circles"):
        works()


def test_the_key_of_a_jump_is_checked_too(servers: list[OpenSSH], home: Path) -> None:
    configure(home, servers, "ProxyJump one")
    write_known_hosts(home, servers[0])
    with pytest.raises(HostKeyUnknown, match="by way of one") as caught:
        works()
    from backends.connection.host_keys import accept

    accept("social", HostConfig(address="target"), caught.value)
    assert works()


def test_a_jump_that_does_not_let_us_in(servers: list[OpenSSH], home: Path) -> None:
    configure(home, servers, "ProxyJump nosuchuser@one")
    with pytest.raises(LoginRefused, match="by way of one"):
        works()


def test_a_target_that_the_jump_cannot_reach(servers: list[OpenSSH], home: Path) -> None:
    configure(home, servers, "Port 1\n ProxyJump one")
    with pytest.raises(ConnectionFailed, match="by way of one") as caught:
        works("target:1")
    assert caught.value.next_step


def test_proxy_command(servers: list[OpenSSH], home: Path) -> None:
    script = home / "carry.py"
    script.write_text(_CARRY)
    configure(home, servers, f"ProxyCommand {sys.executable} {script} %p 2>/dev/null")
    assert works()


@pytest.mark.parametrize("command", ["false", "/no/such/program", "echo hello"])
def test_a_proxy_command_that_fails(servers: list[OpenSSH], home: Path, command: str) -> None:
    configure(home, servers, f"ProxyCommand {command}")
    with pytest.raises(ConnectionFailed) as caught:
        works()
    assert caught.value.next_step


def test_the_known_hosts_of_the_host_count_for_jumps(servers: list[OpenSSH], home: Path) -> None:
    configure(home, servers, "ProxyJump one")
    (home / ".ssh" / "known_hosts").rename(home / "mine")
    with open_connection("social", HostConfig(address="target", known_hosts=home / "mine")):
        pass
