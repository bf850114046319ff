"""The engine stands without a screen, and a listing stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "backends").rglob("*.py")
    if "lab" not in path.parts and path.name != "__main__.py"
)


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    script = f"import sys\n{statement}\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_engine_imports_no_screen() -> None:
    loaded = loaded_after("\n".join(f"import {name}" for name in ENGINE))
    assert not loaded & {"textual", "rich", "tui"}


@pytest.mark.parametrize("module", ["tui.cli.main", "tui.cli.status", "tui.cli.list", "tui.cli.config"])
def test_light_commands_load_no_heavy_library(module: str) -> None:
    heavy = {"textual", "rich", "paramiko", "boto3", "botocore", "redis", "asyncssh", "cryptography"}
    assert not loaded_after(f"import {module}") & heavy


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for room in ("backends", "tui", "tests")
        for path in (ROOT / room).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 500
    }
    assert not long
