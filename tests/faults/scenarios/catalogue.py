"""The catalogue: every scenario's name, where its test is, and the line that says what happens and what holds."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Scenario(NamedTuple):
    """One scenario. `link` leads from `docs/` to its file; `line` is the first line of the file's docstring."""

    name: str
    link: str
    line: str


def catalogue() -> list[Scenario]:
    """All of them, by name. A file without a docstring has an empty line."""
    return [_scenario(path) for path in sorted(HERE.glob("test_*.py"))]


def _scenario(path: Path) -> Scenario:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    link = f"../tests/faults/scenarios/{path.name}"
    return Scenario(path.stem.removeprefix("test_").replace("_", " "), link, said.partition("\n")[0])
