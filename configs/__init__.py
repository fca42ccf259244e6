"""Presets: plain functions that return whole configurations."""
