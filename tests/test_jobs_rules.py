"""What the code of the queue and the store must never do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "backend/jobs").glob("*.py"), *(ROOT / "backend/store").glob("*.py")])
STATEMENTS = ("execute", "executemany", "sql", "query", "begin", "commit")


def trees():
    return {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def constants_of(tree):
    """Names that a module binds once, at its top, to a plain string."""
    return {
        target.id
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name) and isinstance(statement.value.value, str)
    }


@pytest.mark.security
def test_every_statement_is_a_constant():
    seen = 0
    for name, tree in trees().items():
        constants = constants_of(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in STATEMENTS:
                continue
            seen += 1
            (first, *_) = node.args
            place = f"{name}:{node.lineno}"
            if ast.unparse(first) == "SCHEMA_FILE.read_text(encoding='utf-8')":
                assert name == "database.py", place
            elif isinstance(first, ast.Name):
                assert first.id in constants, place
            else:
                assert isinstance(first, ast.Constant), place
    assert seen > 40


def test_no_module_of_a_lower_or_heavier_room_is_named():
    allowed = {
        "jobs": {"duckdb", "psutil", "filelock"},
        "store": {"duckdb", "pandas", "filelock"},
    }
    for path in FILES:
        room = path.parent.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top == "backend":
                    rooms = ("errors", "faults", "store", *(("jobs",) if room == "jobs" else ()))
                    assert name.split(".")[1] in rooms, f"{path.name} imports {name}"
                else:
                    assert top in sys.stdlib_module_names | allowed[room], f"{path.name}: {name}"


@pytest.mark.parametrize(
    "module", ["backend.jobs.runner", "backend.jobs.worker", "backend.store.documents"]
)
def test_what_a_worker_pays_for_is_light(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    heavy = {"duckdb", "pandas", "numpy", "pyarrow", "torch", "transformers", "gradio", "asyncio"}
    assert heavy.isdisjoint(loaded)
