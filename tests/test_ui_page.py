"""The page is light, whole and closed: what it imports, ships and lets others call."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from backend.service import Service
from tests.page_results import fill
from ui import setup

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "ui" / "static"
PLOTLY = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"


@pytest.fixture
def service(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as opened:
        yield opened


def test_the_drawing_library_is_the_one_that_was_chosen():
    path = STATIC / "vendor" / "plotly-basic.min.js"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PLOTLY
    assert "plotly.js (basic - minified) v4.1.1" in path.read_text()[:200]
    assert "MIT" in (STATIC / "vendor" / "plotly-basic.LICENSE").read_text()


def test_the_page_needs_no_torch():
    code = (
        "import os; os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'; import sys; "
        "from ui import page; "
        "print([m for m in ('torch', 'transformers', 'triton') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")


def test_scripts_of_the_page_write_no_markup():
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
                          "eval(", "new Function"):  # fmt: skip
            assert forbidden not in text, f"{path.name} uses {forbidden}"


def test_scripts_stay_within_their_budget():
    own = sum(path.stat().st_size for path in STATIC.glob("*.js"))
    assert own < 60_000
    assert own + (STATIC / "vendor" / "plotly-basic.min.js").stat().st_size < 1_500_000


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """The page as Gradio sends it; built in a process of its own, for Gradio leaves loops open."""
    code = (
        "import os, json, sys; os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'\n"
        "from pathlib import Path; from backend.service import Service; from ui import page\n"
        "with Service(Path(sys.argv[1]), run_jobs=False) as service:\n"
        "    config = page.build(service).config\n"
        "    names = ('components', 'dependencies')\n"
        "    print(json.dumps({name: config[name] for name in names}, default=str))\n"
    )
    home = fill(tmp_path_factory.mktemp("home"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_templates_of_components_are_constant(blocks):
    found = [one["props"] for one in blocks["components"]]
    panels = [props for props in found if "data-panel" in str(props.get("html_template", ""))]
    assert len(panels) == 7
    for props in panels:
        assert "${" not in props["html_template"]
        assert "{{" not in props["html_template"]
        assert not props.get("value")


def test_the_page_keeps_no_state_and_no_connection(blocks):
    assert not {one["type"] for one in blocks["components"]} & {"state", "timer", "plot"}


def test_only_what_is_offered_to_programs_is_a_public_endpoint(blocks):
    public = {
        one["api_name"] for one in blocks["dependencies"] if one["api_visibility"] == "public"
    }
    assert public == {"methods", "estimate", "frontier", "run"}


WISH = ("default", "Methods", ["gptq"], ["4"], "")


def test_the_form_says_what_a_run_takes(service):
    text, label = setup.tell(service, *WISH)
    assert text.startswith("Weights ")
    assert "dense" in text
    assert label.startswith("Compress (≈ ")


def test_the_form_counts_variants(service):
    _, label = setup.tell(service, "default", "Methods", ["gptq", "rtn"], ["3", "4"], "")
    assert label.startswith("Compress 4 variants (≈ ")


@pytest.mark.parametrize(
    ("wish", "part"),
    [
        (("default", "Methods", [], ["4"], ""), "at least one method"),
        (("default", "Methods", ["gptq"], [], ""), "at least one budget"),
        (("default", "Methods", ["gptq"], ["much"], ""), "much"),
        (("default", "Methods", ["gptq"], ["0.1"], ""), "1.25"),
        (("default", "Recipe", [], [], "gptq@4 + rtn@4"), "both quantise"),
        (("default", "Recipe", [], [], ""), "Write a recipe"),
        (("no model", "Methods", ["gptq"], ["4"], ""), "no model"),
    ],
)
def test_the_form_says_in_a_sentence_what_cannot_be(service, wish, part):
    text, label = setup.tell(service, *wish)
    assert part in text
    assert label == "Compress"


def test_starting_takes_few_lines():
    assert len((ROOT / "app.py").read_text().splitlines()) < 60
