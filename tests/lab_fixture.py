"""The `lab` fixture: four hosts with real SSH, PostgreSQL, Redis and S3, without a past, for one test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.lab.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running lab shared by all tests; a test that breaks a part mends it again."""
    directory: Path = tmp_path_factory.mktemp("lab")
    with Lab(directory, rows=300) as running:
        yield running


@pytest.fixture(scope="session")
def living_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose services are real processes that answer for their health, and with an empty host, for restores."""
    directory: Path = tmp_path_factory.mktemp("living")
    with Lab(directory, rows=300, services=True, spare=True) as running:
        yield running
