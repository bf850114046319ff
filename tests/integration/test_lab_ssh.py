"""The lab's own SSH servers: what runs on a host ends with it."""

from __future__ import annotations

import getpass
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import psutil
import pytest

from backends.lab.ssh import SshHost, SshServers
from tests.servers.need import need


@pytest.fixture
def servers() -> Iterator[SshServers]:
    made = SshServers()
    yield made
    made.close()


@pytest.fixture
def host(tmp_path: Path, servers: SshServers) -> SshHost:
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "key").touch(mode=0o600)
    key.write_private_key(str(tmp_path / "key"))
    key.write_public_key(str(tmp_path / "authorized"))
    made = SshHost("social", tmp_path, dict(os.environ), tmp_path / "host", tmp_path / "authorized")
    made.make_key()
    servers.start(made)
    return made


def begin(host: SshHost, command: str) -> subprocess.Popen[bytes]:
    need("ssh")
    (host.home / "known").write_text(host.known_hosts_line)
    options = [f"UserKnownHostsFile={host.home / 'known'}", "BatchMode=yes", "LogLevel=ERROR"]
    words = [word for option in options for word in ("-o", option)]
    argv = ["ssh", "-F", "none", "-i", str(host.home / "key"), "-p", str(host.port), "-l", getpass.getuser(), *words]
    return subprocess.Popen([*argv, "127.0.0.1", command], stderr=subprocess.DEVNULL)


def process_in(file: Path) -> psutil.Process:
    """The process that wrote its number to a file, once it has."""
    deadline = time.monotonic() + 20
    while not (file.exists() and file.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.01)
    return psutil.Process(int(file.read_text()))


@pytest.mark.parametrize("unwilling", [False, True])
def test_commands_have_ended_when_a_host_has_stopped(servers: SshServers, host: SshHost, unwilling: bool) -> None:
    trap = "trap '' TERM; " if unwilling else ""
    client = begin(host, f"{trap}echo $$ > began; while :; do sleep 0.1; done")
    running = process_in(host.home / "began")
    servers.stop(host)
    assert not running.is_running()
    client.wait(20)


def test_closing_leaves_nothing_to_end_later(
    servers: SshServers, host: SshHost, recwarn: pytest.WarningsRecorder
) -> None:
    """Also of commands that had only just begun: each client is met at another moment of its own beginning."""
    clients = []
    for number in range(12):
        clients.append(begin(host, f"echo $$ > began-{number}; exec sleep 60"))
        time.sleep(0.02)
    servers.stop(host)
    servers.close()
    for client in clients:
        client.wait(20)
    left = [process for process in psutil.process_iter(["cwd", "name"]) if process.info["cwd"] == str(host.home)]
    assert not [process for process in left if process.info["name"] in {"sh", "sleep"}]
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]
