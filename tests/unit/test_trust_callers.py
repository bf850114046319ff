"""Nobody looks at the catalogue without knowing whom to trust."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
INNOCENT = {"observations", "save_observation", "keep_vaults", "note_vault"}
"""What may be asked of a catalogue that knows no signers."""
LATER = {"tui/source.py"}
"""Where the configuration is read again and again, and each time said whom to trust: `trusting`."""


def test_every_catalogue_is_made_with_the_signers() -> None:
    without = []
    for path in [*ROOT.glob("backends/operations/**/*.py"), *ROOT.glob("tui/**/*.py")]:
        tree = ast.parse(path.read_text())
        asked = {id(node.value): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        without += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Catalog" and len(node.args) < 2
            if asked.get(id(node)) not in INNOCENT and str(path.relative_to(ROOT)) not in LATER
        ]
    assert without == []
