"""What a large SSH window is worth on a long line: a transfer through 100 ms of delay, ours and the default.

.venv/bin/python -m tests.bench.window [--mib 256] [--turns 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import paramiko

from backends.config.schema import HostConfig
from backends.connection.base import Command, sh
from backends.connection.open import open_connection
from backends.lab.relay import Relay
from tests.servers.openssh import OpenSSH

MIB = 1 << 20
ROUND_TRIP = 0.1
TARGET = 5.0
_SCRIPT = 'head -c "$1" /dev/zero'


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its row; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.window", description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    size = options.mib * MIB
    ours, default = [], []
    with (
        tempfile.TemporaryDirectory() as directory,
        OpenSSH(Path(directory)) as server,
        Relay(server.port, ROUND_TRIP / 2) as relay,
    ):
        known = Path(directory) / "known_through_relay"
        known.write_text(server.known_hosts.read_text().replace(f":{server.port} ", f":{relay.port} "))
        host = server.host_config(address=f"root@127.0.0.1:{relay.port}", known_hosts=known)
        for _ in range(options.turns):
            ours.append(size / _ours(host, size))
            default.append(size / _default(relay.port, server.client_key, size))
    ratio = statistics.median(a / b for a, b in zip(ours, default, strict=True))
    print(  # noqa: T201
        f"| {options.mib} MiB through {ROUND_TRIP * 1000:.0f} ms of delay | {statistics.median(ours) / MIB:.0f} MiB/s"
        f" | default window {statistics.median(default) / MIB:.0f} MiB/s"
        f" | ratio {ratio:.1f} (at least {TARGET:.0f}) | |"
    )
    return 0 if ratio >= TARGET else 1


def _ours(host: HostConfig, size: int) -> float:
    with open_connection("far", host) as connection:
        began = time.perf_counter()
        with connection.start(Command(sh(_SCRIPT, str(size)))) as process:
            got = 0
            while data := process.read(MIB):
                got += len(data)
            if process.wait() != 0 or got != size:
                raise RuntimeError("the transfer was not whole")
        return time.perf_counter() - began


def _default(port: int, key: Path, size: int) -> float:
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect("127.0.0.1", port, "root", key_filename=str(key), allow_agent=False, look_for_keys=False)
        began = time.perf_counter()
        _, stdout, _ = client.exec_command(f"head -c {size} /dev/zero")
        got = 0
        while data := stdout.channel.recv(MIB):
            got += len(data)
        if got != size:
            raise RuntimeError("the transfer was not whole")
        return time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
