"""What is expected of points before any of them was measured; data may refute it."""

from dataclasses import dataclass

from torch import Tensor

from .process import Process


@dataclass(frozen=True)
class Elsewhere:
    """What a process says that was fitted to other measurements, in another cube.

    Args:
        mapped: A `d x e`-dim tensor: what a point is in the other cube.
        process: Over the other cube, standardized.
    """

    mapped: Tensor
    process: Process

    def mean(self, A: Tensor) -> Tensor:
        """Return its mean at an `... x a x d`-dim tensor, less its constant, `... x a`-dim."""
        mean, _ = self.process.project(A @ self.mapped)
        return mean - self.process.mean

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:
        """Return the covariance of its noise-free values, `... x a x b`-dim."""
        C, D = A @ self.mapped, B @ self.mapped
        _, here = self.process.project(C)
        _, there = self.process.project(D)
        return self.process.kernel(C, D) - here.mT @ there

    def variance(self, A: Tensor) -> Tensor:
        """Return their variance, `... x a`-dim."""
        B = A @ self.mapped
        _, half = self.process.project(B)
        return (self.process.kernel.variance(B) - half.square().sum(-2)).clamp_min(0.0)
