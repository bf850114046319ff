"""A running `mastovault demo`, and the commands on it, as a new user types them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest


@dataclass(frozen=True)
class Demo:
    """A running `mastovault demo --headless`."""

    directory: Path
    config: Path
    hosts: dict[str, str]
    sites: dict[str, str]

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tui", "--config", str(self.config), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={
                **os.environ,
                "MASTOVAULT_STATE_DIR": str(self.directory / "state"),
                "MASTOVAULT_CACHE_DIR": str(self.directory / "cache"),
            },
            check=False,
        )

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def vault(self) -> Path:
        return Path(tomllib.loads(self.config.read_text())["vaults"]["local"]["path"])

    def identity(self) -> Path:
        return Path(tomllib.loads(self.config.read_text())["encryption"]["identity"])

    def posts(self, host: str) -> int:
        """How many posts a host's site shows; -1 when it cannot tell."""
        try:
            with urlopen(f"{self.sites[host]}/api/v1/instance", timeout=10) as answer:
                return int(json.load(answer)["stats"]["status_count"])
        except HTTPError:
            return -1


@contextmanager
def started(directory: Path) -> Iterator[Demo]:
    """Start the demo in a directory, and stop it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tui", "demo", "--headless", "--dir", str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        readable, _, _ = select.select([process.stdout], [], [], 90)
        line = process.stdout.readline() if readable else ""
        if not line:
            process.kill()
            pytest.fail(f"the demo did not get ready: {process.stderr.read()[-2000:]}")
        ready = json.loads(line)
        assert ready["event"] == "ready"
        try:
            yield Demo(
                directory,
                Path(ready["config"]),
                {host["host"]: host["state"] for host in ready["hosts"]},
                {host["host"]: host["web"] for host in ready["hosts"]},
            )
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
        assert code == 0
