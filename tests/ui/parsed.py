"""What Textual parses of style sheets, kept for the next app of this process: each test starts one anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.css.stylesheet import Stylesheet


def share(patch: pytest.MonkeyPatch) -> None:
    """Parse a text once for the same variables; what has errors is parsed, and said, every time.

    Textual itself uses what one sheet has parsed again and again (`Stylesheet._parse_cache`), and so never changes it;
    but it keeps that for one sheet only, and each app makes several.
    """
    parse: Callable[..., list[Any]] = Stylesheet._parse_rules
    kept: dict[Any, list[Any]] = {}

    def parsed(
        sheet: Stylesheet,
        css: str,
        read_from: tuple[str, str],
        is_default_rules: bool = False,
        tie_breaker: int = 0,
        scope: str = "",
    ) -> list[Any]:
        key = (css, read_from, is_default_rules, tie_breaker, scope, tuple(sheet._variables.items()))
        if key not in kept:
            kept[key] = parse(sheet, css, read_from, is_default_rules, tie_breaker, scope)
        return kept[key]

    patch.setattr(Stylesheet, "_parse_rules", parsed)
