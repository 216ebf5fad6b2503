"""What is known of the inputs of a linear layer; accumulates, and keeps at most a sample."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from backend.calibrate import MOST_SAMPLES
from backend.methods.base import Needs

TILE = 2048
"""Columns whose products with those before them are gathered at a time; the rest is mirrored."""


class InputStatistics:
    """Norms and second moments of the inputs [tokens, columns] of a layer, and a few of them.

    Layers that read the same input share one of these, and with it its factorisations.
    """

    def __init__(self, columns: int, needs: Needs, device: torch.device | None = None) -> None:
        self.columns, self.needs, self.device = columns, needs, device
        self.count = 0
        self.sums: Tensor | None = None
        self.squares: Tensor | None = None
        self._products: Tensor | None = None
        self.samples: Tensor | None = None
        self._apart = 1  # one input of so many is kept
        self._whole = True  # whether both halves of the products are there
        self.fisher: Tensor | None = None
        self.fine_rows: Tensor | None = None
        self.gradients: Tensor | None = None
        self._factors: dict[tuple[float, bool], Tensor] = {}

    @torch.no_grad()
    def add(self, inputs: Tensor) -> None:
        """Take in activations [..., columns]."""
        flat = inputs.reshape(-1, self.columns).to(torch.float32)
        if Needs.SAMPLES in self.needs:
            self._keep(flat)
        self.count += flat.shape[0]
        self._factors.clear()
        if self.needs & (Needs.NORMS | Needs.HESSIAN):
            sums = flat.sum(0)
            self.sums = sums if self.sums is None else self.sums + sums
        if Needs.HESSIAN in self.needs:
            if self._products is None:
                self._products = flat.new_zeros(self.columns, self.columns)
            self._whole = self.columns <= TILE
            for stop in range(TILE, self.columns + TILE, TILE):
                part = flat[:, stop - TILE : stop]
                self._products[:stop, stop - TILE : stop].addmm_(flat[:, :stop].T, part)
        elif Needs.NORMS in self.needs:
            squares = flat.square().sum(0)
            self.squares = squares if self.squares is None else self.squares + squares

    def _keep(self, flat: Tensor) -> None:
        """Add every so many-th of new inputs to the sample; thin all of it where it grows."""
        fresh = flat[-self.count % self._apart :: self._apart]
        found = fresh if self.samples is None else torch.cat([self.samples, fresh])
        while len(found) > MOST_SAMPLES:
            found, self._apart = found[::2], 2 * self._apart
        self.samples = found.clone()

    def sampled(self) -> Tensor:
        """Some inputs [inputs, columns] as they came; where none were kept, drawn like them.

        Those drawn are normal with the second moments that are known, the same every time.
        """
        if self.samples is not None:
            return self.samples
        draw = torch.Generator().manual_seed(0)
        drawn = torch.randn(MOST_SAMPLES // 2, self.columns, generator=draw)
        values, vectors = torch.linalg.eigh(self.hessian.to(torch.float64))
        root = vectors * values.clamp(min=0).sqrt()
        return drawn.to(root.device) @ root.T.to(torch.float32)

    @property
    def products(self) -> Tensor | None:
        """Sum of x x^T over the inputs, [columns, columns]; None if it was not gathered."""
        if not self._whole:  # gathered on and above the diagonal alone
            for start in range(0, self.columns - TILE, TILE):
                stop = start + TILE
                self._products[stop:, start:stop] = self._products[start:stop, stop:].T
            self._whole = True
        return self._products

    @products.setter
    def products(self, products: Tensor | None) -> None:
        self._products, self._whole = products, True

    @property
    def mean_squares(self) -> Tensor:
        """Mean square of each input column, [columns]; ones if nothing was seen."""
        if self.count == 0:
            return torch.ones(self.columns, device=self.device)
        squares = self.squares if self._products is None else self._products.diagonal()
        if squares is None:
            raise RuntimeError("These statistics were gathered without norms.")
        return squares / self.count

    @property
    def means(self) -> Tensor:
        """Mean of each input column, [columns]; zeros if nothing was seen."""
        if self.count == 0:
            return torch.zeros(self.columns, device=self.device)
        if self.sums is None:
            raise RuntimeError("These statistics were gathered without norms.")
        return self.sums / self.count

    @property
    def variances(self) -> Tensor:
        """Variance of each input column, [columns]; ones if nothing was seen."""
        return (self.mean_squares - self.means.square()).clamp(min=0)

    def sensitivity(self, rows: int) -> Tensor:
        """How much the loss bends with each weight, [rows, columns].

        The diagonal of the Fisher information where gradients were gathered; else the mean
        square of the input, which is that diagonal for output gradients all of one size.
        """
        if self.fisher is not None:
            return self.fisher
        return self.mean_squares.expand(rows, -1)

    def bent(self, fisher: Tensor) -> Self:
        """The same statistics, factorisations shared, with a layer's own diagonal Fisher."""
        found = copy.copy(self)
        found.fisher = fisher
        return found

    def sloped(self, gradients: Tensor | None) -> Self:
        """The same statistics, with the gradient of each text, [texts, rows, columns]."""
        found = copy.copy(self)
        found.gradients = gradients
        return found

    def ranked(self, fine_rows: Tensor) -> Self:
        """The same statistics, factorisations shared, with which rows of a layer are held finer."""
        found = copy.copy(self)
        found.fine_rows = fine_rows
        return found

    @property
    def hessian(self) -> Tensor:
        """Mean of x x^T over the inputs, [columns, columns]; identity if nothing was seen."""
        if self.count == 0:
            return torch.eye(self.columns, device=self.device)
        if self.products is None:
            raise RuntimeError("These statistics were gathered without a Hessian.")
        return self.products / self.count

    @property
    def order(self) -> Tensor:
        """Input columns from the most energy to the least, [columns]; ties as they come."""
        return self.mean_squares.argsort(descending=True, stable=True)

    def alive(self, weight: Tensor) -> Tensor:
        """A weight [rows, columns] with zeros for the columns whose input never came."""
        dead = self.mean_squares == 0
        return weight.masked_fill(dead, 0.0) if bool(dead.any()) else weight

    def damped(self, damping: float) -> Tensor:
        """The Hessian plus `damping` times its mean diagonal; a dead column gets that mean."""
        hessian = self.hessian
        diagonal = hessian.diagonal()
        live = diagonal > 0
        mean = diagonal[live].mean() if bool(live.any()) else diagonal.new_ones(())
        diagonal[~live] = mean
        diagonal += damping * mean
        return hessian

    def inverse_factor(self, damping: float, ordered: bool = False) -> Tensor:
        """Upper Cholesky factor U of the inverse damped Hessian, H^-1 = U^T U; made once.

        Args:
            damping: share of the mean diagonal added; raised tenfold until H is definite.
            ordered: with the columns in `order`, which follows from these statistics too.
        """
        key = damping, ordered
        if key not in self._factors:
            self._factors[key] = _inverse_factor(self.damped(damping), self.order, ordered)
        return self._factors[key]

    def through(self, matrix: Tensor) -> InputStatistics:
        """Statistics of the inputs after a product with `matrix` [rows, columns]: M H M^T."""
        derived = InputStatistics(matrix.shape[0], Needs.HESSIAN, matrix.device)
        if self.count:
            derived.products = matrix @ self.products @ matrix.T
            derived.sums = None if self.sums is None else matrix @ self.sums
            derived.count = self.count
        return derived

    def arranged(self, order: Tensor) -> InputStatistics:
        """Statistics of the inputs whose columns are those at `order` [columns]."""
        derived = InputStatistics(self.columns, Needs.HESSIAN, self.device)
        if self.count:
            derived.products = self.products[order[:, None], order]
            derived.sums = None if self.sums is None else self.sums[order]
            derived.count = self.count
        return derived


def _inverse_factor(hessian: Tensor, order: Tensor, ordered: bool) -> Tensor:
    """U with H^-1 = U^T U, from H = R R^T with R upper: U = R^-1.

    R is the lower factor of H with both axes reversed, reversed back: one factorisation and
    one triangular solve, where inverting H and factoring that takes three steps and more care.
    Three such matrices are there at a time, as one of them may take half a gigabyte.
    """
    mean = float(hessian.diagonal().mean())
    order = order if ordered else torch.arange(len(hessian), device=hessian.device)
    backwards = order.flip(0)
    hessian = hessian[backwards[:, None], backwards]
    step = 0.0
    for _ in range(8):
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            factor = factor.flip(0, 1)
            identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
            factor = torch.linalg.solve_triangular(factor, identity, upper=True)
            if bool(torch.isfinite(factor).all()):
                return factor
        raised = max(step * 10, 1e-4 * mean)
        hessian.diagonal().add_(raised - step)
        step = raised
    return torch.diag(hessian.diagonal().flip(0).rsqrt())
