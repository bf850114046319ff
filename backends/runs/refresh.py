"""Asking hosts and vaults how they are, in a process of its own, into the cache that the screens read."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from backends.catalog import Catalog
from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import MastovaultError
from backends.model import utc_now

AT_ONCE = 16


def start_refresh(paths: Paths, hosts: Sequence[str] | None = None) -> subprocess.Popen[bytes]:
    """Start to ask some hosts (None: all) and every vault; the process ends when all have answered or timed out.

    Where one is at work already, a second that asks for all hosts ends at once.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "backends.runs.refresh", *(hosts or ())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={**os.environ, **paths.environment()},
    )


def refresh(paths: Paths, hosts: Sequence[str]) -> None:
    """Ask, and save every answer as it comes. Raises `ConfigurationError`, `CacheFailed`."""
    from backends.operations.fleet import refresh_vaults
    from backends.operations.observe import observe_host
    from backends.runs.recover import recover

    config = load(paths.config_file)
    catalog = Catalog(paths.cache_dir)
    before = {seen.host: seen for seen in catalog.observations()}
    chosen = [name for name in config.hosts if not hosts or name in hosts]

    def ask(name: str) -> None:
        catalog.save_observation(observe_host(name, config, before.get(name), utc_now()))

    def look_at_vaults() -> None:
        recover(paths, config)
        refresh_vaults(config, catalog)

    # A vault that is slow to answer keeps no host waiting.
    with ThreadPoolExecutor(1) as vaults, ThreadPoolExecutor(AT_ONCE) as pool:
        looked = vaults.submit(look_at_vaults)
        list(pool.map(ask, chosen))
        looked.result()


def main(hosts: Sequence[str]) -> int:
    """`python -m backends.runs.refresh [HOST ...]`."""
    paths = Paths.find()
    paths.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(paths.state_dir / "refresh.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if hosts else fcntl.LOCK_NB))
    except BlockingIOError:
        return 0
    try:
        refresh(paths, hosts)
    except MastovaultError as error:
        print(f"{error.sentence}. {error.next_step}", file=sys.stderr)  # noqa: T201 - for whoever starts it by hand
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
