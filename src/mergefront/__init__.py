"""MergeFront: the Pareto front of merged language models."""

__version__ = "0.1.0"
