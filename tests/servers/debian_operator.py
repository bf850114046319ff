"""The person at the other end: a home with a configuration, a key and a vault, and whole commands as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.archive.keys import new_identity, write_identity
from backends.archive.signing import new_signing_key

_TIMEOUT = 150


@dataclass
class Operator:
    """Someone who runs Mastovault. `secrets` must never be seen in what it prints."""

    home: Path
    secrets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        identity, recipient = new_identity()
        write_identity(self.home / "identity.age", identity, None)
        public = new_signing_key(self.home / "signing.pem")
        (self.home / "signers.txt").write_text(f"{public}\n")
        self.config.write_text(
            f'[encryption]\nrecipients = ["{recipient}"]\nidentity = "{self.home}/identity.age"\n'
            f'signing_key = "{self.home}/signing.pem"\n\n[signers]\noperator = "{public}"\n\n'
            f'[vaults.local]\ntype = "directory"\npath = "{self.home}/vault"\n'
        )

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.home / "config.toml"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command."""
        env = {
            **os.environ,
            "HOME": str(self.home),
            "MASTOVAULT_CONFIG": str(self.config),
            "MASTOVAULT_STATE_DIR": str(self.home / "state"),
            "MASTOVAULT_CACHE_DIR": str(self.home / "cache"),
        }
        env.pop("SSH_AUTH_SOCK", None)
        argv = (sys.executable, "-m", "tui", *words)
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; whatever it exits with."""
        process = self.start(*words)
        out, err = process.communicate(timeout=_TIMEOUT)
        for secret in self.secrets:
            assert secret not in out + err, f"a secret stands in what `{' '.join(words)}` printed"
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def must(self, *words: str) -> str:
        """Run a command that must succeed; what it prints."""
        done = self.run(*words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def results(self, *words: str) -> dict[str, dict[str, Any]]:
        """Run a command with `--json`; its results by asset, whether they are good or not."""
        done = self.run(*words, "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, f"{' '.join(words)}: {done.returncode} {done.stderr}"
        assert lines[-1]["event"] == "summary", f"{' '.join(words)}: {done.returncode} {lines[-1]} {done.stderr}"
        return {result["asset"]: result for result in lines[-1]["results"]}

    def done(self, *words: str) -> dict[str, dict[str, Any]]:
        """As `results`, and every one must be `done`."""
        results = self.results(*words)
        assert {result["result"] for result in results.values()} == {"done"}, results
        return results

    def folder(self, snapshot: str) -> Path:
        """Where a snapshot is stored."""
        return self.home / "vault/hosts" / snapshot

    def files(self) -> list[Path]:
        """Everything that was stored, and all that is known of it here."""
        places = (self.home / "vault", self.home / "state", self.home / "cache")
        return [path for place in places for path in place.rglob("*") if path.is_file()]
