"""The architecture: who may import whom, and a few things nobody may do."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

VALUES = {
    "backend.errors", "backend.faults", "backend.home", "backend.later", "backend.settings",
    "backend.shelf",
}  # fmt: skip
"""Modules that everything above `kernels` may use."""

TABLE = {
    # room: what of ours it may import, besides itself and VALUES
    "kernels": set(),
    "backend.errors": set(),
    "backend.faults": set(),
    "backend.home": set(),
    "backend.later": set(),
    "backend.sources": set(),
    "backend.hub": {"backend.sources"},
    "backend.decoding": set(),
    "backend.store": set(),
    "backend.search": {"backend.methods", "backend.formats"},
    "backend.formats": {"kernels"},
    "backend.caches": {"kernels"},
    "backend.jobs": {"backend.store"},
    "backend.measure": {"backend.decoding"},
    "backend.methods": {
        "backend.formats", "backend.caches", "backend.decoding",
        "backend.models",  # inside functions alone: what rewrites a model meets transformers
    },
    "backend.calibrate": {"backend.methods"},
    "backend.recipes": {"backend.methods", "backend.search"},
    "backend.models": {
        "backend.formats", "backend.caches", "backend.methods", "backend.recipes",
        "backend.sources", "backend.hub", "kernels",
    },
    "backend.compress": {
        "backend.formats", "backend.methods", "backend.models", "backend.calibrate",
        "backend.recipes", "backend.search", "backend.stacks", "backend.checkpoint",
    },
    "backend.checkpoint": {"backend.formats", "backend.models"},
    "backend.stacks": {
        "backend.formats", "backend.methods", "backend.models", "backend.calibrate",
        "backend.recipes",
    },
    "data": set(),
}  # fmt: skip
"""Rooms below the service. Those not named here (the service, what prepares a run, the command
line) may use all of `backend`, and only they are used by `ui` and `app`."""

HOMES = {
    "transformers": {"backend.models", "data.export"},
    "duckdb": {"backend.store", "backend.jobs"},
    "gradio": {"ui", "app"},
    "plotly": {"ui"},
    "triton": {"kernels"},
    "spaces": {"backend.lent"},
}
"""Third-party packages that only some may import."""

DOORS = {
    "backend.__main__", "backend.console", "backend.limits", "backend.opening", "backend.rest",
    "backend.rest_board", "backend.rest_comparing", "backend.rest_kept",
    "backend.rest_searching", "backend.rest_values",
    "backend.searching", "backend.service", "backend.solve",
}  # fmt: skip
"""The service and what stands in front of it: the command line, REST and its limits."""

UI_MAY = {
    *DOORS,
    "backend.errors",
    "backend.measure.catalogue",
    "backend.measure.reading",
}
UI_NEVER = {"torch", "transformers", "duckdb", "triton"}


def sources():
    for folder in ("backend", "kernels", "ui", "data"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from ROOT.glob("app.py")


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_typing_block(node):
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def imports(path, at_once=False):
    """Modules that a file imports, names of a package counting as its modules.

    Those for type checkers alone are left out, and with `at_once` those inside functions.
    """
    waiting = [parsed(path)]
    while waiting:
        node = waiting.pop()
        if is_typing_block(node):
            waiting.extend(node.orelse)
            continue
        if at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                inner = ROOT / Path(*node.module.split(".")) / alias.name
                whole = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if whole else node.module
        waiting.extend(ast.iter_child_nodes(node))


def room_of(name):
    """The longest entry of the table that a module lies in; itself if there is none."""
    found = [room for room in TABLE if name == room or name.startswith(f"{room}.")]
    return max(found, key=len, default=name)


def ours(name):
    return name.split(".")[0] in ("backend", "kernels", "ui", "data", "app")


@functools.cache  # by the one process that runs this file, not by all that look into it
def edges():
    return [(name_of(path), target) for path in sources() for target in imports(path)]


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


@pytest.mark.parametrize("room", TABLE)
def test_a_room_imports_only_what_the_table_allows(room):
    allowed = TABLE[room] | VALUES | {room}
    wrong = [
        f"{source} imports {target}"
        for source, target in edges()
        if room_of(source) == room and ours(target) and room_of(target) not in allowed
    ]
    assert not wrong


def test_imports_point_down_only():
    """Rooms form layers: by what loading a room loads, none comes back to itself."""
    graph = {}
    for path in sources():
        targets = (room_of(target) for target in imports(path, at_once=True) if ours(target))
        graph.setdefault(room_of(name_of(path)), set()).update(targets)
    for room, targets in graph.items():
        targets.discard(room)
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_neither_the_service_nor_a_recipe_loads_a_model_library():
    program = (
        "import sys, backend.service\n"
        "from backend import methods, search\n"
        "from backend.recipes import Recipe\n"
        "assert len(methods.catalogue()) > 20 and len(search.catalogue()) > 2\n"
        "Recipe.parse('gptq@3 by evopress')\n"
        "assert not {'torch', 'transformers', 'gradio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_page_knows_the_service_and_values_alone():
    wrong = [
        f"{source} imports {target}"
        for source, target in edges()
        if source.split(".")[0] == "ui"
        and (
            target.split(".")[0] in UI_NEVER
            or (ours(target) and target.split(".")[0] != "ui" and target not in UI_MAY)
        )
    ]
    assert not wrong


def test_nothing_below_imports_the_page_or_the_app():
    wrong = [
        f"{source} imports {target}"
        for source, target in edges()
        if target.split(".")[0] in ("ui", "app") and source.split(".")[0] not in ("ui", "app")
    ]
    assert not wrong


def test_nothing_below_the_service_imports_it():
    wrong = [
        f"{source} imports {target}"
        for source, target in edges()
        if target in DOORS and source.split(".")[0] not in ("ui", "app") and source not in DOORS
    ]
    assert not wrong


@pytest.mark.parametrize("package", HOMES)
def test_a_third_party_package_is_imported_in_its_own_rooms_alone(package):
    wrong = [
        f"{source} imports {target}"
        for source, target in edges()
        if target.split(".")[0] == package
        and not any(source == home or source.startswith(f"{home}.") for home in HOMES[package])
    ]
    assert not wrong


def test_kernels_say_nothing_at_import():
    tree = ast.parse((ROOT / "kernels" / "__init__.py").read_text())
    assert len(tree.body) == 1
    assert ast.get_docstring(tree)


@pytest.mark.security
@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run_from_text(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in ("torch.load", "torch.save"), called
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), node.func.id
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
    roots = {target.split(".")[0] for target in imports(path)}
    assert not roots & {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_and_stays_readable(path):
    text = path.read_text()
    assert ast.get_docstring(parsed(path)), "a file opens with what it is"
    assert len(text.splitlines()) <= 350


def test_the_table_names_rooms_that_exist():
    for room in [*TABLE, *{home for homes in HOMES.values() for home in homes}]:
        path = ROOT / Path(*room.split("."))
        if room not in ("ui", "app"):
            assert path.is_dir() or path.with_suffix(".py").is_file(), room
