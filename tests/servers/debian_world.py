"""A Mastodon on a Debian host that was backed up, and its operator: what tests of restores begin with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.debian import Debian
from tests.servers.debian_mastodon import ROOT, Mastodon
from tests.servers.debian_operator import Operator

SECRETS = ("SECRET_KEY_BASE", "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", "VAPID_PRIVATE_KEY")
_REDIS = ("LLEN queue:push", "LLEN queue:default", "ZCARD retry", "ZCARD schedule", "GET stat:processed")


@dataclass(frozen=True)
class State:
    """What a host holds, to be compared before and after."""

    counts: dict[str, int]
    media: dict[str, tuple[str, str, int]]
    settings: tuple[str, str]
    redis: tuple[str, ...]

    @classmethod
    def of(cls, mastodon: Mastodon) -> State:
        """Look at a host."""
        host = mastodon.host
        settings = f"{ROOT}/.env.production"
        return cls(
            mastodon.counts(),
            mastodon.media(),
            (host.run('stat -c "%a %U:%G" "$1"', settings).strip(), host.run('sha256sum <"$1"', settings).strip()),
            (
                *(host.redis(*words.split()) for words in _REDIS),
                host.run("redis-cli --scan --pattern 'feed:home:*' | sort | sha256sum").strip(),
            ),
        )


@dataclass(frozen=True)
class World:
    """The host, what it held when it was backed up, and who looks after it.

    Attributes:
        snapshots: the results of the backup by asset.
    """

    host: Debian
    mastodon: Mastodon
    operator: Operator
    snapshots: dict[str, dict[str, Any]]
    good: State

    def state(self) -> State:
        """What the host holds now."""
        return State.of(self.mastodon)

    def leftovers(self) -> list[str]:
        """What a restore made or kept aside on the host: databases, files and directories."""
        names = "-name '*.before-*' -o -name '*mastovault*' -o -name '*_before_*'"
        places = "/home /var/lib/redis /var/lib/postgresql /etc /tmp /var/tmp /root /run"
        found = self.host.run(f"find {places} -xdev \\( {names} \\) -print 2>/dev/null || true").split()
        return [
            *found,
            *(name for name in self.mastodon.databases() if name not in {"postgres", "mastodon_production"}),
        ]

    def pristine(self) -> bool:
        """Whether all is as it was before anything was damaged or restored."""
        try:
            return self.mastodon.healthy() and not self.leftovers() and self.state() == self.good
        except AssertionError:
            return False

    def restores(self) -> list[dict[str, Any]]:
        """What was restored, the newest first."""
        listed: list[dict[str, Any]] = json.loads(self.operator.must("undo", "--json"))["restores"]
        return sorted(listed, key=lambda record: str(record["at"]), reverse=True)

    def forget_all(self) -> None:
        """Give up every way back."""
        for record in self.restores():
            if record["host"] == "social" and "forget" in record["can"]:
                self.operator.must("undo", record["id"], "--forget", "--confirm", record["confirm"])

    def undo(self) -> dict[str, dict[str, Any]]:
        """Undo the newest restore."""
        record = self.restores()[0]
        assert "undo" in record["can"], record
        return self.operator.done("undo", record["id"], "--confirm", record["confirm"])

    def begin(self, *words: str) -> Begun:
        """Begin a restore; `words` follow `mastovault restore`."""
        known = set(self._journals())
        return Begun(self, self.operator.start("restore", *words), known)

    def _journals(self) -> list[Path]:
        return list((self.operator.home / "state/restores").glob("*/journal.jsonl"))


@dataclass
class Begun:
    """A restore that is going on, and what a test does to it."""

    world: World
    command: subprocess.Popen[str]
    known: set[Path]

    def await_step(self, step: str, *, event: str = "begin", timeout: float = 60.0) -> None:
        """Wait until a step has begun; with `event="done"`, until it is done."""
        until = time.monotonic() + timeout
        while not any(line.get("event") == event and line.get("step") == step for line in self.journal()):
            ended = self.command.poll() is not None
            assert not ended, f"it ended before {step}: {self.command.communicate()}"
            assert time.monotonic() < until, f"it never begins {step}: {self.journal()}"
            time.sleep(0.002)

    def journal(self) -> list[dict[str, Any]]:
        """What it has written down so far."""
        fresh = [path for path in self.world._journals() if path not in self.known]
        if not fresh:
            return []
        return [json.loads(line) for line in fresh[0].read_text().split("\n")[:-1]]

    @property
    def id(self) -> str:
        """Of the restore."""
        (fresh,) = (path for path in self.world._journals() if path not in self.known)
        return fresh.parent.name

    def run(self) -> dict[str, Any]:
        """Its run, as `mastovault runs` lists it."""
        runs = json.loads(self.world.operator.must("runs", "--json"))["runs"]
        found: dict[str, Any] = next(run for run in runs if run["kind"] == "restore" and run["ended_at"] is None)
        return found

    def kill(self) -> None:
        """End its process as a crash would, at once."""
        folder = max((self.world.operator.home / "state/runs").iterdir())
        os.kill(json.loads((folder / "run.json").read_text())["pid"], signal.SIGKILL)
        self.command.communicate(timeout=60)

    def end(self) -> tuple[int, str, str]:
        """Wait for it: exit code and what it printed."""
        out, err = self.command.communicate(timeout=120)
        return self.command.returncode, out, err


@dataclass
class Watch:
    """How long web did not answer at all, at the longest, in seconds."""

    longest: float = 0.0


@contextmanager
def watched(mastodon: Mastodon) -> Iterator[Watch]:
    """Ask web all the time, for as long as the block runs."""
    watch, ended = Watch(), threading.Event()

    def look() -> None:
        answered = time.monotonic()
        while not ended.wait(0.05):
            if mastodon.host.get(3000, "/health")[0]:
                answered = time.monotonic()
            watch.longest = max(watch.longest, time.monotonic() - answered)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def add_host(operator: Operator, name: str, host: Debian, *, user: str = "admin", bare: bool = False) -> None:
    """Add a host to the operator's configuration as they would."""
    login = (f"{user}@127.0.0.1:{host.ssh_port}", "--identity-file", str(host.key), "--become", "sudo")
    operator.must("host", "add", name, *login, "--accept-key", host.fingerprint, *(("--bare",) if bare else ()))
    operator.secrets.append(host.password)


def back_up(host: Debian, mastodon: Mastodon, home: Path) -> World:
    """A new operator who has backed the host up."""
    operator = Operator(home, [mastodon.values[name] for name in SECRETS])
    add_host(operator, "social", host)
    # Sidekiq writes while it runs; what is compared later must not change between the look and the backup.
    snapshots = operator.done("backup", "social")
    return World(host, mastodon, operator, snapshots, State.of(mastodon))
