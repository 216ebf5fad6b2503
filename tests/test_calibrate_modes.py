"""Parallel statistics are those of the dense model, kept on disk and shared as they were."""

import pytest
import torch

from backend.calibrate import statistics
from backend.calibrate.modes import Kept, Parallel, Sequential
from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.methods.base import Needs
from backend.models.load import load
from backend.models.view import View
from backend.recipes import Recipe
from backend.sources import ModelSource

WINDOWS = torch.arange(4 * 64).view(4, 64)


def loaded():
    return load(ModelSource.parse("default"))


def dense(recipe, **settings):
    model = loaded()
    compress(model, Recipe.parse(recipe), WINDOWS, **settings)
    view = View(model.model)
    return {site.name: view.weight(site) for site in view.all_sites()}


def never():
    raise AssertionError("everything was kept, so nothing is walked")


def test_what_is_kept_is_what_was_gathered(tmp_path):
    view = View(loaded().model)
    memory = Parallel(lambda: Walk(view, WINDOWS), Needs.HESSIAN, 4)
    kept = Kept(tmp_path / "statistics" / "model")
    Parallel(lambda: Walk(view, WINDOWS), Needs.HESSIAN, 4, kept)
    again = Parallel(never, Needs.HESSIAN, 4, kept)
    for block in range(4):
        first, second = memory.enter(block), again.enter(block)
        assert first.keys() == second.keys()
        for name, one in first.items():
            assert torch.equal(one.hessian, second[name].hessian)
        query, key, output = (f"model.layers.{block}.self_attn.{part}_proj" for part in "qko")
        assert second[query] is second[key]
        assert second[query] is not second[output]


def test_a_hessian_serves_whoever_needs_norms_but_not_the_other_way(tmp_path):
    view = View(loaded().model)
    kept = Kept(tmp_path / "statistics" / "model")
    Parallel(lambda: Walk(view, WINDOWS), Needs.NORMS, 4, kept)
    assert kept.complete(4, Needs.NORMS)
    assert not kept.complete(4, Needs.HESSIAN)
    Parallel(lambda: Walk(view, WINDOWS), Needs.HESSIAN, 4, kept)
    norms = Parallel(never, Needs.NORMS, 4, kept).enter(2)
    expected = Parallel(lambda: Walk(view, WINDOWS), Needs.NORMS, 4).enter(2)
    for name, one in expected.items():
        assert torch.allclose(one.mean_squares, norms[name].mean_squares, rtol=1e-4)


def test_only_what_the_first_layers_read_is_the_same_in_both_modes():
    view = View(loaded().model)
    view.check(WINDOWS[:2])
    parallel = Parallel(lambda: Walk(View(loaded().model), WINDOWS), Needs.NORMS, 4)
    sequential = Sequential(Walk(view, WINDOWS), Needs.NORMS)
    same = []
    for block in range(2):
        first = parallel.enter(block)

        def treat(site, found, first=first):
            if torch.allclose(first[site.name].mean_squares, found.mean_squares, rtol=1e-5):
                same.append(site.name)
            view.module(site).weight.mul_(0.5)

        sequential.treat(block, view.sites(block), treat)
    assert same == [f"model.layers.0.self_attn.{one}_proj" for one in "qkv"]


@pytest.mark.parametrize("recipe", ["gptq@3", "wanda@9"])
def test_a_second_run_on_kept_statistics_gives_the_same_model(recipe, tmp_path):
    folder = tmp_path / "statistics" / "model"
    first = dense(recipe, parallel=True, statistics=folder)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    second = dense(recipe, parallel=True, statistics=folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


@pytest.mark.parametrize("columns", [5, 8, 19])
def test_products_gathered_tile_by_tile_are_whole(columns, monkeypatch):
    monkeypatch.setattr(statistics, "TILE", 8)
    found = statistics.InputStatistics(columns, Needs.HESSIAN)
    inputs = torch.randn(2, 7, columns, generator=torch.Generator().manual_seed(columns))
    for part in inputs:
        found.add(part)
        found.bent(torch.ones(2, columns)).products  # noqa: B018 - whole in between, too
    flat = inputs.flatten(0, 1)
    torch.testing.assert_close(found.products, flat.T @ flat)
    torch.testing.assert_close(found.mean_squares, flat.square().mean(0))
