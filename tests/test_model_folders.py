"""Folders of models: what is loaded, what is refused by name, and the name `kernels`."""

import contextlib
import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backend.errors import ModelError
from backend.models import load
from backend.sources import ModelSource
from tests import tiny_transformers as tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    tiny.save(tiny.build("llama"), tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_is_loaded_in_the_type_asked_for(folder):
    found = load.load(ModelSource("model", folder), torch.float32)
    assert torch.equal(found.model.lm_head.weight, tiny.build("llama").lm_head.weight)
    assert found.encode("w5 w7") == [5, 7]
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    assert load.load(ModelSource("model", folder)).model.dtype == torch.bfloat16


def refused(folder, match):
    with pytest.raises(ModelError, match=match) as caught:
        load.load(ModelSource("model", folder))
    assert len(str(caught.value).splitlines()) == 1


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.faults
def test_values_that_are_not_finite_are_refused_by_the_tensors_name(tmp_path):
    for value in (float("nan"), float("inf")):
        model = tiny.build("llama")
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
        tiny.save(model, tmp_path / str(value))
        refused(tmp_path / str(value), "not finite in model.layers.1.mlp.up_proj.weight")


@pytest.mark.security
def test_pickled_weights_are_never_read(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    refused(folder, r"no \.safetensors weights; pickled ones")


def test_code_in_a_folder_is_never_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    change_config(folder, auto_map={"AutoModelForCausalLM": "evil.Model"})
    refused(folder, "asks for code of its own .auto_map.")


def test_code_named_by_a_tokenizer_is_never_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    path = folder / "tokenizer_config.json"
    about = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    path.write_text(json.dumps(about))
    with contextlib.suppress(ModelError):  # refused or ignored, but never run
        load.load(ModelSource("model", folder))


def test_a_quantised_model_is_refused(folder):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    refused(folder, "quantised already; start from its 16-bit original")


def test_a_missing_or_broken_config_is_refused(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json cannot be read")
    (folder / "config.json").write_text("[]")
    refused(folder, "config.json")
    (folder / "config.json").unlink()
    refused(folder, "holds no config.json")


def test_an_unknown_architecture_is_refused(folder):
    change_config(folder, model_type="no-such-thing")
    refused(folder, "no architecture that transformers knows .*no-such-thing")


def test_a_model_that_writes_no_text_is_refused(folder):
    change_config(folder, model_type="vit", architectures=["ViTModel"])
    refused(folder, "type .vit. writes no text")


def test_weights_that_are_missing_or_of_another_shape_are_refused(folder):
    whole = copy.copy((folder / "model.safetensors").read_bytes())
    change_config(folder, intermediate_size=96)
    refused(folder, "6 tensors of another shape.*down_proj")
    change_config(folder, intermediate_size=64, num_hidden_layers=3)
    refused(folder, "9 tensors missing.*layers.2")
    change_config(folder, num_hidden_layers=2)
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(folder, "Download the model again")


# The name `kernels`


@pytest.mark.faults
def test_a_foreign_package_of_the_name_kernels_is_not_taken_for_ours(tmp_path):
    """transformers asks for a distribution of that name; it must not find our folder by it."""
    about = tmp_path / "kernels-0.18.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.18.2\n")
    (about / "RECORD").write_text("")
    (about / "INSTALLER").write_text("pip\n")
    program = (
        "import importlib.metadata as m; assert m.version('kernels') == '0.18.2'\n"
        "import kernels, backend.models, transformers as t\n"
        "from transformers.utils.import_utils import is_kernels_available\n"
        "assert is_kernels_available() is False\n"
        "from kernels import bitpack\n"
        "c = t.LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1,\n"
        "    num_attention_heads=1, vocab_size=8)\n"
        "m = t.AutoModelForCausalLM.from_config(c)\n"
        "assert type(m.model.norm).__name__ == 'LlamaRMSNorm'\n"
        "from backend.models.view import View; assert len(View(m).sites(0)) == 7\n"
    )
    path = f"{tmp_path}:{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
