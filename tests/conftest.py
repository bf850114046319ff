"""Fixtures that every test can ask for, and where all of them work."""

from __future__ import annotations

import gc
import os
import shutil

import pytest

from tests.lab_fixture import lab, living_lab
from tests.temporary import keep_in_memory

__all__ = ["lab", "living_lab"]


def pytest_configure(config: pytest.Config) -> None:
    if made := keep_in_memory(os.environ):
        config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there by now stays to the end: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
