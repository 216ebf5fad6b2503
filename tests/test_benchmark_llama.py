"""What is handed to llama.cpp is the same model, in its own order and names."""

import numpy
import pytest
import torch
from safetensors.torch import save_file

from docs.benchmarks import llama_peer


def test_rows_of_a_head_lie_in_pairs_that_are_turned_together():
    rows = numpy.arange(12)[:, None]  # two heads of six channels
    found = llama_peer.paired(rows, 2)[:, 0].tolist()
    assert found == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_tensors_are_read_to_the_bit(tmp_path):
    held = {"a": torch.randn(3, 4).bfloat16(), "b": torch.randn(5).bfloat16()}
    save_file(held, tmp_path / "model.safetensors", {"format": "pt"})
    found = dict(llama_peer.tensors(tmp_path))
    assert found.keys() == held.keys()
    for name, numbers in held.items():
        assert torch.equal(torch.from_numpy(found[name].copy()), numbers.float())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("model.layers.7.self_attn.o_proj.weight", "blk.7.attn_output.weight"),
     ("model.norm.weight", "output_norm.weight"), ("lm_head.weight", "output.weight")],
)  # fmt: skip
def test_names_are_those_of_llama_cpp(ours, theirs):
    assert llama_peer.known_as(ours) == theirs
