"""Fixtures that every test can ask for, and where all of them work."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import pytest

from tests.lab_fixture import lab, living_lab
from tests.temporary import keep_in_memory

__all__ = ["lab", "living_lab"]

_FIRST = (
    *("e2e/test_debian_restore.py", "ui/test_snapshots.py", "e2e/test_debian_faults.py", "integration/test_restore.py"),
    *("ui/test_wizard.py", "e2e/test_debian_bare.py", "integration/test_runs.py", "e2e/test_restore_commands.py"),
)
"""The files that take minutes: begun late, each would keep one process busy while the others have nothing left to do.
Those that mostly wait for a Debian take turns with those that mostly compute."""


def pytest_configure(config: pytest.Config) -> None:
    if made := keep_in_memory(os.environ):
        config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the others keep their order."""
    here = Path(__file__).parent
    order = {here / name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(_FIRST)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there by now stays to the end: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
