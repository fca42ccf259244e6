"""Time the kernels and the whole model on this machine, and write the results as JSON, table and plot."""

from avatar.bench.command import Config, main

__all__ = ["Config", "main"]
