"""The check of annotated shapes that all tests run under is at work."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from tests import shapes


def test_a_wrong_shape_is_found_in_arguments_and_fields():
    assert axis_angle_to_matrix(torch.zeros(5, 2, 3)).shape == (5, 2, 3, 3)
    with pytest.raises(TypeCheckError, match="axis_angle"):
        axis_angle_to_matrix(torch.zeros(5, 4))
    with pytest.raises(TypeCheckError, match="viewmat"):
        Camera(focal=1.0, cx=1.0, cy=1.0, width=2, height=2, viewmat=torch.eye(3))


def layers(function: Any) -> list[Any]:
    """A function and what it wraps, the outermost first."""
    found = [function]
    while hasattr(found[-1], "__wrapped__"):
        found.append(found[-1].__wrapped__)
    return found


def test_every_annotation_with_an_array_is_checked_and_nothing_else_is_wrapped():
    """What names an array is found by its text, before names that are defined below are known."""
    for name in ("method", "init"):
        importlib.import_module(f"avatar.methods.gaussian.{name}")
    seen = set()
    for name in filter(lambda name: name.startswith(shapes.PACKAGES), sorted(sys.modules)):
        for made in list(vars(sys.modules[name]).values()):
            if inspect.isfunction(made) and made.__module__ == name:
                *around, whole = layers(made)
                checked = any("jaxtyping" in layer.__code__.co_filename for layer in around)
                assert shapes.names_array(whole) == checked, whole
                with contextlib.suppress(AttributeError):  # a shape that is a number and no text is never checked
                    assert checked or not shapes._hints(whole), whole
                seen.add(checked)
    assert seen == {True, False}
