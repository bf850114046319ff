"""The screen of a hundred hosts in a real terminal: first paint, and from a key to its frame while eight jobs run.

.venv/bin/python -m tests.bench.ui [--hosts 100] [--keys 200]

The app runs in a pseudo-terminal of its own; what is timed is what a person sees: from the start of the process to the
first row, and from a key to the bytes that move the cursor.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import random
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.model import Asset, AssetObservation, HostObservation, HostState, JobSnapshot, JobState, utc_now
from backends.runs.events import EventWriter, log_events, progress_event
from backends.runs.folder import new_folder, process_start, write_request

TARGET_PAINT = 1.0
TARGET_KEY = 0.050
_SIZE = (120, 40)
_JOBS = 8
_ROW = b"h000"
_CURSOR = "▌".encode()
_TOTAL = 8 << 30


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.ui", description=__doc__)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return _child()
    with tempfile.TemporaryDirectory() as directory:
        paths = _fleet(Path(directory), options.hosts)
        paints = [_paint(paths) for _ in range(5)]
        with _busy(paths):
            keys, cpu, memory = _keys(paths, options.keys)
    paint, used = (statistics.median(part) for part in zip(*paints, strict=True))
    p95 = statistics.quantiles(keys, n=20)[-1]
    rows = (
        f"| first paint of {options.hosts} hosts x 4 assets | {paint:.2f} s ({used:.2f} s of CPU) | "
        f"| under {TARGET_PAINT:.0f} s | |",
        f"| key to frame, {_JOBS} jobs, p50 / p95 / max | {statistics.median(keys) * 1000:.0f} / {p95 * 1000:.0f} / "
        f"{max(keys) * 1000:.0f} ms | | p95 under {TARGET_KEY * 1000:.0f} ms, {cpu:.0f}% CPU | {memory:.0f} MB |",
    )
    print("\n".join(rows))  # noqa: T201
    return 0 if paint < TARGET_PAINT and p95 < TARGET_KEY else 1


def _child() -> int:
    from tui.app import MastovaultApp

    MastovaultApp(Paths.find(), refreshes=False).run()
    return 0


def _fleet(place: Path, hosts: int) -> Paths:
    paths = Paths(place / "config.toml", place / "state", place / "cache")
    names = [f"h{number:03d}.example" for number in range(hosts)]
    vault = f'[vaults.local]\ntype = "directory"\npath = "{place / "vault"}"\n'
    paths.config_file.write_text(vault + "".join(f'[hosts."{name}"]\naddress = "{name}"\n' for name in names))
    catalog = Catalog(paths.cache_dir)
    for name in names:
        assets = tuple(AssetObservation(asset=asset, present=True, bytes=1 << 30) for asset in Asset)
        now = utc_now()
        catalog.save_observation(
            HostObservation(host=name, state=HostState.ONLINE, asked_at=now, since=now, version="4.5.3", assets=assets)
        )
    return paths


@contextmanager
def _app(paths: Paths) -> Iterator[tuple[int, int, float]]:
    """The app in a pseudo-terminal: its process id, our end of the terminal, when it was started."""
    began = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**os.environ, **paths.environment(), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.bench.ui", "--child"], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _SIZE[1], _SIZE[0], 0, 0))
    try:
        yield pid, terminal, began
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def _until(terminal: int, wanted: bytes, seconds: float) -> None:
    """Read what is drawn until something is; raises TimeoutError."""
    end = time.perf_counter() + seconds
    seen = b""
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.perf_counter()))
        if not ready:
            raise TimeoutError(f"{wanted!r} was not drawn within {seconds:.0f} s")
        seen = seen[-64:] + os.read(terminal, 1 << 16)


def _drain(terminal: int, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while (rest := end - time.perf_counter()) > 0:
        ready, _, _ = select.select([terminal], [], [], rest)
        if ready:
            os.read(terminal, 1 << 16)


def _paint(paths: Paths) -> tuple[float, float]:
    with _app(paths) as (pid, terminal, began):
        _until(terminal, _ROW, 30)
        wall = time.perf_counter() - began
        used = psutil.Process(pid).cpu_times()
        return wall, used.user + used.system


def _keys(paths: Paths, count: int) -> tuple[list[float], float, float]:
    chance = random.Random(1)
    times = []
    with _app(paths) as (pid, terminal, _began):
        _until(terminal, _ROW, 30)
        _drain(terminal, 2)
        process = psutil.Process(pid)
        process.cpu_percent()
        for number in range(count):
            pressed = time.perf_counter()
            os.write(terminal, b"j" if number % 100 < 50 else b"k")
            _until(terminal, _CURSOR, 5)
            times.append(time.perf_counter() - pressed)
            _drain(terminal, 0.03 + chance.random() * 0.08)
        return times, process.cpu_percent(), process.memory_info().rss / (1 << 20)


@contextmanager
def _busy(paths: Paths) -> Iterator[None]:
    """Eight runs that report four times a second and log, as real ones do; their process is this one."""
    stop = threading.Event()
    writers = []
    for number in range(_JOBS):
        name = f"h{number:03d}.example"
        folder, request = new_folder(paths.state_dir, kind="backup", host=name, assets=[Asset.DATABASE], options={})
        write_request(folder, replace(request, pid=os.getpid(), started=process_start(os.getpid())))
        writers.append((name, EventWriter(folder)))

    def report() -> None:
        done = 0
        while not stop.wait(0.25):
            done += 20 << 20
            for name, writer in writers:
                snapshot = JobSnapshot(
                    id="database",
                    host=name,
                    asset=Asset.DATABASE,
                    state=JobState.RUNNING,
                    step="dumping",
                    done=done,
                    total=_TOTAL,
                    rate=80e6,
                )
                writer.write(progress_event(snapshot))
                lines = [(utc_now(), "database", f'dumping contents of table "public.t{done + n}"') for n in range(6)]
                for event in log_events(lines):
                    writer.write(event)

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for _name, writer in writers:
            writer.close()


if __name__ == "__main__":
    raise SystemExit(main())
