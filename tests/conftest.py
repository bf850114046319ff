"""Fixtures that every test can ask for, and where all of them work."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.lab_fixture import lab, living_lab
from tests.temporary import keep_in_memory

__all__ = ["lab", "living_lab"]


def pytest_configure(config: pytest.Config) -> None:
    if made := keep_in_memory(os.environ):
        config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))
