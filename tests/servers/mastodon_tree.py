"""A host that looks like one with a native Mastodon: files in a directory, and programs that answer in its place."""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from backends.config.schema import HostConfig
from backends.connection.base import Command, Completed
from backends.connection.local import LocalConnection
from backends.connection.tail import StderrTail

VERSION_RB = """\
module Mastodon
  module Version
    module_function

    def major
      4
    end

    def minor
      6
    end

    def patch
      3
    end

    def default_prerelease
      ''
    end
  end
end
"""


class Tree:
    """The directory of one host, outside pytest's own, which other users may not enter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mastovault-host-"))
        self.directory.chmod(0o755)
        self.programs = self.directory / "bin"
        self.programs.mkdir()
        self.home = self.directory / "home"
        self.root = self.home / "live"
        monkeypatch.setenv("PATH", f"{self.programs}:{os.environ['PATH']}")
        monkeypatch.setenv("HOME", str(self.home))
        self.home.mkdir()
        # Programs of the machine that the tests run on must not answer.
        for name in ("systemctl", "docker", "podman", "kubectl"):
            self.program(name, "exit 1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        shutil.rmtree(self.directory)

    def program(self, name: str, script: str) -> None:
        """Put a program on the PATH."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def make(self, env: str | bytes | None, root: Path | None = None) -> Path:
        """Make the code's directory, with `.env.production` unless it is None; returns the directory."""
        root = root or self.root
        (root / "lib/mastodon").mkdir(parents=True)
        (root / "lib/mastodon/version.rb").write_text(VERSION_RB)
        if env is not None:
            path = root / ".env.production"
            path.write_bytes(env.encode() if isinstance(env, str) else env)
            path.chmod(0o600)
        return root

    def unit(self, *, root: Path | None = None, user: str | None = None, **properties: str) -> None:
        """Answer to `systemctl show` with a web service of Mastodon's."""
        shown = {
            "Id": "mastodon-web.service",
            "User": user or getpass.getuser(),
            "WorkingDirectory": str(root or self.root),
            "Environment": "RAILS_ENV=production PORT=3000",
            "ExecStart": "{ path=/home/x/.rbenv/shims/bundle ; argv[]=bundle exec puma -C config/puma.rb ; }",
            "ActiveState": "active",
            **properties,
        }
        lines = "".join(f"{name}={line}\n" for name, value in shown.items() for line in value.split("\n"))
        answer = self.directory / "systemctl.txt"
        answer.write_text("Id=cron.service\nWorkingDirectory=\nExecStart=cron\n\n" + lines)
        self.program("systemctl", f"cat {answer}")

    def config(self, **values: Any) -> HostConfig:
        """The host's configuration."""
        return HostConfig.model_validate({"address": "local", **values})

    def connect(self, host: HostConfig | None = None) -> Recorded:
        """A connection as the user that the tests run as."""
        return Recorded("social", host or self.config(), None)


class Recorded(LocalConnection):
    """Keeps what it was asked to run."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.commands: list[Command] = []

    def run(self, command: Command, **options: Any) -> Completed:
        self.commands.append(command)
        return super().run(command, **options)


class Outsider(Recorded):
    """Logs in as nobody, who may read nothing; sudo grants what `granted` says, as a real one would."""

    def __init__(self, host: HostConfig, granted: Iterable[str] = ()) -> None:
        super().__init__("social", host, None)
        self.login_user = "nobody"
        self.granted = set(granted)

    def _stream(self, argv: tuple[str, ...], tail: StderrTail, **options: Any) -> Any:
        if "sudo" in argv and argv[(at := argv.index("sudo")) + 3] in self.granted:
            become = ("setpriv", f"--reuid={argv[at + 3]}", "--clear-groups")
            return super()._stream((*argv[:at], *become, *argv[at + 4 :]), tail, **options)
        return super()._stream(("setpriv", "--reuid=nobody", "--clear-groups", "--", *argv), tail, **options)


def outsider(monkeypatch: pytest.MonkeyPatch, host: HostConfig, granted: Sequence[str] = ()) -> Outsider:
    """A connection of nobody's; needs root."""
    monkeypatch.setattr(getpass, "getuser", lambda: "nobody")
    return Outsider(host, granted)
