"""What a run needs with two vaults at once, a directory and a bucket (rclone serve s3): memory, and time.

The source is over real SSH, everything goes through the real writer; each backup is a process of its own.

.venv/bin/python -m tests.bench.vaults [--mib 1024] [--files 20000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends.archive.keys import new_identity
from backends.config.schema import HostConfig
from backends.config.schema import S3Vault as S3Config
from backends.embedded.processes import Processes
from backends.lab.bucket import BucketServer
from backends.model import Asset
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from backends.vault.s3 import S3Vault
from tests.servers.openssh import OpenSSH

MEMORY = 150.0
"""MiB."""
MIB = 1 << 20
_FILE = 30_000


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.vaults", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--once", action="store_true", help="one backup, as stdin says")
    options = parser.parse_args(arguments)
    if options.once:
        _once(json.load(sys.stdin))
        return 0
    kept = True
    with tempfile.TemporaryDirectory(prefix="mastovault-bench-") as name, _server(Path(name)) as server:
        place = Path(name)
        with OpenSSH(place / "sshd") as sshd:
            tree = place / "media"
            _make_tree(tree, options.files)
            work = [
                ("database", options.mib, f"{options.mib} MiB of a dump"),
                ("media", str(tree), f"{options.files} media files of {_FILE} bytes"),
            ]
            for asset, what, words in work:
                for vaults in (["directory"], ["directory", "s3"]):
                    request = _request(sshd, server, place / f"{asset}-{len(vaults)}", vaults, asset, what)
                    seconds, peak = _timed(request)
                    kept &= peak <= MEMORY
                    print(  # noqa: T201
                        f"| {words} into {' and '.join(vaults)} | {seconds:.1f} s | | | {peak:.0f} MiB"
                        f" (at most {MEMORY:.0f}) |",
                        flush=True,
                    )
    return 0 if kept else 1


@contextmanager
def _server(place: Path) -> Iterator[BucketServer]:
    processes = Processes("bench-vaults")
    server = BucketServer(place / "s3" / "buckets", processes)
    os.environ.update(BENCH_KEY=server.access_key, BENCH_SECRET=server.secret_key)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        processes.close()


def _make_tree(tree: Path, files: int) -> None:
    content = os.urandom(_FILE)
    for number in range(files):
        path = tree / f"{number % 100:03d}" / f"{number // 100:03d}" / "original" / f"{number:x}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _request(
    sshd: OpenSSH, server: BucketServer, place: Path, vaults: list[str], asset: str, what: object
) -> dict[str, Any]:
    bucket = f"bench-{asset}-{len(vaults)}"
    server.make(bucket)
    return {
        "host": sshd.host_config().model_dump(mode="json", exclude_defaults=True),
        "asset": asset,
        "what": what,
        "vaults": vaults,
        "directory": str(place),
        "bucket": bucket,
        "endpoint": server.endpoint_url,
        "recipient": new_identity()[1],
    }


def _timed(request: dict[str, Any]) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of one backup in a process of its own."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.vaults", "--once"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("the backup failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def _once(request: dict[str, Any]) -> None:
    """What a run does; everything that a run imports is imported."""
    import backends.operations.backup
    import backends.runs.process  # noqa: F401
    from backends.archive.writer import begin_snapshot
    from backends.assets.base import BackupContext
    from backends.assets.media import HANDLER
    from backends.connection.base import Command, sh
    from backends.connection.open import open_connection
    from backends.mastodon.installation import Installation, InstallKind, MediaKind, MediaPlace
    from backends.progress import QuietJob
    from backends.runs.memory import few_arenas

    few_arenas()
    vaults = _vaults(request)
    recipients = [request["recipient"]]
    for vault in vaults:
        prepare(vault, recipients)
    with open_connection("social", HostConfig(**request["host"])) as connection:
        connection.run(Command(("true",)))  # a run has looked around before it copies
        asset = Asset(request["asset"])
        snapshot = begin_snapshot(vaults, host="social", asset=asset, run="bench", recipients=recipients)
        if asset is Asset.DATABASE:
            # random bytes: what pg_dump gives, but incompressible, so that all of it reaches the vaults
            with connection.start(Command(sh('head -c "$1" /dev/urandom', str(request["what"] * MIB)))) as process:
                snapshot.write("database.pgdump", process, compress=True)
            snapshot.commit({})
        else:
            media = MediaPlace(kind=MediaKind.LOCAL, path=request["what"])
            here = Installation(
                host="social", kind=InstallKind.NATIVE, root="/", user=connection.login_user, media=media
            )
            context = BackupContext(connection=connection, installation=here, job=QuietJob())
            snapshot.commit(HANDLER.back_up(context, snapshot).facts)
    if snapshot.lacking:
        raise SystemExit(str(snapshot.lacking))


def _vaults(request: dict[str, Any]) -> list[Vault]:
    made: list[Vault] = []
    if "directory" in request["vaults"]:
        made.append(DirectoryVault("local", Path(request["directory"])))
    if "s3" in request["vaults"]:
        config = S3Config(
            type="s3",
            bucket=request["bucket"],
            endpoint_url=request["endpoint"],
            access_key_env="BENCH_KEY",
            secret_key_env="BENCH_SECRET",
        )
        made.append(S3Vault("offsite", config))
    return made


if __name__ == "__main__":
    raise SystemExit(main())
