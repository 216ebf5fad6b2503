"""PERP: retrain the few vectors of a pruned model, and nothing of its matrices."""

from __future__ import annotations

from dataclasses import dataclass

from backend.methods.base import Stage, TuneMethod, setting


@dataclass(frozen=True)
class Perp(TuneMethod):
    """Train norms and biases of a compressed model on the calibration text, by gradient.

    Pruning leaves features that are there but out of balance, and far fewer numbers than all bring
    them back: the weights of norms and the biases, well under a hundredth of a model. Everything
    else stays as it is held, so that nothing is added in bytes. A part of the text is kept apart,
    and if the model reads that no better than before, the vectors are put back.
    """

    stage = Stage.REPAIR
    paper = "arXiv 2312.15230"
    claim = "Retraining 0.01 to 0.3 % of the parameters matches retraining all after pruning."
    limits = (
        "Comes after a method that changes matrices or the model. Low-rank adapters merged into "
        "sparse matrices are left out, as packed matrices take none; biases are trained where a "
        "model has them."
    )

    parts: str = setting(
        "norms and biases", "Which vectors are trained.", choices=("norms and biases", "norms")
    )
    steps: int = setting(100, "Steps of four windows of text each.", low=1, high=10_000)
    rate: float = setting(2e-3, "Learning rate at its highest.", low=1e-6, high=0.1)

    def trains(self, name: str, shape: tuple[int, ...]) -> bool:
        """Norms, and biases where wanted."""
        return len(shape) == 1 and (self.parts != "norms" or not name.endswith("bias"))

    @property
    def schedule(self) -> tuple[int, float]:
        """As set."""
        return self.steps, self.rate
