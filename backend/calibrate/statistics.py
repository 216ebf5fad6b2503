"""What is known of the inputs of a linear layer; accumulates, never keeps activations."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.methods.base import Needs


class InputStatistics:
    """Norms and second moments of the inputs [tokens, columns] of a layer.

    Layers that read the same input share one of these, and with it its factorisations.
    """

    def __init__(self, columns: int, needs: Needs) -> None:
        self.columns, self.needs = columns, needs
        self.count = 0
        self.squares: Tensor | None = None
        self.products: Tensor | None = None
        self._factors: dict[float, Tensor] = {}

    @torch.no_grad()
    def add(self, inputs: Tensor) -> None:
        """Take in activations [..., columns]."""
        flat = inputs.reshape(-1, self.columns).to(torch.float32)
        self.count += flat.shape[0]
        if Needs.HESSIAN in self.needs:
            if self.products is None:
                self.products = flat.new_zeros(self.columns, self.columns)
            self.products.addmm_(flat.T, flat)
        elif Needs.NORMS in self.needs:
            squares = flat.square().sum(0)
            self.squares = squares if self.squares is None else self.squares + squares

    @property
    def mean_squares(self) -> Tensor:
        """Mean square of each input column, [columns]; ones if nothing was seen."""
        if self.count == 0:
            return torch.ones(self.columns)
        squares = self.squares if self.products is None else self.products.diagonal()
        if squares is None:
            raise RuntimeError("These statistics were gathered without norms.")
        return squares / self.count

    @property
    def hessian(self) -> Tensor:
        """Mean of x x^T over the inputs, [columns, columns]; identity if nothing was seen."""
        if self.count == 0:
            return torch.eye(self.columns)
        if self.products is None:
            raise RuntimeError("These statistics were gathered without a Hessian.")
        return self.products / self.count

    def damped(self, damping: float) -> Tensor:
        """The Hessian with `damping` times its mean diagonal added, dead columns set to one."""
        hessian = self.hessian.clone()
        diagonal = hessian.diagonal()
        diagonal[diagonal == 0] = 1.0
        diagonal += damping * diagonal.mean()
        return hessian

    def inverse_factor(self, damping: float, order: Tensor | None = None) -> Tensor:
        """Upper Cholesky factor U of the inverse damped Hessian, H^-1 = U^T U.

        Args:
            damping: share of the mean diagonal added; raised tenfold until H is definite.
            order: permutation of the columns applied first; factors without one are kept.
        """
        if order is None and damping in self._factors:
            return self._factors[damping]
        hessian = self.damped(damping)
        if order is not None:
            hessian = hessian[order][:, order]
        factor = _invert(hessian)
        if order is None:
            self._factors[damping] = factor
        return factor

    def through(self, matrix: Tensor) -> InputStatistics:
        """Statistics of the inputs after a product with `matrix` [rows, columns]: M H M^T."""
        derived = InputStatistics(matrix.shape[0], Needs.HESSIAN)
        if self.count:
            derived.products = matrix @ (self.hessian * self.count) @ matrix.T
            derived.count = self.count
        return derived


def _invert(hessian: Tensor) -> Tensor:
    identity = torch.eye(hessian.shape[0])
    step = 0.0
    for _ in range(8):
        lower, failed = torch.linalg.cholesky_ex(hessian + step * identity)
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return upper
        step = max(step * 10, 1e-4 * float(hessian.diagonal().mean()))
    return torch.diag(hessian.diagonal().rsqrt())
