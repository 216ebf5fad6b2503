"""Training the embedded model: schedule, tokens, resuming and export, on a tiny network."""

from dataclasses import replace

import numpy
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.network import Network, Shape, llama_weights
from data.optimise import Schedule, optimiser
from data.tokenizer import END_TOKEN, MODEL_FOLDER, shipped
from data.tokens import MIX, WIDTHS, Library, Packer, prose_pieces, read_prose, width
from data.train import PRESETS, Preset, Run

TINY = Preset(
    Shape(hidden=16, layers=2, feed_forward=32, heads=4, key_heads=2),
    Schedule(peak=1e-2, warm_steps=2, decay_steps=4),
    step_tokens=512,
    chapter_steps=16,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((MODEL_FOLDER / "tokenizer.json").read_bytes())
    return tmp_path


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_run(folder):
    return Run(TINY, folder)


def library(folder, **changes):
    tokenizer = Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))
    return replace(Library(folder, tokenizer, step_tokens=512, chapter_steps=8), **changes)


def weights_of(run):
    return {name: weight.detach().clone() for name, weight in run.network.named_parameters()}


def test_the_rate_rises_stays_and_falls_in_equal_steps():
    schedule = Schedule(peak=0.4, warm_steps=4, decay_steps=4)
    rates = [schedule.rate(step, decay_start=6) for step in range(11)]
    by_hand = [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert rates == pytest.approx(by_hand)


def test_the_plateau_has_no_end_until_the_decay_begins():
    assert Schedule(peak=0.4, warm_steps=4, decay_steps=4).rate(1_000_000) == 0.4


def test_matrices_decay_and_the_embedding_and_norms_do_not():
    network = Network(TINY.shape)
    decaying, others = optimiser(network).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    # Four matrices in each of two layers; one embedding, two norms per layer and the last norm.
    assert [len(group["params"]) for group in (decaying, others)] == [8, 6]


def test_the_cpu_preset_has_853_120_parameters():
    # 262,144 in the embedding, 147,712 in each of four layers and 128 in the last norm.
    assert sum(weight.numel() for weight in Network(PRESETS["cpu"].shape).parameters()) == 853_120


def test_the_gpu_preset_has_7_344_384_parameters():
    with torch.device("meta"):
        network = Network(PRESETS["gpu"].shape)
    assert sum(weight.numel() for weight in network.parameters()) == 7_344_384


def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(folder):
    straight = tiny_run(folder / "straight")
    straight.train(steps=9, fuse=False)
    tiny_run(folder / "resumed").train(steps=4, fuse=False)
    resumed = tiny_run(folder / "resumed")
    resumed.train(steps=9, fuse=False)
    expected = weights_of(straight)
    for name, weight in weights_of(resumed).items():
        assert torch.equal(weight, expected[name]), name


def test_a_finished_run_decays_from_its_plateau_and_can_still_go_on(folder):
    run = tiny_run(folder)
    run.train(steps=3, fuse=False)
    plateau = weights_of(run)
    finished = tiny_run(folder)
    finished.train(finish=True, fuse=False)
    assert finished.step == 3 + TINY.schedule.decay_steps
    again = tiny_run(folder)
    again.train(steps=3, fuse=False)
    assert again.step == 3
    assert all(torch.equal(weight, plateau[name]) for name, weight in weights_of(again).items())


@pytest.mark.parametrize(
    "act", [lambda run, to: run.export(to), lambda run, _: run.train(finish=True)]
)
def test_what_was_never_trained_can_be_neither_finished_nor_exported(folder, act):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        act(tiny_run(folder), folder / "model")


def test_training_lowers_the_loss(folder):
    run = tiny_run(folder)
    rows = torch.from_numpy(run.library.rows(0).astype("int64"))
    before = run.network.loss(rows).item()
    run.train(steps=12, fuse=False)
    assert run.network.loss(rows).item() < before - 0.3


def test_an_untrained_network_guesses_evenly():
    network = Network(TINY.shape, torch.Generator().manual_seed(0))
    rows = torch.randint(0, 2048, (2, 64), generator=torch.Generator().manual_seed(1))
    # Without knowledge every one of 2048 tokens is equally likely: ln 2048 = 7.62 nats.
    assert network.loss(rows).item() == pytest.approx(7.62, abs=0.1)


def test_the_exported_model_gives_the_logits_of_the_trained_network(folder, tmp_path):
    run = tiny_run(folder)
    run.train(steps=3, fuse=False)
    run.export(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    rounded = Network(TINY.shape)
    rounded.load_state_dict(
        {name: weight.bfloat16().float() for name, weight in run.network.state_dict().items()}
    )
    tokens = torch.from_numpy(run.library.rows(7).astype("int64"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, rounded(tokens), rtol=1e-4, atol=1e-4)


def test_the_exported_tokenizer_marks_begin_end_and_padding_with_one_token(folder, tmp_path):
    run = tiny_run(folder)
    run.train(steps=1, fuse=False)
    run.export(tmp_path / "model")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 0, 0)
    assert loaded("The fox ran.")["input_ids"] == shipped().encode("The fox ran.").ids


def test_fused_matrices_split_into_the_parts_of_a_llama_layer():
    weights = llama_weights(Network(TINY.shape))
    # Four query heads and two key heads of four numbers each.
    assert weights["model.layers.1.self_attn.q_proj.weight"].shape == (16, 16)
    assert weights["model.layers.1.self_attn.k_proj.weight"].shape == (8, 16)
    assert weights["model.layers.1.mlp.up_proj.weight"].shape == (32, 16)
    assert len(weights) == 2 + 2 * 9


def test_every_row_begins_a_document_and_one_step_in_eight_is_long(folder):
    chapter = library(folder)
    for step in range(8):
        rows = chapter.rows(step)
        assert rows.shape == ((1, 512) if step == 7 else (2, 256))
        assert (rows[:, 0] == END_TOKEN).all()
    assert [width(step) for step in range(8)] == list(WIDTHS)


def test_a_chapter_is_the_same_when_it_is_written_again(folder):
    first = numpy.load(library(folder / "first").write(3))
    again = numpy.load(library(folder / "again").write(3))
    assert numpy.array_equal(first, again)
    assert not numpy.array_equal(first, numpy.load(library(folder / "first").write(4)))


def test_prose_is_learnt_when_there_is_a_folder_of_it(folder):
    (folder / "book.txt").write_text("\n".join(["zebra " * 150] * 400), "utf-8")
    prose = read_prose(folder)
    assert "prose" not in library(folder)._shares()
    with_prose = library(folder / "prose", prose=prose, chapter_steps=64)
    text = with_prose.tokenizer.decode(numpy.load(with_prose.write(0)).flatten().tolist())
    assert "zebra zebra" in text
    assert sum(with_prose._shares().values()) == pytest.approx(1)
    assert with_prose._shares()["prose"] == pytest.approx(MIX["prose"])


def test_prose_is_cut_only_between_paragraphs():
    pieces = list(prose_pieces("\n".join([f"{number} " + "word " * 99 for number in range(6)])))
    assert [piece.count("\n") for piece in pieces] == [1, 1, 1]


def test_a_row_takes_whole_documents_first_and_cuts_only_the_last():
    documents = iter([[0, 1, 1], [0, 2], [0, 3, 3, 3], [0, 4, 4, 4, 4, 4]] * 100)
    # The oldest (3 tokens), the longest that fits in the remaining 4, then nothing is left.
    assert Packer(documents).row(7) == [0, 1, 1, 0, 3, 3, 3]
