"""A place of its own on the shared lab: configuration, vaults, state and cache of one test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit

from backends.config.load import load
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.lab.lab import Lab
from backends.runs.view import RunView
from backends.runs.watch import RunsWatcher

PATIENCE = 30.0


class World:
    """The lab's hosts, with everything else fresh."""

    def __init__(self, lab: Lab, place: Path) -> None:
        self.lab = lab
        self.paths = Paths(place / "config.toml", place / "state", place / "cache")
        self.vaults = {name: place / "vaults" / name for name in ("local", "offsite")}
        document = tomlkit.parse(lab.config_file.read_text())
        for name, path in self.vaults.items():
            document["vaults"][name]["path"] = str(path)
            path.mkdir(parents=True)
        self.paths.config_file.write_text(tomlkit.dumps(document))
        self.watcher = RunsWatcher(self.paths.state_dir)

    @property
    def config(self) -> Config:
        return load(self.paths.config_file)

    def change(self, **tables: dict[str, Any]) -> None:
        """Merge tables into the configuration."""
        document = tomllib.loads(self.paths.config_file.read_text())
        for name, table in tables.items():
            document.setdefault(name, {}).update(table)
        self.paths.config_file.write_text(tomlkit.dumps(document))

    def host(self, host: str, **settings: Any) -> None:
        """Change a host's part of the configuration."""
        hosts = tomllib.loads(self.paths.config_file.read_text())["hosts"]
        self.change(hosts={host: hosts[host] | settings})

    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.paths.environment()}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Begin a command."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        argv = [sys.executable, "-m", "tui", *arguments]
        return subprocess.Popen(argv, text=True, env=self.environment(), **options)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """A command's exit code, output and errors."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=60)
            return process.returncode, out, err

    def results(self, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """The exit code and the results of a backup by `host/asset`."""
        code, out, err = self.run("backup", *arguments, "--json")
        events = [json.loads(line) for line in out.splitlines()]
        assert events, err
        assert {event["event"] for event in events[:-1]} <= {"progress"}
        assert events[-1]["event"] == "summary"
        return code, {f"{each['host']}/{each['asset']}": each for each in events[-1]["results"]}

    def until(self, wanted: Callable[[RunView], bool], run: str | None = None) -> RunView:
        """Wait until a run (the newest when none is named) is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while True:
            views = [view for view in self.watcher.poll() if run in (None, view.id)]
            if views and wanted(views[0]):
                return views[0]
            assert time.monotonic() < deadline, views[:1]
            time.sleep(0.02)

    def at_step(self, asset: str, step: str) -> RunView:
        """Wait until the newest run is at some step."""
        return self.until(lambda view: any(job.asset == asset and job.step == step for job in view.jobs))

    def copying(self) -> RunView:
        """Wait until the newest run copies files and some have arrived."""
        return self.until(lambda view: any(job.step == "copying files" and job.done > 0 for job in view.jobs))

    def files(self, vault: str = "local") -> list[str]:
        """Every file in a vault except what `prepare` and records wrote, and unfinished ones too."""
        root = self.vaults[vault]
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        return sorted(name for name in names if "/runs/" not in name and name.startswith("hosts/"))


@contextmanager
def slow(lab: Lab, host: str, rate: float = 300_000.0) -> Iterator[None]:
    """Put a host at the end of a slow line, so that a backup can be caught at work."""
    lab.hosts[host].ssh.rate = rate
    try:
        yield
    finally:
        lab.hosts[host].ssh.rate = None


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal a process and, when it is one that ends, wait until it has."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process is there and not only its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
