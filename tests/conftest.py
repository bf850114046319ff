"""Fixtures that every test can ask for."""

from __future__ import annotations

from tests.lab_fixture import lab

__all__ = ["lab"]
