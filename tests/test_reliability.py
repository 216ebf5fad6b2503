"""The two tables of docs/reliability.md hold: every row names tests, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([FT]\d+) \| .* \| (.*) \|$", re.MULTILINE)
NAMED = re.compile(r"`(test_\w+)\.(test_\w+)`")


def rows():
    return ROW.findall((ROOT / "docs" / "reliability.md").read_text())


@pytest.mark.parametrize(("letter", "count"), [("F", 25), ("T", 20)])
def test_every_row_is_there_once_and_names_a_test(letter, count):
    found = {name: tests for name, tests in rows() if name.startswith(letter)}
    assert list(found) == [f"{letter}{number}" for number in range(1, count + 1)]
    assert len([name for name, _ in rows() if name.startswith(letter)]) == count
    assert [name for name, tests in found.items() if not NAMED.search(tests)] == []


def test_every_test_named_exists():
    missing = []
    for module, name in {named for _, tests in rows() for named in NAMED.findall(tests)}:
        path = ROOT / "tests" / f"{module}.py"
        defined = (
            {node.name for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.FunctionDef)}
            if path.is_file()
            else set()
        )  # fmt: skip
        if name not in defined:
            missing.append(f"{module}.{name}")
    assert missing == []


def test_every_requirement_is_one_exact_version():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert len(wanted) > 40
    assert [line for line in wanted if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
