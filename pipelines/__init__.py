"""Recipes: short scripts that compose the library end to end."""
