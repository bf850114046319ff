"""Throwaway system users, and what sudo lets them do; needs root."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.need import need, need_root


class Users:
    """Two users, `login` and `other`, and a file for sudo; all gone at the end."""

    def __init__(self) -> None:
        """Choose names that no other test run has."""
        need_root("it adds system users")
        need("useradd", "userdel", "chpasswd", "sudo", "visudo", "su")
        mark = secrets.token_hex(3)
        self.login = f"mvl{mark}"
        self.other = f"mvo{mark}"
        self.password = f"pw {secrets.token_hex(6)}!"
        self._sudoers = Path(f"/etc/sudoers.d/mastovault-test-{mark}")

    def allow(self, *lines: str) -> None:
        """Replace what sudo allows; `{login}` and `{other}` are the users."""
        text = "".join(f"{line.format(login=self.login, other=self.other)}\n" for line in lines)
        subprocess.run(["visudo", "-cqf", "-"], input=text.encode(), check=True)
        fresh = self._sudoers.with_name(f"{self._sudoers.name}~")
        fresh.write_text(text)
        fresh.chmod(0o440)
        # sudo skips names with a ~, so it never reads half a file.
        fresh.rename(self._sudoers)

    def __enter__(self) -> Self:
        for name in (self.login, self.other):
            subprocess.run(["useradd", "-m", "-s", "/bin/bash", name], check=True)
            subprocess.run(["chpasswd"], input=f"{name}:{self.password}\n".encode(), check=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._sudoers.unlink(missing_ok=True)
        for name in (self.login, self.other):
            # A session that is just ending may hold the user for a moment; -f removes it all the same.
            subprocess.run(["userdel", "-r", "-f", name], check=False, capture_output=True)
            assert not Path(f"/home/{name}").exists()
