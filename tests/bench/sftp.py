"""An SFTP vault against OpenSSH's own `sftp` and `scp`: the same bytes to the same server, there and back.

.venv/bin/python -m tests.bench.sftp [--mib 256] [--turns 3] [--delay 0.0]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from backends.config.schema import SftpVault as SftpConfig
from backends.lab.relay import Relay
from backends.vault.sftp import SftpVault
from tests.servers.need import need
from tests.servers.openssh import OpenSSH
from tests.servers.sftp import SUBSYSTEM, config_for

MIB = 1 << 20
TARGET = 1.5
"""How much longer than `sftp` ours may take; Python's share is AES and the copies of it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.sftp", description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds of the round trip")
    options = parser.parse_args(arguments)
    size = options.mib * MIB
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(OpenSSH(directory / "sshd", options=SUBSYSTEM))
        port = server.port
        known = server.known_hosts
        if options.delay:
            port = stack.enter_context(Relay(server.port, options.delay / 2)).port
            known = directory / "known"
            known.write_text(server.known_hosts.read_text().replace(f":{server.port} ", f":{port} "))
        source = directory / "source"
        with source.open("wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(MIB))
        config = config_for(server, directory / "vault", address=f"root@127.0.0.1:{port}", known_hosts=known)
        ssh = ["-P", str(port), "-i", str(server.client_key), "-o", f"UserKnownHostsFile={known}"]

        def batch(line: str) -> Callable[[], None]:
            (program,) = need("sftp")
            return lambda: _run([program, "-q", "-b", "-", *ssh, "root@127.0.0.1"], line)

        rows: dict[str, tuple[list[float], list[float]]] = {"put": ([], []), "get": ([], [])}
        (scp,) = need("scp")
        copies = []
        for _ in range(options.turns):
            rows["put"][0].append(_time(lambda: _put(config, source)))
            rows["put"][1].append(_time(batch(f"put -f {source} {directory}/stored")))
            copies.append(_time(lambda: _run([scp, "-q", *ssh, str(source), f"root@127.0.0.1:{directory}/stored"], "")))
            rows["get"][0].append(_time(lambda: _get(config, size)))
            rows["get"][1].append(_time(batch(f"get {directory}/stored /dev/null")))
    missed = False
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    far = f" through {options.delay * 1000:.0f} ms of delay" if options.delay else ""
    for what, (ours, theirs) in rows.items():
        mine, other = statistics.median(ours), statistics.median(theirs)
        missed |= mine / other > TARGET
        beside = f", scp {size / statistics.median(copies) / MIB:.0f} MiB/s" if what == "put" else ""
        print(  # noqa: T201
            f"| SFTP vault, {what} {options.mib} MiB{far} | {size / mine / MIB:.0f} MiB/s | sftp "
            f"{size / other / MIB:.0f} MiB/s{beside} | {mine / other:.2f} (at most {TARGET}) | {memory} MiB |"
        )
    return int(missed)


def _put(config: SftpConfig, source: Path) -> None:
    vault = SftpVault("v", config)
    with source.open("rb") as file, vault.open_upload("object") as upload:
        while data := file.read(MIB):
            upload.write(data)
        upload.commit()
    vault.close()


def _get(config: SftpConfig, size: int) -> None:
    vault = SftpVault("v", config)
    got = 0
    with vault.read("object") as stored:
        while data := stored.read(MIB):
            got += len(data)
    vault.close()
    if got != size:
        raise RuntimeError("the object was not whole")


def _run(argv: list[str], text: str) -> None:
    subprocess.run(argv, input=text.encode(), check=True, stdout=subprocess.DEVNULL)


def _time(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
