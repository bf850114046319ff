"""Fixtures that every test can ask for."""

from __future__ import annotations

from tests.lab_fixture import lab, living_lab

__all__ = ["lab", "living_lab"]
