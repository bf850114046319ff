"""Skip a test by the name of what it lacks; where everything must be there (CI), fail instead."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

_SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))


def find(program: str) -> str | None:
    """Where a program is, looked for in the directories of administrators as well."""
    return shutil.which(program, path=_SEARCH)


def need(*programs: str) -> list[str]:
    """The paths of programs that a test cannot do without; skips the test when one is missing (fails with CI=true)."""
    missing = [program for program in programs if find(program) is None]
    if missing:
        stop(f"needs {', '.join(missing)}, which scripts/test-servers installs when it may")
    return [found for program in programs if (found := find(program))]


def need_root(why: str) -> None:
    """Skip when we are not root; `why` says what for."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root: {why}")


def stop(reason: str) -> NoReturn:
    """Skip the test; where everything must be there (CI), fail it."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)
