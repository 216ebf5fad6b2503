"""Documents tell the truth: files and commands that they name exist, generated parts are new."""

import re
import shlex
from pathlib import Path

import pytest

from backend.__main__ import _parser
from backend.recipes import Recipe
from docs import write

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("data/**/*.md")]
    if ".venv" not in path.parts
)
ROOMS = r"(?:backend|kernels|ui|data|tests|docs|app\.py|requirements\.txt)"


def blocks(text):
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(path):
    text = path.read_text()
    named = set(re.findall(rf"`({ROOMS}[\w./-]*)`", text))
    linked = set(re.findall(r"\]\((?!https?:|#)([^)]+)\)", text))
    assert [one for one in named if not (ROOT / one).exists()] == []
    assert [one for one in linked if not (path.parent / one).exists()] == []


def test_the_generated_parts_are_new():
    assert (ROOT / "docs" / "methods.md").read_text() == write.methods_page()
    assert (ROOT / "README.md").read_text() == write.readme()


def test_ci_calls_the_readmes_test_command():
    _, test, *_ = blocks((ROOT / "README.md").read_text())
    assert test.strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readmes_commands_are_commands():
    lines = "".join(blocks((ROOT / "README.md").read_text())[2:]).splitlines()
    assert len(lines) >= 5
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/python"
        assert arguments[:2] == ["-m", "backend"]
        _parser().parse_args(arguments[2:])


def test_the_recipes_in_the_readme_are_recipes():
    text = (ROOT / "README.md").read_text()
    for recipe in re.findall(r"`([a-z-]+[@(][^`]*)`", text):
        assert Recipe.parse(recipe).stages
