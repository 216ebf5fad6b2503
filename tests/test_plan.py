"""A run's key changes with what changes its numbers, and with nothing else."""

import json
import math

import pandas as pd
import pytest

from backend.errors import DataError, SettingError
from backend.estimate import BASE_MEMORY, WORKING_MEMORY, estimate
from backend.plan import plan
from backend.recipes import Recipe
from backend.sources import ModelSource
from backend.sweeps import points
from backend.texts import Texts, read

DEFAULT = ModelSource.parse("default")
NOTHING = pd.DataFrame({"model": [], "recipe": [], "family": [], "seconds": []})


def keys(recipe="gptq@4", **settings):
    return plan(Recipe.parse(recipe), DEFAULT, **settings).spec["keys"]


def test_the_same_wish_has_the_same_keys():
    assert keys() == keys()
    assert keys("gptq@4") == keys("gptq(bits=4)")


def test_what_is_looked_at_longer_is_the_same_artefact():
    quick, full = keys(tier="quick"), keys(tier="full")
    assert quick["artefact"] == full["artefact"]
    assert quick["quality"] != full["quality"]
    timed = keys(speed="full")
    assert quick["quality"] == timed["quality"]
    assert quick["speed"] != timed["speed"]


@pytest.mark.parametrize(
    "recipe", ["gptq@3", "rtn@4", "gptq(bits=4, damping=0.1)", "gptq@4 + copyspec"]
)
def test_another_recipe_is_another_artefact_on_the_same_statistics(recipe):
    assert keys(recipe)["artefact"] != keys()["artefact"]
    assert keys(recipe)["statistics"] == keys()["statistics"]


def test_another_walk_is_another_artefact():
    assert keys(walk="parallel")["artefact"] != keys()["artefact"]


def test_another_text_is_another_artefact(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [
        json.dumps({"text": f"Line {number} of a text that is all my own."}) for number in range(9)
    ]
    path.write_text("\n".join(lines))
    first = keys(texts=Texts(calibration_file=path))["artefact"]
    assert first != keys()["artefact"]
    path.write_text("\n".join([*lines, json.dumps({"text": "And one line more."})]))
    assert keys(texts=Texts(calibration_file=path))["artefact"] != first


def test_a_thoroughness_that_is_not_there_is_refused():
    with pytest.raises(SettingError, match="smoke, quick, full"):
        keys(tier="endless")


def test_plain_text_is_cut_at_blank_lines_into_documents_of_a_thousand_characters(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("\n\n".join(["x" * 600] * 18))
    found = read(path)
    assert len(found) == 9
    assert {len(text) for _, _, text in found} == {1202}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", "", "holds 0 documents"),
        ("few.jsonl", '{"text": "one"}', "holds 1 documents"),
        ("bad.jsonl", "no json", "Line 1"),
        ("other.jsonl", '{"body": "one"}', "field `text`"),
    ],
)
def test_a_text_that_cannot_be_used_says_why(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read(path)


def test_a_text_that_is_not_there_says_so(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "nowhere.txt")


def test_the_estimate_is_dense_bytes_less_what_the_matrices_lose():
    shapes = DEFAULT.shapes()
    total = sum(math.prod(shape) for shape in shapes.values())
    matrices = sum(
        math.prod(shape) for name, shape in shapes.items() if "proj" in name and len(shape) == 2
    )
    found = estimate(Recipe.parse("rtn@4"), DEFAULT, NOTHING)
    rotary = 2 * 16 * 4  # two float32 vectors of half a head, in no file
    assert found.dense_bytes == 2 * total + rotary
    most = 2 * (total - matrices) + matrices // 2 + rotary
    assert 0.999 * most < found.resident_bytes <= most
    assert estimate(Recipe.parse("kv-int@5"), DEFAULT, NOTHING).resident_bytes == found.dense_bytes


def test_expected_memory_counts_states_and_moments_of_what_is_looked_at():
    def beside(text):
        found = estimate(Recipe.parse(text), DEFAULT, NOTHING)
        return found.compressing_bytes - BASE_MEMORY - 2 * found.dense_bytes - found.resident_bytes

    assert beside("kv-int@5") == beside("copyspec") == 0
    assert beside("rtn@4") == WORKING_MEMORY
    # 64 windows of 256 tokens in 128 channels of float32, twice, and four times in 256
    states = 4 * 64 * 256 * (2 * 128 + 4 * 256)
    assert beside("wanda@9") == WORKING_MEMORY + states
    # inputs of 128 channels, and of 256 behind the network's first half
    moments = 3 * 4 * (128**2 + 256**2)
    assert beside("gptq@4") == WORKING_MEMORY + states + moments
    # a float32 for each weight, and eight gradients of a matrix [256, 128]
    sizes = [math.prod(one) for name, one in DEFAULT.shapes().items() if "proj" in name]
    gradients = 4 * (sum(sizes) + 8 * 256 * 128)
    assert beside("mixllm@5") == beside("gptq@4") + gradients
    assert beside("lq-lora@4") == beside("mixllm@5")
    # a step of four windows of 256 tokens: queries, outputs, keys and values, the network's three
    sides = 4 * (2 * (128 + 128) + 2 * (64 + 128) + 3 * (128 + 256))
    way_back = 4 * 4 * 256 * round(2.7 * sides + 4 * 2048) + 4 * sum(sizes)
    assert beside("wanda@9 + perp") == beside("wanda@9") + way_back
    # two of four blocks on their way back, twelve arrays to a weight, and the model in float32
    block = sum(math.prod(one) for name, one in DEFAULT.shapes().items() if ".layers.0." in name)
    states = 4 * round(2 / 4 * 2.7 * sides * 4 * 256)
    dense = estimate(Recipe.parse("gptq@4"), DEFAULT, NOTHING).dense_bytes
    assert beside("cbq@4") == beside("gptq@4") + 4 * 12 * 2 * block + states + dense
    assert beside("cbq@4 by evopress") == beside("gptq@4 by evopress")


def test_expected_memory_is_enough_for_the_dense_model_in_both_types_while_it_is_timed():
    found = estimate(Recipe.parse("copyspec"), DEFAULT, NOTHING)
    timed = 3 * found.dense_bytes  # two bytes a number, and four
    assert found.peak_bytes == BASE_MEMORY + timed + found.resident_bytes
    assert dict(found.readings())["predicted_compress_peak"][0] == 3 * found.dense_bytes
    treated = estimate(Recipe.parse("gptq@4"), DEFAULT, NOTHING)
    assert treated.peak_bytes == treated.compressing_bytes > found.peak_bytes


def test_a_sweep_takes_all_methods_at_one_budget_before_the_next():
    wanted, refused = points(["rtn", "copyspec", "wanda"], [4, 1.5])
    assert list(wanted) == ["dense", "rtn@4", "copyspec", "wanda@4", "rtn@1.5"]
    assert [one.recipe for one in refused] == ["wanda@1.5"]
    assert "1.8 to 16 bits" in refused[0].reason
