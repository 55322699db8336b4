"""What is expected of points before any of them was measured; data may refute it."""

from dataclasses import dataclass

from torch import Tensor

from .process import Process


@dataclass(frozen=True)
class Elsewhere:
    """What a process says that was fitted to other measurements, in another cube.

    Args:
        mapped: A `d x e`-dim tensor: what a point is in the other cube, less the offset.
        offset: An `e`-dim tensor: where the other cube has this one's origin.
        process: Over the other cube, standardized.
    """

    mapped: Tensor
    offset: Tensor
    process: Process

    def mean(self, A: Tensor) -> Tensor:
        """Return its mean at an `... x a x d`-dim tensor, less its constant, `... x a`-dim."""
        mean, _ = self.process.project(self._there(A))
        return mean - self.process.mean

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:
        """Return the covariance of its noise-free values, `... x a x b`-dim."""
        C, D = self._there(A), self._there(B)
        _, here = self.process.project(C)
        _, there = self.process.project(D)
        return self.process.kernel(C, D) - here.mT @ there

    def variance(self, A: Tensor) -> Tensor:
        """Return their variance, `... x a`-dim."""
        B = self._there(A)
        _, half = self.process.project(B)
        return (self.process.kernel.variance(B) - half.square().sum(-2)).clamp_min(0.0)

    def _there(self, A: Tensor) -> Tensor:
        return A @ self.mapped + self.offset
