"""PruneNet: a small policy learns from the weights alone which neurons keep their spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.later import torch
from backend.methods.base import Effort, ModelMethod, Stage, Text, setting
from backend.methods.structure import _neurons

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.units import Group
    from backend.models.view import View

RATE, DISCOUNT, CLIP = 1e-3, 0.99, 1.0
EIGENVALUES = 2  # products of a square matrix with itself that take as long
LEARNED = 20  # numbers read and written to move one of the policy's
SURE = 1e5  # the reward of spectra that do not differ


@dataclass(frozen=True)
class Prunenet(ModelMethod):
    """Remove neurons by a policy that learns, without any text, to keep each layer's spectrum.

    The policy is two small matrices: weights that write neurons go in, a chance of staying comes
    out for each. In every episode neurons are drawn by these chances in all layers, the reward of
    a layer is one over the Kolmogorov-Smirnov distance between its singular values before and
    after, and the policy is moved towards draws that were rewarded (REINFORCE). The draw of the
    best episode stays. All layers lose the same share.
    """

    stage = Stage.RESHAPE
    paper = "arXiv 2501.15296"
    claim = "7B in 15 minutes without calibration; over 80 % of the zero-shot score at 30 %."
    limits = (
        "What stays is the best episode's own draw, not a new one. Fine-tuning is left out. Only "
        "feed-forward networks shrink, so that small models with large tables reach less far."
    )
    yields = ("dense",)

    bits: float = setting(
        13.0, "Bits per original number of the model, 16 for each that stays.", low=1.0, high=16.0
    )
    episodes: int = setting(20, "Draws from which the policy learns.", low=1, high=1000)
    seed: int = setting(0, "Of the policy's first weights and all draws.", low=0, high=2**31 - 1)

    def least(self, anatomy: Anatomy) -> int:
        """One neuron of each feed-forward network, and all else.

        Raises:
            ModelError: no neurons are found at all.
        """
        return _neurons.least(self.key(), self.bits, anatomy)

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:  # noqa: ARG002 - no text is read
        """A spectrum of each layer before and in every episode, and the policy's steps."""
        spectra = changed = 0.0
        for layer in anatomy.units:
            if layer.neurons:
                least = min(layer.count, layer.outputs)
                changed += layer.count * layer.outputs
                spectra += least * (layer.count * layer.outputs + EIGENVALUES * least**2)
        return Effort((self.episodes + 1) * spectra, self.episodes * LEARNED * changed)

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Cut the model of a walk.

        Raises:
            ModelError: no neurons are found at all.
            OutOfReachError: one neuron a network takes more than the budget.
        """
        from backend.models import units

        view = walk.view
        self.check(view.anatomy())
        found, unknown = units.find(view)
        groups = [group for group in found if group.neurons]
        counts = _neurons.counts(self.bits, view.numbers, groups, [1.0] * len(groups))
        weights = [_written(view, group) for group in groups]
        places = self.chosen(weights, counts)
        record = _neurons.cut(view, groups, places, unknown)
        walk.restart()
        return record

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a skeleton the same shapes."""
        _neurons.rebuild(view, record)

    def chosen(self, weights: list[Tensor], counts: list[int]) -> list[Tensor]:
        """Places of the neurons that stay in each layer, by the best episode.

        Args:
            weights: that write the neurons of each layer, [neurons, channels].
            counts: how many stay of each.
        """
        draw = torch.Generator().manual_seed(self.seed)
        spectra = [spectrum(weight) for weight in weights]
        policies: dict[tuple[int, ...], Policy] = {}
        for weight in weights:
            if tuple(weight.shape) not in policies:
                policies[tuple(weight.shape)] = Policy(weight, draw)
        best: tuple[float, list[Tensor]] | None = None
        for _ in range(self.episodes):
            places, rewards, noises = [], [], []
            for weight, count, before in zip(weights, counts, spectra, strict=True):
                noise = _logistic(len(weight), draw)
                chance = policies[tuple(weight.shape)].scores(weight).detach().cpu() + noise
                chance = chance.sigmoid().clamp(min=1e-12)
                places.append(torch.multinomial(chance, count, generator=draw).sort().values)
                noises.append(noise)
                after = spectrum(weight[places[-1].to(weight.device)])
                rewards.append(1 / max(distance(before, after), 1 / SURE))
            if best is None or sum(rewards) > best[0]:
                best = sum(rewards), places
            for place, (weight, noise) in enumerate(zip(weights, noises, strict=True)):
                reward = DISCOUNT**place * rewards[place]
                policies[tuple(weight.shape)].learn(weight, noise, places[place], reward)
        assert best is not None, "one episode at least"
        return best[1]


class Policy:
    """Scores neurons by two matrices; their sigmoid, with noise, is the chance of staying."""

    def __init__(self, weight: Tensor, draw: torch.Generator) -> None:
        neurons, channels = weight.shape
        bound = channels**-0.5  # as a linear layer begins

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=draw).to(weight.device)

        self.inner = ((2 * uniform(neurons, channels) - 1) * bound).requires_grad_()
        self.offset = ((2 * uniform(neurons) - 1) * bound).requires_grad_()
        self.outer = uniform(neurons).requires_grad_()
        self._parts = [self.inner, self.offset, self.outer]
        self._optimiser = torch.optim.AdamW(self._parts, lr=RATE)

    def scores(self, weight: Tensor) -> Tensor:
        """(W A^T + a) v for each neuron, [neurons]."""
        return weight @ (self.outer @ self.inner) + self.offset @ self.outer

    def learn(self, weight: Tensor, noise: Tensor, chosen: Tensor, reward: float) -> None:
        """Make what was chosen likelier, in proportion to its reward."""
        with torch.enable_grad():
            logits = self.scores(weight) + noise.to(weight.device)
            likely = torch.nn.functional.logsigmoid(logits)[chosen.to(weight.device)]
            (-reward * likely.sum()).backward()
        torch.nn.utils.clip_grad_norm_(self._parts, CLIP)
        self._optimiser.step()
        self._optimiser.zero_grad()


def spectrum(weight: Tensor) -> Tensor:
    """Singular values of a weight, rising, from the smaller of its two Gram matrices."""
    weight = weight.to(torch.float64)
    gram = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()


def distance(first: Tensor, second: Tensor) -> float:
    """Kolmogorov and Smirnov's: the most that two samples' distributions differ anywhere."""
    both = torch.cat([first, second])
    shares = [
        torch.searchsorted(one.contiguous(), both, right=True) / len(one) for one in (first, second)
    ]
    return float((shares[0] - shares[1]).abs().max())


def _logistic(count: int, draw: torch.Generator) -> Tensor:
    uniform = torch.rand(count, generator=draw).clamp(1e-6, 1 - 1e-6)
    return uniform.log() - (-uniform).log1p()


def _written(view: View, group: Group) -> Tensor:
    """The weights [neurons, channels] that write a group's neurons: of the gate where one is."""
    sites = {site.name: site for site in view.sites(group.block)}
    roles = {sites[name].role: name for name in group.writers}
    name = next(roles[one] for one in ("gate", "gate-up", "up") if one in roles)
    return view.weight(sites[name])[group.writers[name][:, 0]]
