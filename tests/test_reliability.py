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


@pytest.mark.parametrize(("letter", "count"), [("F", 26), ("T", 20)])
def test_every_row_is_there_once_and_names_a_test(letter, count):
    found = {name: tests for name, tests in rows() if name.startswith(letter)}
    assert list(found) == [f"{letter}{number}" for number in range(1, count + 1)]
    assert len([name for name, _ in rows() if name.startswith(letter)]) == count
    assert [name for name, tests in found.items() if not NAMED.search(tests)] == []


MARKERS = {"F": "faults", "T": "security"}


def markers(module):
    """The markers of each test function of a file, those of the whole file among them."""
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
    whole, found = "", {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            whole = ast.unparse(node.value)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            told = " ".join([whole, *map(ast.unparse, node.decorator_list)])
            found[node.name] = set(re.findall(r"pytest\.mark\.(\w+)", told))
    return found


def test_every_test_named_exists_and_carries_the_marker_of_its_row():
    wrong = []
    for row, tests in rows():
        for module, name in NAMED.findall(tests):
            known = markers(module) if (ROOT / "tests" / f"{module}.py").is_file() else {}
            if MARKERS[row[0]] not in known.get(name, ()):
                wrong.append(f"{row}: {module}.{name}")
    assert wrong == []


PIN = re.compile(r"([\w.-]+)==([\w.+]+)(?: ?; .+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def required(name):
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def locked(name):
    """Version and number of hashes of each package of a lock; anything else in it is an error."""
    found = {}
    entries = "\n".join(required(name)).replace(" \\\n", "\n").splitlines()
    for line in entries:
        if pin := PIN.fullmatch(line):
            last = normal(pin[1])
            found[last] = [pin[2], 0]
        else:
            assert HASH.fullmatch(line.strip()), line
            found[last][1] += 1
    return found


@pytest.mark.security
def test_every_requirement_is_one_exact_version():
    wanted = required("requirements.txt")
    assert len(wanted) > 40
    assert [line for line in wanted if not PIN.fullmatch(line)] == []


@pytest.mark.security
@pytest.mark.parametrize("name", ["requirements", "tests/requirements"])
def test_every_requirement_is_locked_by_the_hashes_of_its_files(name):
    lock = locked(f"{name}.lock")
    known = locked("torch.lock") | lock
    assert [package for package, (_, hashes) in lock.items() if not hashes] == []
    pins = {normal(pin[1]): pin[2] for pin in map(PIN.fullmatch, required(f"{name}.txt"))}
    assert {package: known[package][0] for package in pins} == pins
    if name == "requirements":
        assert set(lock) == set(pins) - {"torch"}, "all that is installed is named"


@pytest.mark.security
def test_what_cuda_needs_is_locked_for_linux_alone():
    lock = locked("torch.lock")
    assert {"torch", "triton", "nvidia-cublas", "cuda-bindings"} <= set(lock)
    assert all(hashes for _, hashes in lock.values())
    others = [line for line in required("torch.lock") if "==" in line and "torch" not in line]
    assert [line for line in others if "sys_platform == 'linux'" not in line] == []
    assert not set(lock) & set(locked("requirements.lock"))
    assert locked("torch-cpu.lock") == {"torch": [f"{lock['torch'][0]}+cpu", 1]}
