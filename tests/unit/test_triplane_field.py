from __future__ import annotations

import torch

from avatar.fields.triplane import TriplaneHash


def _field(coarsest: int) -> TriplaneHash:
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return TriplaneHash(bounds, levels=2, features=1, coarsest=coarsest, finest=16, log2_table=6)


def test_a_loaded_state_brings_its_resolutions():
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    field, other = _field(3), _field(5)
    before = field(points)
    field.load_state_dict(other.state_dict())
    assert torch.equal(field(points), other(points)) and not torch.equal(field(points), before)
