"""Tasks of lm-evaluation-harness, asked of a model as it is held here; that package is optional.

The harness makes the questions and judges; every log-probability comes from this project's own
passes, so that compressed weights and caches are what is asked. Tasks that let a model write are
written greedily.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.decoding.greedy import generate
from backend.measure import statistics
from backend.measure.passes import continuations
from backend.measure.reading import Reading, take
from backend.models.language_model import TransformersModel
from backend.models.load import LoadedModel

LIMITS = {"smoke": 50, "quick": 500, "full": None}  # questions of each task
MEASURES = ("acc", "exact_match")
WRITTEN = 256  # most tokens where a task sets no limit

Outcomes = dict[str, list[bool]]


def ask(
    model: TransformersModel, loaded: LoadedModel, tasks: Sequence[str], limit: int | None
) -> Outcomes:
    """Whether each question of each task was answered right, in the harness's order."""
    import lm_eval
    from lm_eval.api.model import LM

    class Asked(LM):
        """What the harness asks of a model."""

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            heads, endings = [], []
            for request in requests:
                context, ending = request.args
                head = loaded.open(context) or loaded.encode(" ")
                whole = loaded.open(context + ending)
                fits = whole[: len(head)] == head and len(whole) > len(head)
                heads.append(head)
                endings.append(whole[len(head) :] if fits else loaded.encode(ending))
            found = continuations(model, heads, endings)
            return [(one.log_probability, one.exact) for one in found]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            rows = [loaded.open(request.args[0]) for request in requests]
            found = continuations(model, [row[:1] for row in rows], [row[1:] for row in rows])
            return [one.log_probability for one in found]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [_write(model, loaded, *request.args) for request in requests]

    found = lm_eval.simple_evaluate(
        model=Asked(), tasks=list(tasks), limit=limit, log_samples=True, bootstrap_iters=0
    )
    outcomes: Outcomes = {}
    for task, samples in found["samples"].items():
        for name in MEASURES:
            if samples and name in samples[0]:
                outcomes[task] = [float(sample[name]) > 0.5 for sample in samples]
                break
    return outcomes


def readings(mine: Outcomes, dense: Outcomes) -> list[Reading]:
    """The share of right answers of each task, and what changed against the dense model."""
    found: list[Reading] = []
    for task, own in mine.items():
        other = dense.get(task, [])
        if len(other) != len(own):
            continue
        lost = sum(before and not after for before, after in zip(other, own, strict=True))
        gained = sum(after and not before for before, after in zip(other, own, strict=True))
        share = statistics.wilson(sum(own), len(own))
        note = (
            f"dense {100 * sum(other) / len(other):.1f} %; {lost} lost, {gained} gained; "
            f"McNemar p = {statistics.mcnemar(lost, gained):.3g}"
        )
        found += take(f"task_{task}", **(statistics.as_fields(share, 100) | {"note": note}))
    return found


def _write(model: TransformersModel, loaded: LoadedModel, context: str, how: dict[str, Any]) -> str:
    """A greedy continuation up to the first of the ends that a task names."""
    most = int(how.get("max_gen_toks", WRITTEN))
    (written,) = generate(model, [loaded.open(context)], most)
    text = loaded.decode(list(written.tokens))
    ends = how.get("until") or []
    for end in [ends] if isinstance(ends, str) else ends:
        text = text.partition(end)[0] if end else text
    return text
