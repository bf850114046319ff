"""Fixtures that every test can ask for."""

from __future__ import annotations

import os

import pytest

from tests.lab_fixture import lab, living_lab
from tests.temporary import keep_in_memory

__all__ = ["lab", "living_lab"]


def pytest_configure(config: pytest.Config) -> None:
    keep_in_memory(os.environ)
