"""docs/paper_map.md names functions and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import editr1

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| .* \| `([\w.]+):(\w+)` \| `(tests/[\w/]+\.py)::(\w+)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "paper_map.md").read_text("utf-8"))


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_every_row_of_the_table_is_read() -> None:
    lines = (ROOT / "docs" / "paper_map.md").read_text("utf-8").splitlines()
    assert len(ROWS) == sum(line.startswith("| ") for line in lines) - 1  # all but the header


@pytest.mark.parametrize(("module", "function", "test_file", "test"), ROWS)
def test_the_map_leads_somewhere(module: str, function: str, test_file: str, test: str) -> None:
    source = Path(editr1.__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    assert function in names_in(source)
    assert test in names_in(ROOT / test_file)
