from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ui import parsed


@pytest.fixture(scope="session", autouse=True)
def sheets() -> Iterator[None]:
    """Style sheets are parsed once, not for every app."""
    with pytest.MonkeyPatch.context() as patch:
        parsed.share(patch)
        yield


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every screen test sees the same terminal, whatever runs the tests."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    for name in ("NO_COLOR", "TEXTUAL_THEME", "COLORFGBG"):
        monkeypatch.delenv(name, raising=False)
