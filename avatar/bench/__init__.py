"""Time the kernels and the whole model on this machine, and write the results as JSON, table and plot."""

from avatar.cli.bench import Config, main

__all__ = ["Config", "main"]
