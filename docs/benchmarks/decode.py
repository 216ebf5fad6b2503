"""How fast one text is written, token by token: `python -m docs.benchmarks.decode`.

The dense model by `transformers.generate`, by a loop around its forward, by its own modules, and
by the extension, up to 16 tokens a call; then artefacts in the same loop. All alternate in each
round; ratios to `transformers.generate` stand with their 95 % intervals over rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from backend.decoding.greedy import write
from backend.models import artefact, precision
from backend.models.language_model import TransformersModel
from backend.models.load import load
from backend.service import Service
from backend.sources import ModelSource

RECIPES = ("rtn@8", "gptq@4", "gptq@3", "squeezellm@3", "sparsegpt(pattern=2:4)", "lord@8",
           "dfloat11")  # fmt: skip
PROMPT, STEPS = 32, 64


def main() -> None:
    """Compress, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--recipes", default=";".join(RECIPES), help="joined by semicolons")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source = ModelSource.parse(options.model)
    arms = dict(dense(source))
    with tempfile.TemporaryDirectory() as home, Service(Path(home)) as service:
        for recipe in filter(None, options.recipes.split(";")):
            arms[recipe] = artefact_of(service, recipe, options.model)
        found = rounds(arms, options.rounds)
    first = torch.tensor(next(iter(found.values())))
    sys.stdout.write("| written by | tokens a second | against generate |\n|---|---|---|\n")
    for name, seconds in found.items():
        ratios = first / torch.tensor(seconds)
        drawn = ratios[torch.randint(0, len(ratios), (2000, len(ratios)))].median(1).values
        low, high = drawn.quantile(0.025), drawn.quantile(0.975)
        rate = STEPS / float(torch.tensor(seconds).median())
        sys.stdout.write(
            f"| {name} | {rate:,.0f} | {ratios.median():.2f} ({low:.2f} to {high:.2f}) |\n"
        )


def dense(source: ModelSource) -> list[tuple[str, Callable[[], object]]]:
    """The dense model in float32, by four loops."""
    model = load(source, torch.float32).model
    prompt = torch.full((1, PROMPT), 5)
    keywords = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}

    def generate() -> object:
        with torch.inference_mode():
            return model.generate(prompt, attention_mask=torch.ones_like(prompt), **keywords)

    modules = TransformersModel(model)
    whole = modules.session
    modules.session = lambda *sizes: _by_modules(whole(*sizes))
    return [
        ("transformers.generate", generate),
        ("its forward in a loop", written(TransformersModel(model, lean=False))),
        ("its modules in a loop", written(modules)),
        ("the extension", written(TransformersModel(model))),
    ]


def _by_modules(session: object) -> object:
    session._step = None
    return session


def artefact_of(service: Service, recipe: str, model: str) -> Callable[[], object]:
    """An artefact of a recipe, made now."""
    submission = service.submit(recipe, model, tier="smoke", speed="")
    job = service.wait(submission.job_id, 1800)
    if job.state != "done":
        raise SystemExit(f"{recipe}: {job.reason}")
    key = service.run(submission.run_id).artefact["key"]
    held = artefact.load(service.home / "artefacts" / key).loaded.model
    precision.recast(held, torch.float32)
    return written(TransformersModel(held))


def written(model: TransformersModel) -> Callable[[], object]:
    """Writes STEPS tokens after a prompt, greedily."""

    @torch.inference_mode()
    def run() -> object:
        session = model.session(1, PROMPT + STEPS)
        return write(session, torch.full((1, PROMPT), 5), STEPS)

    return run


def rounds(arms: dict[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds of each arm in each round; every other round goes backwards."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(count + 1):
        for name in list(arms)[:: 1 if turn % 2 else -1]:
            began = time.perf_counter()
            arms[name]()
            if turn:
                found[name].append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    main()
